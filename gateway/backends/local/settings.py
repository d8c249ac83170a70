"""What the engine can be told, for those who explain or check a configuration and start nothing."""

from __future__ import annotations

import msgspec

from engine.config import EngineConfig, decode_config
from engine.errors import EngineConfigError
from gateway.errors import ConfigError

__all__ = ["EngineConfig", "check_engine"]


def check_engine(settings: object) -> EngineConfig:
    """The engine's own view of its section. Raises ConfigError naming the key."""
    try:
        return decode_config(msgspec.json.encode(settings).decode())
    except EngineConfigError as error:
        key = f"engine.{error.param}"
        raise ConfigError(f"{key}: {error.message}", key) from error
