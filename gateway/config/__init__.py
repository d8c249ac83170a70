"""The configuration: what there is to set, where it is read from, what it may not say."""

from gateway.config.config import (
    BUILT_IN_PROFILES,
    GatewayConfig,
    profiles_of,
)
from gateway.config.reading import (
    ENV_PREFIX,
    KEY_VARIABLE,
    UPSTREAMS,
    read_toml,
)
from gateway.config.sections import (
    MAX_VERIFY_DELAY_MS,
    AccessConfig,
    BackendConfig,
    DeliveryConfig,
    DemonstrationConfig,
    EngineConfig,
    LimitsConfig,
    LogConfig,
    OverloadConfig,
    Positive,
    ServerConfig,
    SupervisionConfig,
)

__all__ = [
    "AccessConfig",
    "BUILT_IN_PROFILES",
    "BackendConfig",
    "DeliveryConfig",
    "DemonstrationConfig",
    "ENV_PREFIX",
    "EngineConfig",
    "GatewayConfig",
    "KEY_VARIABLE",
    "LimitsConfig",
    "LogConfig",
    "MAX_VERIFY_DELAY_MS",
    "OverloadConfig",
    "Positive",
    "ServerConfig",
    "SupervisionConfig",
    "UPSTREAMS",
    "profiles_of",
    "read_toml",
]
