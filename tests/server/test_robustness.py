"""Whatever a client sends, the gateway answers in words, keeps serving, and keeps nothing of it.

FUZZ_EXAMPLES (25): examples for each property; `make test-heavy` asks for many more.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from protocol.codec import decode_event_json, decode_event_msgpack
from protocol.errors import ErrorCode
from tests.property.test_codec import json_values, objects
from tests.server.gateways import PATIENCE_S, hand_served

if TYPE_CHECKING:
    import httpx

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

REFS = st.sampled_from(("a", "b", "c", "r" * 129))
STREAMS = st.sampled_from(("none", "STREAM", "STREAM", ""))
CURSORS = st.none() | st.sampled_from(("1.0.0", "x", "EPOCH.0.0", "EPOCH.0.99"))
WANTED = st.just({"prompt": "x"}) | objects
messages = st.one_of(
    st.fixed_dictionaries({"type": st.just("start"), "ref": REFS, "request": WANTED}),
    st.fixed_dictionaries(
        {"type": st.just("attach"), "ref": REFS, "stream": STREAMS, "cursor": CURSORS}
    ),
    st.fixed_dictionaries({"type": st.sampled_from(("detach", "cancel")), "ref": REFS}),
    st.fixed_dictionaries({"type": st.just("ack"), "ref": REFS, "at": st.integers(-1, 5)}),
    objects,
    json_values,
    st.binary(max_size=30),
)
CODES = {code.value for code in ErrorCode} - {"internal"}
QUERY_NAMES = st.sampled_from(("policy", "offsets", "cursor", "include", "x")) | st.text(max_size=4)
QUERY_VALUES = (
    st.sampled_from(("hold", "retract:1", "chunk:word", "tokens,tokens", '{"kind":"hold"}', "{"))
    | st.text(max_size=12)
    | json_values.map(json.dumps)
)
bodies = st.binary(max_size=60) | (json_values | objects).map(msgspec.json.encode)


async def talk(sequence: list[Any], subprotocol: str) -> None:
    packs = subprotocol.endswith("msgpack")
    async with hand_served(limits__attachments_per_socket=4) as served:
        created = (await served.http.post("/v1/streams", json={"prompt": "x"})).json()
        url = f"{served.url.replace('http', 'ws', 1)}/v1/ws"
        async with connect(url, subprotocols=[Subprotocol(subprotocol)], proxy=None) as socket:
            for message in sequence:
                data = message
                if not isinstance(message, bytes):
                    text = json.dumps(message).replace("STREAM", created["stream"])
                    text = text.replace("EPOCH", str(created["epoch"]))
                    data = msgspec.msgpack.encode(json.loads(text)) if packs else text
                await socket.send(data)
            last = {"type": "cancel", "ref": "the last message"}
            await socket.send(msgspec.msgpack.encode(last) if packs else json.dumps(last))
            decode: Any = decode_event_msgpack if packs else decode_event_json
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    event = decode(await socket.recv())
                    code = getattr(event, "code", None)
                    assert code is None or code in CODES, event
                    if getattr(event, "ref", None) == "the last message":
                        break
        assert (await served.http.get("/healthz")).status_code == 200


@fuzz
@given(
    sequence=st.lists(messages, max_size=12),
    subprotocol=st.sampled_from(("wetink.v1.json", "wetink.v1.msgpack")),
)
def test_socket_answers_any_sequence_of_messages(sequence: list[Any], subprotocol: str) -> None:
    asyncio.run(talk(sequence, subprotocol))


async def ask(requests: list[bytes], queries: list[dict[str, str]]) -> None:
    async with hand_served() as served:
        stream = await served.start()
        for body in requests:
            # What is accepted streams on; only its status is of interest.
            async with served.http.stream("POST", "/v1/streams", content=body) as answer:
                await check(answer)
        for query in queries:
            path = f"/v1/streams/{stream}/events"
            async with served.http.stream("GET", path, params=query) as answer:
                await check(answer)
        assert (await served.http.get("/healthz")).status_code == 200


async def check(answer: httpx.Response) -> None:
    assert answer.status_code < 500, await answer.aread()
    if answer.status_code >= 400:
        assert json.loads(await answer.aread())["error"]["code"] in CODES


@fuzz
@given(
    requests=st.lists(bodies, max_size=8),
    queries=st.lists(st.dictionaries(QUERY_NAMES, QUERY_VALUES, max_size=3), max_size=8),
)
def test_gateway_answers_any_body_and_query(
    requests: list[bytes], queries: list[dict[str, str]]
) -> None:
    asyncio.run(ask(requests, queries))
