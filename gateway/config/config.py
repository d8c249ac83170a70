"""The whole configuration, read once at the edge.

Sources, later ones win: the defaults of the sections, a TOML file, environment variables
(`WETINK_<SECTION>_<KEY>`), the caller's overrides (`{"server.port": 0}`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from gateway.config import checks
from gateway.config.reading import from_env, put, read_profiles, read_toml
from gateway.config.sections import (
    AccessConfig,
    AheadConfig,
    BackendConfig,
    DeliveryConfig,
    DemonstrationConfig,
    EngineConfig,
    LimitsConfig,
    LogConfig,
    OverloadConfig,
    PoliciesConfig,
    ServerConfig,
    SupervisionConfig,
    TelemetryConfig,
)
from gateway.config.upstreams import UpstreamConfig, check_upstreams
from gateway.errors import ConfigError
from protocol.refusals import refusal
from protocol.requests import Chunk, Hold, PolicySpec, StreamRetract

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    server: ServerConfig = ServerConfig()
    access: AccessConfig = AccessConfig()
    limits: LimitsConfig = LimitsConfig()
    overload: OverloadConfig = OverloadConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    policies: PoliciesConfig = PoliciesConfig()
    backend: BackendConfig = BackendConfig()
    engine: EngineConfig = EngineConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    demonstration: DemonstrationConfig = DemonstrationConfig()
    log: LogConfig = LogConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    ahead: AheadConfig = AheadConfig()
    upstreams: list[UpstreamConfig] = []

    @property
    def own_backend(self) -> Literal["local", "scripted", "none"]:
        """The source of tokens beside the upstreams."""
        return self.backend.kind or ("none" if self.upstreams else "local")

    @property
    def started_engine(self) -> EngineConfig:
        """What the engine is started with: its settings, and what a demonstration adds."""
        if not self.demonstration.enabled or self.engine.verify_delay_ms is not None:
            return self.engine
        delay = self.demonstration.verify_delay_ms
        return msgspec.structs.replace(self.engine, verify_delay_ms=delay)

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        overrides: Mapping[str, object] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> GatewayConfig:
        """Reads everything there is to read. Raises ConfigError naming the key."""
        tree: dict[str, Any] = {} if path is None else read_toml(path)
        for key, value in from_env(os.environ if env is None else env, cls).items():
            put(tree, key, value)
        for key, value in (overrides or {}).items():
            put(tree, key, value)
        return cls.from_tree(tree)

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> GatewayConfig:
        """A configuration as TOML has it. Raises ConfigError naming the key."""
        read_profiles(tree)
        try:
            config = msgspec.convert(tree, cls, strict=False)
        except msgspec.ValidationError as error:
            refused = refusal(error, tree, cls, "the configuration")
            raise ConfigError(refused.message, refused.param) from error
        config.check()
        return config

    def check(self) -> None:
        """Raises ConfigError where values do not go together, or could never have an effect."""
        server, policies = self.server, self.policies
        hosts = server.allowed_hosts or []
        checks.check_profiles(policies.profiles, profiles_of(policies), policies.default)
        checks.check_names(server.allowed_origins, hosts, self.limits.exempt_addresses)
        checks.check_tls(server.tls_certificate, server.tls_key)
        checks.check_shape(self.delivery.pad, self.delivery.tick_ms)
        check_upstreams(self.upstreams)
        if self.own_backend == "none" and not self.upstreams:
            raise ConfigError('backend.kind: "none" goes with [[upstreams]], and there is none')
        if self.demonstration.enabled:
            checks.check_demonstration([server.host, *hosts])


BUILT_IN_PROFILES: dict[str, PolicySpec] = {
    "chat": StreamRetract(budget=0.05),
    "ide": Chunk(unit="line", tail=True),
    "tts": Chunk(unit="sentence"),
    "api": Hold(),
}


def profiles_of(config: PoliciesConfig) -> dict[str, PolicySpec]:
    return {**BUILT_IN_PROFILES, **config.profiles}
