from __future__ import annotations

import msgspec
import pytest

from gateway.backends.vllm import channel as channel_module
from gateway.backends.vllm.channel import Channel
from gateway.backends.vllm.messages import VERSION, Frame, Update
from gateway.errors import ConfigError
from tests.unit.gateway.backends.vllm.telling import update


def frame(seq: int, *updates: Update, engine: str = "one", missed: int = 0) -> bytes:
    return msgspec.msgpack.encode(
        Frame(
            v=VERSION,
            engine=engine,
            seq=seq,
            missed=missed,
            greedy_only=False,
            updates=list(updates),
        )
    )


class Heard:
    def __init__(self) -> None:
        self.updates: list[tuple[str, Update]] = []

    def __call__(self, engine: str, told: Update) -> None:
        self.updates.append((engine, told))


def test_channel_counts_the_frames_that_did_not_arrive() -> None:
    channel = Channel([], Heard())
    for seq in (5, 6, 9):
        channel.take(frame(seq, missed=seq))
    channel.take(frame(1, missed=0, engine="two"))
    assert (channel.lost_frames, channel.missed_steps) == (2, 4)


def test_channel_says_which_engine_an_update_is_from() -> None:
    heard = Heard()
    channel = Channel([], heard)
    channel.take(frame(1, update(0, "a"), engine="one"))
    channel.take(frame(1, update(0, "b"), update(1, "c"), engine="two"))
    assert [(engine, told.text) for engine, told in heard.updates] == [
        ("one", "a"),
        ("two", "b"),
        ("two", "c"),
    ]


def test_channel_forgets_an_engine_that_has_fallen_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel([], Heard())
    channel.take(frame(1))
    assert len(channel.engines) == 1
    monkeypatch.setattr(channel_module, "SILENT_S", -1.0)
    assert channel.engines == []
    assert not channel.greedy_only


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x81\xa1v\x01", b"\x93\x01\x02\x03"])
def test_channel_passes_over_what_is_no_frame(data: bytes) -> None:
    heard = Heard()
    channel = Channel([], heard)
    channel.take(data)
    channel.take(frame(1, update(0, "a")))
    assert len(heard.updates) == 1


async def test_channel_refuses_an_address_that_is_none() -> None:
    channel = Channel(["ipc:///" + 200 * "long"], Heard())
    with pytest.raises(ConfigError, match="longlong"):
        channel.open()
    await channel.close()
