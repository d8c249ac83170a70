"""How much one key, one address and one connection may have: each limit at its edge."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.access import Allowance
from gateway.access import keys as stored
from gateway.access.keys import Scope
from gateway.backends.base import Finished
from tests.server.gateways import PATIENCE_S, hand_served
from tests.server.keyed import Keys, bearer, draw_keys, key_served
from tests.unit.gateway.doubles import COUNTS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import httpx

    from tests.server.gateways import Served


@pytest.fixture(scope="module")
def keys() -> Keys:
    return draw_keys()


@asynccontextmanager
async def limited(keys: Keys, folder: Path, party: str, **limits: object) -> AsyncGenerator[Served]:
    """A server whose limits apply to each key, or to each address."""
    named = {f"limits__{name}_per_{party}": value for name, value in limits.items()}
    async with key_served(keys, folder, **named) as served:
        yield served


async def ask(served: Served, key: str, **request: object) -> httpx.Response:
    body = {"prompt": "hi", **request}
    return await served.http.post("/v1/streams", json=body, headers=bearer(key))


def refused(answer: httpx.Response) -> tuple[int, str, int]:
    """Status, code and seconds to wait."""
    return answer.status_code, answer.json()["error"]["code"], int(answer.headers["retry-after"])


@pytest.mark.parametrize("party", ["key", "address"])
async def test_streams_are_bounded(keys: Keys, tmp_path: Path, party: str) -> None:
    async with limited(keys, tmp_path, party, streams=2) as served:
        first = (await ask(served, keys.alice)).json()["stream"]
        await ask(served, keys.alice)
        assert refused(await ask(served, keys.alice)) == (429, "too_many_streams", 1)
        # Another key at the same address has its own, but not another address.
        assert (await ask(served, keys.bob)).status_code == (201 if party == "key" else 429)
        served.backend.say(Finished("stop", COUNTS), stream=first)
        assert (await ask(served, keys.alice)).status_code == 201


@pytest.mark.parametrize("party", ["key", "address"])
async def test_attachments_are_bounded(keys: Keys, tmp_path: Path, party: str) -> None:
    async with limited(keys, tmp_path, party, attachments=1) as served:
        stream = (await ask(served, keys.alice)).json()["stream"]
        path, headers = f"/v1/streams/{stream}/events", bearer(keys.alice)
        async with served.http.stream("GET", path, headers=headers) as reading:
            assert reading.status_code == 200
            answer = await served.http.get(path, headers=headers)
            assert refused(answer) == (503, "overloaded", 1)


@pytest.mark.parametrize("party", ["key", "address"])
async def test_requests_per_minute_are_bounded(keys: Keys, tmp_path: Path, party: str) -> None:
    async with limited(keys, tmp_path, party, requests_per_minute=3) as served:

        async def look(key: str) -> httpx.Response:
            return await served.http.get("/v1/models", headers=bearer(key))

        for _ in range(3):
            assert (await look(keys.alice)).status_code == 200
        assert refused(await look(keys.alice)) == (429, "rate_limited", 20)
        assert (await look(keys.bob)).status_code == (200 if party == "key" else 429)
        assert (await served.http.get("/healthz")).status_code == 200
        served.clock.advance(19.0)
        assert refused(await look(keys.alice))[2] == 1
        served.clock.advance(1.0)
        assert (await look(keys.alice)).status_code == 200
        assert (await look(keys.alice)).status_code == 429


@pytest.mark.parametrize("party", ["key", "address"])
async def test_tokens_per_minute_are_bounded(keys: Keys, tmp_path: Path, party: str) -> None:
    async with limited(keys, tmp_path, party, tokens_per_minute=600) as served:
        first = (await ask(served, keys.alice, max_tokens=400)).json()["stream"]
        # 200 are left, and 10 more come every second.
        assert refused(await ask(served, keys.alice, max_tokens=400)) == (429, "rate_limited", 20)
        assert (await ask(served, keys.alice, max_tokens=200)).status_code == 201
        # What was set aside and not used comes back with the end: 400, less 2 read and 8 written.
        served.backend.say(Finished("stop", COUNTS), stream=first)
        assert refused(await ask(served, keys.alice, max_tokens=400)) == (429, "rate_limited", 1)
        served.clock.advance(1.0)
        assert (await ask(served, keys.alice, max_tokens=400)).status_code == 201


async def test_tokens_of_a_refused_request_are_given_back(keys: Keys, tmp_path: Path) -> None:
    async with limited(keys, tmp_path, "key", tokens_per_minute=600) as served:
        answer = await ask(served, keys.alice, prompt="word " * 200, max_tokens=600)
        assert answer.json()["error"]["code"] == "context_exceeded"
        assert (await ask(served, keys.alice, max_tokens=600)).status_code == 201


async def test_long_answer_is_possible_under_a_small_rate(keys: Keys, tmp_path: Path) -> None:
    async with limited(keys, tmp_path, "key", tokens_per_minute=10) as served:
        assert (await ask(served, keys.alice, max_tokens=1000)).status_code == 201
        assert refused(await ask(served, keys.alice, max_tokens=1000)) == (429, "rate_limited", 60)


async def test_key_has_its_own_limits(tmp_path: Path, keys: Keys) -> None:
    text, kept = stored.draw("small", Scope(), Allowance(requests_per_minute=1), now=0)
    mixed = keys._replace(kept=[*keys.kept, kept])
    async with key_served(mixed, tmp_path) as served:
        statuses = [
            (await served.http.get("/v1/models", headers=bearer(key))).status_code
            for key in (text, text, keys.alice, keys.alice)
        ]
    assert statuses == [200, 429, 200, 200]


async def test_sockets_of_a_key_are_bounded(keys: Keys, tmp_path: Path) -> None:
    async with limited(keys, tmp_path, "key", connections=1) as served:
        url, headers = f"{served.url.replace('http', 'ws')}/v1/ws", bearer(keys.alice)
        async with connect(url, additional_headers=headers, proxy=None):
            with pytest.raises(InvalidStatus) as second:
                await connect(url, additional_headers=headers, proxy=None)
            assert second.value.response.status_code == 429
            assert second.value.response.headers["Retry-After"] == "1"
            answer = await served.http.get("/v1/models", headers=headers)
            assert refused(answer) == (429, "too_many_connections", 1)
            async with connect(url, additional_headers=bearer(keys.bob), proxy=None):
                pass
        while (await served.http.get("/v1/models", headers=headers)).status_code == 429:
            pass  # the server hears of the end a moment later


@pytest.mark.parametrize(
    "limits",
    [
        {"limits__connections": 2},
        {"limits__connections_per_address": 2, "limits__exempt_addresses": []},
    ],
    ids=["altogether", "of an address"],
)
async def test_connections_are_bounded(limits: dict[str, Any]) -> None:
    async with hand_served(**limits) as served, AsyncExitStack() as open_ones:
        port = int(served.url.rpartition(":")[2])
        url = f"{served.url.replace('http', 'ws')}/v1/ws"
        await open_ones.enter_async_context(connect(url, proxy=None))
        _, idle = await asyncio.open_connection("127.0.0.1", port)
        open_ones.callback(idle.close)

        async def answer() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    return await reader.readuntil(b"}")
            except ConnectionError:
                return b""
            finally:
                writer.close()

        refusal = await answer()
        assert b" 429 " in refusal.splitlines()[0]
        assert b"too_many_connections" in refusal
        assert b"Retry-After: 1" in refusal
        idle.close()
        while b" 200 " not in (await answer()).partition(b"\r\n")[0]:
            pass  # the server hears of the end a moment later


async def test_messages_of_a_socket_are_bounded() -> None:
    async with hand_served(limits__messages_per_second_per_socket=1) as served:
        url = f"{served.url.replace('http', 'ws')}/v1/ws"
        async with connect(url, proxy=None) as socket:

            async def say(ref: str) -> str:
                await socket.send(json.dumps({"type": "cancel", "ref": ref}))
                return str(json.loads(await socket.recv())["code"])

            assert [await say(ref) for ref in "abcdef"] == ["unknown_ref"] * 5 + ["rate_limited"]
            served.clock.advance(1.0)
            assert [await say(ref) for ref in "de"] == ["unknown_ref", "rate_limited"]


async def test_starts_on_a_socket_count_as_requests(keys: Keys, tmp_path: Path) -> None:
    async with limited(keys, tmp_path, "key", requests_per_minute=3) as served:
        url = f"{served.url.replace('http', 'ws')}/v1/ws"
        async with connect(url, additional_headers=bearer(keys.alice), proxy=None) as socket:
            said: list[str] = []
            for ref in "abc":
                message = {"type": "start", "ref": ref, "request": {"prompt": "x"}}
                await socket.send(json.dumps(message))
                answer = json.loads(await socket.recv())
                said.append(answer.get("code", answer["type"]))
    assert said == ["open", "open", "rate_limited"]


async def test_address_may_guess_a_key_only_so_often(keys: Keys, tmp_path: Path) -> None:
    limits = {"limits__wrong_keys_per_minute_per_address": 3}
    async with key_served(keys, tmp_path, **limits) as served:

        async def come(key: str) -> int:
            return (await served.http.get("/v1/models", headers=bearer(key))).status_code

        assert await come(keys.alice) == 200
        wrong = keys.alice[:-2] + "zz"
        assert [await come(wrong) for _ in range(5)] == [401, 401, 401, 429, 429]
        # A right key that was proven before is let in all the same.
        assert await come(keys.alice) == 200
        assert await come(keys.bob) == 429
        served.clock.advance(20.0)
        assert await come(keys.bob) == 200
