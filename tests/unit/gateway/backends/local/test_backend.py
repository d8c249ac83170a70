"""What the local backend tells its engine. Its life with real processes: tests/integration."""

from __future__ import annotations

import msgspec
import pytest

from engine import config as engine_config
from gateway.backends.local import LocalBackend
from gateway.config import EngineConfig
from gateway.errors import BackendError
from protocol.requests import GenerationRequest

REQUEST = GenerationRequest(prompt="p", model="m")


def ignore(event: object) -> None:
    """A sink nobody looks at."""


def test_config_has_every_setting_of_the_engine() -> None:
    assert set(EngineConfig.__struct_fields__) == set(engine_config.EngineConfig.__struct_fields__)


def test_config_leaves_to_the_engine_what_is_not_set() -> None:
    config = EngineConfig(model="m", prefix_cache=False)
    assert msgspec.json.encode(config) == b'{"model":"m","prefix_cache":false}'
    assert msgspec.json.encode(EngineConfig()) == b"{}"


async def test_backend_refuses_requests_before_its_engine_runs() -> None:
    backend = LocalBackend(EngineConfig())
    assert not backend.ready
    assert backend.models() == []
    assert backend.engine_pid is None
    with pytest.raises(BackendError) as caught:
        await backend.generate("a", REQUEST, ignore)
    assert caught.value.retryable


async def test_backend_takes_calls_for_streams_it_does_not_have() -> None:
    backend = LocalBackend(EngineConfig())
    backend.cancel("a")
    backend.want_drafts("a", True)
    await backend.stop()
    assert not backend.ready


async def test_backend_refuses_to_start_twice() -> None:
    backend = LocalBackend(EngineConfig(), worker=("false",))
    with pytest.raises(BackendError):
        await backend.start()
    with pytest.raises(RuntimeError, match="once"):
        await backend.start()
    await backend.stop()
