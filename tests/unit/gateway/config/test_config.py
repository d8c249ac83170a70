from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config import KEY_VARIABLE, EngineConfig, GatewayConfig, profiles_of
from gateway.errors import ConfigError
from protocol.requests import Chunk, StreamRetract
from wetink import terminal

if TYPE_CHECKING:
    from pathlib import Path


def test_operator_gets_defaults_without_any_source() -> None:
    config = GatewayConfig.load(env={})
    assert config == GatewayConfig()
    assert profiles_of(config.policies)[config.policies.default] == StreamRetract(budget=0.05)


def test_operator_overrides_file_by_environment_by_command_line(tmp_path: Path) -> None:
    path = tmp_path / "wetink.toml"
    path.write_text('[server]\nhost = "::1"\nport = 1\n[limits]\nlive_streams = 1\n')
    config = GatewayConfig.load(
        path,
        {"server.port": 3},
        env={"WETINK_SERVER_PORT": "2", "WETINK_LIMITS_LIVE_STREAMS": "2", "OTHER": "x"},
    )
    assert (config.server.host, config.server.port, config.limits.live_streams) == ("::1", 3, 2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("WETINK_SERVER_PROT", "did you mean WETINK_SERVER_PORT?"),
        ("WETINK_LIMIT_LIVE_STREAMS", "did you mean WETINK_LIMITS_LIVE_STREAMS?"),
        ("WETINK_QUUX", "no setting is called so"),
        ("WETINK_POLICIES_PROFILES", "WETINK_POLICIES_PROFILES: "),
    ],
)
def test_operator_is_told_of_a_misspelt_variable(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        GatewayConfig.load(env={name: "1"})
    assert name in str(refused.value)
    assert said in str(refused.value)


def test_operator_may_have_a_clients_key_in_the_environment() -> None:
    assert KEY_VARIABLE == terminal.KEY_VARIABLE
    assert GatewayConfig.load(env={KEY_VARIABLE: "wetink_x"}) == GatewayConfig()


def test_operator_may_call_a_kubernetes_service_wetink() -> None:
    env = {"WETINK_SERVICE_HOST": "10.0.0.1", "WETINK_PORT_8000_TCP": "x", "WETINK_PORT": "tcp://x"}
    assert GatewayConfig.load(env=env) == GatewayConfig()


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "https://a.test", "http://a.test:8080", "http://[::1]:1", "vscode-webview://x1"],
)
def test_operator_allows_origins_that_browsers_send(origin: str) -> None:
    config = GatewayConfig.load(overrides={"server.allowed_origins": [origin]}, env={})
    assert config.server.allowed_origins == [origin]


@pytest.mark.parametrize(
    ("origin", "suggested"),
    [
        ("https://a.test/", "https://a.test"),
        ("https://A.test", "https://a.test"),
        ("https://a.test:443", "https://a.test"),
        ("http://a.test:80/x?y", "http://a.test"),
        ("a.test", "https://a.test"),
        ("http://a.test:x", "https://app.example"),
        ("", "https://app.example"),
    ],
)
def test_operator_is_told_that_an_origin_can_never_match(origin: str, suggested: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.allowed_origins") as refused:
        GatewayConfig.load(overrides={"server.allowed_origins": [origin]}, env={})
    assert f'such as "{suggested}"' in str(refused.value)


def test_operator_lists_origins_in_the_environment() -> None:
    env = {"WETINK_SERVER_ALLOWED_ORIGINS": "http://a.test,http://b.test"}
    config = GatewayConfig.load(env=env)
    assert config.server.allowed_origins == ["http://a.test", "http://b.test"]


def test_operator_adds_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "wetink.toml"
    path.write_text(
        '[policies]\ndefault = "car"\n[policies.profiles.car]\nkind = "chunk"\nunit = "clause"\n'
    )
    config = GatewayConfig.load(path, env={})
    assert profiles_of(config.policies)["car"] == Chunk(unit="clause")
    assert "tts" in profiles_of(config.policies)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"server.port": 70000}, "server.port must be an integer of at least 0 and at most 65535"),
        ({"server.allowed_hosts": ["a.test:80"]}, "server.allowed_hosts"),
        ({"server.allowed_hosts": ["http://a.test"]}, "server.allowed_hosts"),
        ({"server.allowed_hosts": ["A.test"]}, "server.allowed_hosts"),
        ({"limits.exempt_addresses": ["proxy"]}, "limits.exempt_addresses"),
        ({"policies.profiles": {"x": {"kind": "magic"}}}, "x: kind must be one of hold, retract"),
        ({"policies.profiles": {"x": "hold"}}, "policies.profiles.x: it must be an object with"),
        (
            {"policies.profiles": {"x": {"kind": "chunk", "unit": "page"}}},
            "policies.profiles.x: unit must be one of clause, line",
        ),
        ({"policies.profiles": {"x": {"kind": "chunk", "locale": "xx"}}}, "x: .*BCP 47"),
        ({"server.prot": 1}, "prot"),
        ({"limits.body_bytes": 0}, "limits.body_bytes"),
        ({"backend.kind": "magic"}, "backend.kind"),
        ({"policies.default": "nope"}, "allowed are api, chat, ide, tts"),
        ({"policies.profiles": {"hold": {"kind": "hold"}}}, "'hold'"),
        ({"policies.profiles": {"x": {"kind": "chunk", "unit": "page"}}}, "unit"),
        ({"policies.profiles": {"x": {"kind": "chunk", "locale": "??"}}}, "policies.profiles.x"),
    ],
)
def test_operator_is_told_which_key_is_wrong(overrides: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        GatewayConfig.load(overrides=overrides, env={})


@pytest.mark.parametrize("content", [b"[server", b"\xff"])
def test_operator_is_told_which_file_is_broken(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        GatewayConfig.load(path, env={})


def test_operator_is_told_that_a_section_is_no_value(tmp_path: Path) -> None:
    path = tmp_path / "wetink.toml"
    path.write_text("server = 5\n")
    with pytest.raises(ConfigError, match=r"server: a table"):
        GatewayConfig.load(path, {"server.port": 1}, env={})


def test_operator_is_told_that_the_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        GatewayConfig.load(tmp_path / "none.toml", env={})


def test_config_takes_engine_settings_from_file_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "wetink.toml"
    file.write_text('[engine]\nmodel = "a"\ndraft_length = 4\n')
    config = GatewayConfig.load(file, {"engine.model": "b"}, env={})
    assert config.engine == EngineConfig(model="b", draft_length=4)


def test_config_refuses_unknown_engine_setting_by_name(tmp_path: Path) -> None:
    file = tmp_path / "wetink.toml"
    file.write_text("[engine]\ndraft_lenght = 4\n")
    with pytest.raises(ConfigError, match="draft_lenght"):
        GatewayConfig.load(file, env={})


@pytest.mark.parametrize(
    "server", [{"server.host": "0.0.0.0"}, {"server.allowed_hosts": ["gateway.example"]}]
)
def test_demonstration_is_refused_where_others_could_reach_it(server: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="demonstration.enabled"):
        GatewayConfig.load(overrides={"demonstration.enabled": True, **server}, env={})


def test_demonstration_begins_slow_unless_the_engine_has_its_own_pace() -> None:
    def delay(**overrides: object) -> float | None:
        dotted = {key.replace("__", "."): value for key, value in overrides.items()}
        return GatewayConfig.load(overrides=dotted, env={}).started_engine.verify_delay_ms

    assert delay() is None
    assert delay(demonstration__enabled=True) == 300.0
    assert delay(demonstration__enabled=True, engine__verify_delay_ms=30.0) == 30.0


@pytest.mark.parametrize("given", ["server.tls_certificate", "server.tls_key"])
def test_operator_is_told_that_certificate_and_key_go_together(given: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.tls_certificate: it goes with server\.tls_key"):
        GatewayConfig.load(overrides={given: "x.pem"}, env={})


@pytest.mark.parametrize("given", [{"delivery.pad": 2048}, {"delivery.tick_ms": 50}])
def test_operator_shapes_sizes_and_times_or_neither(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"delivery\.pad: it goes with delivery\.tick_ms"):
        GatewayConfig.load(overrides=given, env={})
