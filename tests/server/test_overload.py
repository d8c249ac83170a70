"""More requests than the backend takes at once, as clients see it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
from websockets.asyncio.client import connect

from gateway.app import create_app
from gateway.backends.base import Finished, Verified
from gateway.backends.scripted import ScriptedBackend, Step
from gateway.config import GatewayConfig
from tests.server.gateways import PATIENCE_S, Served, hand_served, serving
from tests.server.keyed import bearer, draw_keys, key_served
from tests.unit.gateway.doubles import COUNTS, FakeClock, HandBackend

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import httpx
    from websockets.asyncio.client import ClientConnection

    from gateway.service import Gateway


class Socket:
    """One WebSocket, whose starts are taken in their order."""

    def __init__(self, socket: ClientConnection, served: Served) -> None:
        self._socket = socket
        self._served = served
        self._events: list[dict[str, Any]] = []

    async def start(self, ref: str, **request: object) -> None:
        message = {"type": "start", "ref": ref, "request": {"prompt": "x", **request}}
        await self._socket.send(json.dumps(message))

    async def heard(self, kind: str, ref: str) -> dict[str, Any]:
        """An event of that kind about `ref`, which may have come before others."""
        while True:
            for event in self._events:
                if (event["type"], event.get("ref")) == (kind, ref):
                    self._events.remove(event)
                    return event
            async with asyncio.timeout(PATIENCE_S):
                self._events.append(json.loads(await self._socket.recv()))

    async def finish(self, opened: dict[str, Any], after_s: float) -> None:
        """That stream ends so many seconds later."""
        self._served.clock.advance(after_s)
        self._served.backend.say(Finished("stop", COUNTS), stream=opened["stream"])


@asynccontextmanager
async def socket_to(served: Served, key: str | None = None) -> AsyncGenerator[Socket]:
    url = f"{served.url.replace('http', 'ws')}/v1/ws"
    headers = {} if key is None else bearer(key)
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        yield Socket(socket, served)


async def test_requests_wait_for_their_turn_and_learn_when_to_come_back() -> None:
    async with hand_served(overload__waiting=1) as served, socket_to(served) as socket:
        served.backend.most = 1
        for ref in "abc":
            await socket.start(ref)
        first = await socket.heard("open", "a")
        refused = await socket.heard("error", "c")
        assert (refused["code"], refused["retryable"]) == ("overloaded", True)
        assert refused["retry_after_s"] == 1
        answer = await served.http.post("/v1/streams", json={"prompt": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"  # nothing is known yet
        await socket.finish(first, after_s=7.0)
        second = await socket.heard("open", "b")
        for ref in "de":
            await socket.start(ref)
        assert (await socket.heard("error", "e"))["retry_after_s"] == 14
        for path in ("/v1/streams", "/v1/completions"):
            answer = await served.http.post(path, json={"prompt": "x"})
            # Behind b and d, which take 7 s each as far as is known.
            assert answer.headers["retry-after"] == "14"
        await socket.finish(second, after_s=1.0)
        await socket.heard("open", "d")


async def test_stream_is_given_less_before_anybody_is_refused_and_says_so() -> None:
    settings = {
        "overload__shorter_drafts_from_s": 10.0,
        "overload__fallback_from_s": 20.0,
        "overload__fallback_model": "other",
    }
    async with hand_served(**settings) as served, socket_to(served) as socket:
        served.backend.most = 1
        await socket.start("first")
        opened = await socket.heard("open", "first")
        named = {"model": "hand"}
        for ref, request in (("a", {}), ("b", named), ("c", {}), ("d", {})):
            await socket.start(ref, **request)
        await socket.start("last", temperature=-1)
        await socket.heard("error", "last")  # by now the others wait
        seen: dict[str, tuple[list[str] | None, str]] = {}
        for ref in "abcd":
            await socket.finish(opened, after_s=10.0)
            opened = await socket.heard("open", ref)
            seen[ref] = (opened.get("degraded"), opened["model"])
            length = served.backend.requests[opened["stream"]].draft.length
            assert length == (None if opened.get("degraded") is None else 2)
        assert seen == {
            "a": (["shorter_drafts", "fallback_model"], "other"),  # b, c and d wait: 40 s
            "b": (["shorter_drafts"], "hand"),
            "c": (["shorter_drafts"], "hand"),  # d waits: 20 s were due
            "d": (None, "hand"),
        }


@pytest.mark.parametrize("path", ["/v1/streams", "/v1/completions"])
async def test_nobody_waits_for_a_client_that_has_gone(path: str) -> None:
    backend = HandBackend()
    backend.most = 1
    app = create_app(GatewayConfig(), backend)

    async def post(hangs_up: asyncio.Event) -> None:
        incoming = [{"type": "http.request", "body": b'{"prompt": "x"}'}]

        async def receive() -> dict[str, Any]:
            if not incoming:
                await hangs_up.wait()
            return incoming.pop() if incoming else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            del message

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
        }
        await app(scope, receive, send)

    async with app.router.lifespan_context(app), asyncio.timeout(PATIENCE_S):
        gateway = cast("Gateway", app.state.gateway)
        await gateway.started()
        turns = gateway.streams.turns
        ends = [asyncio.Event(), asyncio.Event()]
        first = asyncio.create_task(post(ends[0]))
        stream = await backend.admitted.get()
        second = asyncio.create_task(post(ends[1]))
        while turns.waiting == 0:  # noqa: ASYNC110 (the request is on its way)
            await asyncio.sleep(0)
        ends[1].set()
        await second
        assert (turns.waiting, gateway.streams.live) == (0, 1)
        ends[0].set()
        await first
        backend.cancel(stream)
        assert len(backend.requests) == 1
        assert turns.generating == 0


async def test_key_that_sends_much_does_not_hold_up_another(tmp_path: Path) -> None:
    keys = draw_keys()
    async with (
        key_served(keys, tmp_path) as served,
        socket_to(served, keys.alice) as greedy,
        socket_to(served, keys.bob) as modest,
    ):
        served.backend.most = 1
        for number in range(5):
            await greedy.start(f"g{number}")
        opened = await greedy.heard("open", "g0")
        await modest.start("m")
        await modest.start("last", temperature=-1)
        await modest.heard("error", "last")
        await greedy.finish(opened, after_s=1.0)
        await modest.heard("open", "m")
        assert len(served.backend.requests) == 2


async def wait_until_waiting(http: httpx.AsyncClient, count: int) -> None:
    """For a turn."""
    async with asyncio.timeout(PATIENCE_S):
        while f"wetink_turns_waiting {count:.1f}" not in (await http.get("/metrics")).text:
            pass


LARGE, SMALL = "from the large model", "from the small model"


def two_models() -> ScriptedBackend:
    """`large`, listed first, goes on until it is cancelled; `small` is done at once."""
    large = [Step(0.0, Verified(LARGE)), Step(3600.0, Finished("stop", COUNTS))]
    small = [Step(0.0, Verified(SMALL)), Step(0.0, Finished("stop", COUNTS))]
    return ScriptedBackend({"large": large, "small": small})


async def test_backend_with_two_models_serves_with_the_smaller_one_before_anybody_is_refused() -> (
    None
):
    settings: dict[str, object] = {
        "overload__places": 1,
        "overload__fallback_model": "small",
        "overload__fallback_from_s": 5.0,
    }
    clock = FakeClock()
    async with serving(two_models(), clock, **settings) as (_, http):
        while (await http.get("/readyz")).status_code != 200:
            pass

        async def start(**request: object) -> dict[str, Any]:
            answer = await http.post("/v1/streams", json={"prompt": "x", **request})
            assert answer.status_code == 201, answer.text
            snapshot = await http.get(f"/v1/streams/{answer.json()['stream']}")
            return dict(snapshot.json())

        first = await start()
        clock.advance(10.0)  # so long does a stream take, as far as is known
        await http.delete(f"/v1/streams/{first['stream']}")
        second = await start()
        assert (first["model"], second["model"]) == ("large", "large")
        waiting = [asyncio.create_task(start()) for _ in range(3)]
        await wait_until_waiting(http, 3)
        await http.delete(f"/v1/streams/{second['stream']}")
        models = [(await task)["model"] for task in waiting]
        # Behind the last one nobody waits any more.
        assert sorted(models) == ["large", "small", "small"]


async def test_request_too_long_for_the_smaller_model_is_served_by_the_one_it_would_have() -> None:
    settings: dict[str, object] = {
        "overload__places": 1,
        "overload__fallback_model": "other",
        "overload__fallback_from_s": 5.0,
    }
    async with hand_served(**settings) as served, socket_to(served) as socket:
        served.backend.context_of["other"] = 10
        await socket.start("a")
        first = await socket.heard("open", "a")
        for ref in ("long", "b", "c"):
            await socket.start(ref, prompt="x " * (50 if ref == "long" else 1))
        await wait_until_waiting(served.http, 3)
        await socket.finish(first, after_s=10.0)
        opened = await socket.heard("open", "long")
        assert (opened["model"], opened.get("degraded")) == ("hand", ["shorter_drafts"])


async def test_operator_learns_that_there_is_no_such_fallback_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with hand_served(overload__fallback_model="ohter"):
        assert "overload.fallback_model: ohter is none of the models: hand, other" in caplog.text
