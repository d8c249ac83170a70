"""What a user gets wrong, over HTTP and over WebSocket: the same codes, naming the field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from gateway.app import create_app
from gateway.config import GatewayConfig
from tests.server.gateways import hand_served
from tests.unit.gateway.doubles import HandBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.server.gateways import Served

MESSAGE_TOO_BIG = 1009

# name → (request body, code, HTTP status, param, words the message must have)
BODIES: dict[str, tuple[dict[str, Any], str, int, str | None, list[str]]] = {
    "unknown policy": (
        {"prompt": "x", "policy": "nope"},
        "invalid_value",
        400,
        "policy",
        ["hold", "retract", "chunk", "chat", "tts"],
    ),
    "unknown policy kind": (
        {"prompt": "x", "policy": {"kind": "nope"}},
        "invalid_value",
        400,
        "policy.kind",
        ["hold", "retract", "chunk"],
    ),
    "unknown unit": (
        {"prompt": "x", "policy": {"kind": "chunk", "unit": "page"}},
        "invalid_value",
        400,
        "policy.unit",
        ["sentence", "paragraph"],
    ),
    "bad locale": (
        {"prompt": "x", "policy": {"kind": "chunk", "locale": "not a locale"}},
        "invalid_value",
        400,
        "policy.locale",
        ["pt-BR"],
    ),
    "prompt over the context": (
        {"prompt": "word " * 100},
        "context_exceeded",
        400,
        "prompt",
        ["100"],
    ),
    "negative max_tokens": (
        {"prompt": "x", "max_tokens": -1},
        "invalid_value",
        400,
        "max_tokens",
        ["1"],
    ),
    "negative temperature": (
        {"prompt": "x", "temperature": -0.5},
        "invalid_value",
        400,
        "temperature",
        ["0"],
    ),
    "negative seed": ({"prompt": "x", "seed": -3}, "invalid_value", 400, "seed", ["0"]),
    "negative max_tail": (
        {"prompt": "x", "policy": {"kind": "retract", "max_tail": -1}},
        "invalid_value",
        400,
        "policy.max_tail",
        ["1"],
    ),
    "unknown model": (
        {"prompt": "x", "model": "gpt-9"},
        "unknown_model",
        404,
        "model",
        ["hand", "other"],
    ),
    "no prompt": ({}, "missing_field", 400, "prompt", ["messages"]),
    "misspelt field": (
        {"prompt": "x", "max_token": 3},
        "unknown_field",
        400,
        "max_token",
        ["max_tokens"],
    ),
    "wrong type": ({"prompt": 3}, "invalid_value", 400, "prompt", ["string"]),
    "unknown unit of offsets": (
        {"prompt": "x", "offsets": "bytes"},
        "invalid_value",
        400,
        "offsets",
        ["codepoint", "utf-16", "utf-8"],
    ),
}


@pytest.fixture
async def small() -> AsyncIterator[Served]:
    async with hand_served(limits__body_bytes=2000, limits__live_streams=2) as running:
        yield running


def error_of(body: dict[str, Any]) -> dict[str, Any]:
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"code", "message", "param"}
    return dict(error)


@pytest.mark.parametrize("name", BODIES)
async def test_http_user_is_told_field_and_allowed_values(served: Served, name: str) -> None:
    body, code, status, param, words = BODIES[name]
    answer = await served.http.post("/v1/streams", json=body)
    error = error_of(answer.json())
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    for word in words:
        assert word in error["message"]
    assert answer.headers["content-type"] == "application/json"
    assert served.backend.requests == {}


@pytest.mark.parametrize("name", BODIES)
async def test_websocket_user_is_told_the_same(served: Served, name: str) -> None:
    body, code, _, param, words = BODIES[name]
    async with connect(f"{served.url.replace('http', 'ws')}/v1/ws", proxy=None) as socket:
        await socket.send(json.dumps({"type": "start", "ref": "a", "request": body}))
        error = json.loads(await socket.recv())
        in_decoder = code not in ("unknown_model", "context_exceeded") and param not in (
            "policy",
            "policy.locale",
        )
        expected = f"request.{param}" if in_decoder else param
        assert (error["type"], error["code"], error["ref"]) == ("error", code, "a")
        assert error["param"] == expected
        assert error["retryable"] is False
        for word in words:
            assert word in error["message"]
        # The connection lives on.
        await socket.send(json.dumps({"type": "start", "ref": "a", "request": {"prompt": "x"}}))
        assert json.loads(await socket.recv())["type"] == "open"


@pytest.mark.parametrize("body", [b"", b"{", b'{"prompt": "x"', b"\xff\xfe", b"[" * 100_000])
async def test_http_user_is_told_of_malformed_json(served: Served, body: bytes) -> None:
    for path in ("/v1/streams", "/v1/chat/completions", "/v1/completions"):
        answer = await served.http.post(path, content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "malformed_json"


async def test_http_user_is_told_that_the_body_is_too_large(small: Served) -> None:
    body = json.dumps({"prompt": "x" * 3000}).encode()

    async def in_chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 500):
            yield body[start : start + 500]

    for path in ("/v1/streams", "/v1/chat/completions"):
        for content in (body, in_chunks()):
            answer = await small.http.post(path, content=content)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (413, "body_too_large")
            assert "2000" in error["message"]


@pytest.mark.parametrize(
    ("query", "header", "status", "code", "param"),
    [
        ("cursor=nonsense", None, 400, "bad_cursor", "cursor"),
        ("cursor=1.2", None, 400, "bad_cursor", "cursor"),
        ("cursor=-1.0.0", None, 400, "bad_cursor", "cursor"),
        ("", "nonsense", 400, "bad_cursor", "Last-Event-ID"),
        ("cursor=1.0.0", None, 410, "unknown_epoch", "cursor"),
        ("cursor={epoch}.0.5", None, 409, "cursor_ahead", "cursor"),
        ("cursor={epoch}.1.0", None, 409, "cursor_ahead", "cursor"),
        ("", "{epoch}.0.5", 409, "cursor_ahead", "cursor"),
        ("policy=nope", None, 400, "invalid_value", "policy"),
        ("offsets=bytes", None, 400, "invalid_value", "offsets"),
        ("include=tokens,magic", None, 400, "invalid_value", "include[1]"),
        ("polcy=hold", None, 400, "unknown_field", "polcy"),
        ("policy=hold&policy=chunk", None, 400, "invalid_value", "policy"),
    ],
)
async def test_reader_is_told_what_is_wrong_with_its_attachment(
    served: Served, query: str, header: str | None, status: int, code: str, param: str
) -> None:
    created = (await served.http.post("/v1/streams", json={"prompt": "x"})).json()
    epoch = created["epoch"]
    headers = {} if header is None else {"Last-Event-ID": header.format(epoch=epoch)}
    answer = await served.http.get(
        f"{created['events']}?{query.format(epoch=epoch)}", headers=headers
    )
    error = error_of(answer.json())
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)


async def test_reader_of_a_stream_from_before_a_restart_is_told_that_its_epoch_is_over(
    served: Served,
) -> None:
    answer = await served.http.get("/v1/streams/gone/events", headers={"Last-Event-ID": "1.0.5"})
    error = error_of(answer.json())
    assert (answer.status_code, error["code"]) == (410, "unknown_epoch")


async def test_unknown_stream_is_unknown_to_every_method(served: Served) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
        answer = await served.http.request(method, f"/v1/streams/nobody{path}")
        error = error_of(answer.json())
        assert (answer.status_code, error["code"], error["param"]) == (
            404,
            "unknown_stream",
            "stream",
        )


async def test_one_stream_too_many_is_refused_and_may_be_retried(small: Served) -> None:
    for _ in range(2):
        await small.start()
    answer = await small.http.post("/v1/streams", json={"prompt": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_streams")
    assert int(answer.headers["retry-after"]) >= 1


async def test_unrouted_requests_get_json_errors(served: Served) -> None:
    answer = await served.http.get("/v2/streams")
    assert (answer.status_code, error_of(answer.json())["code"]) == (404, "not_found")
    answer = await served.http.put("/v1/streams")
    assert (answer.status_code, error_of(answer.json())["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


async def test_client_that_hangs_up_in_its_body_is_no_fault_of_the_gateway() -> None:
    app = create_app(GatewayConfig(), HandBackend())
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/streams",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    incoming: list[dict[str, Any]] = [
        {"type": "http.request", "body": b'{"pro', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app):
        await app(scope, receive, send)  # a fault would be raised here, and logged by the server
    assert sent[0]["status"] == 400


async def test_websocket_message_over_the_limit_closes_the_connection(small: Served) -> None:
    async with connect(f"{small.url.replace('http', 'ws')}/v1/ws", proxy=None) as socket:
        request = {"prompt": "x" * 3000}
        await socket.send(json.dumps({"type": "start", "ref": "a", "request": request}))
        with pytest.raises(ConnectionClosedError) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == MESSAGE_TOO_BIG
