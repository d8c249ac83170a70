"""The key an upstream wants: from a variable or a file, never from the configuration itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.upstreams import UpstreamConfig


def read_key(config: UpstreamConfig, env: Mapping[str, str] | None = None) -> str | None:
    """None where it wants none. Raises ConfigError, which never says the key."""
    here = f"upstreams.{config.title}"
    if config.key_variable is not None:
        where = f"{here}.key_variable: the environment variable {config.key_variable}"
        key = (os.environ if env is None else env).get(config.key_variable)
        if key is None:
            raise ConfigError(f"{where} is not set")
    elif config.key_file is not None:
        where = f"{here}.key_file: {config.key_file}"
        try:
            key = Path(config.key_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ConfigError(f"{where} cannot be read: {reason}") from None
    else:
        return None
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{where} holds no key: one word of ASCII characters is needed")
    return key
