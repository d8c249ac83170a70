"""Who is let in where, over every route."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from starlette.routing import Route, WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import wetink
from gateway.access.rules import Rule, rule_for
from gateway.app import create_app
from gateway.backends.base import Finished, Verified
from gateway.config import GatewayConfig
from gateway.transports import pages
from gateway.transports.openai.routes import NOT_OFFERED
from protocol.events import Commit, Finish, Open
from tests.server.gateways import hand_served
from tests.server.keyed import NOBODY, Keys, bearer, draw_keys, forged_ticket, key_served
from tests.unit.gateway.doubles import COUNTS, HandBackend

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx

    from tests.server.gateways import Served
    from wetink.client import TransportName

RULES: dict[tuple[str, str], Rule] = {
    ("POST", "/v1/streams"): Rule.KEY,
    ("GET", "/v1/streams/{stream}"): Rule.KEY,
    ("DELETE", "/v1/streams/{stream}"): Rule.KEY,
    ("GET", "/v1/streams/{stream}/events"): Rule.KEY_OR_STREAM_TICKET,
    ("POST", "/v1/streams/{stream}/tickets"): Rule.KEY,
    ("POST", "/v1/tickets"): Rule.KEY,
    ("WS", "/v1/ws"): Rule.KEY_OR_SOCKET_TICKET,
    ("POST", "/v1/chat/completions"): Rule.KEY,
    ("POST", "/v1/completions"): Rule.KEY,
    ("POST", "/v1/responses"): Rule.KEY,
    ("GET", "/v1/models"): Rule.KEY,
    ("GET", "/v1/models/{model:path}"): Rule.KEY,
    ("GET", "/v1/demonstration"): Rule.KEY,
    ("GET", "/v1/upstreams"): Rule.MONITORING_KEY,
    ("GET", "/metrics"): Rule.MONITORING_KEY,
    ("GET", "/healthz"): Rule.NOTHING,
    ("GET", "/readyz"): Rule.NOTHING,
    ("GET", "/openapi.json"): Rule.NOTHING,
    ("GET", "/asyncapi.json"): Rule.NOTHING,
    ("GET", "/schema.json"): Rule.NOTHING,
    **{("GET", route.path): Rule.NOTHING for route in pages.routes()},
}
"""What each route needs. A route that is not here fails `test_every_route_has_its_rule`."""
TICKET_RULES = (Rule.KEY_OR_STREAM_TICKET, Rule.KEY_OR_SOCKET_TICKET)
GUARDED = [route for route, rule in RULES.items() if rule is not Rule.NOTHING]
OPENAI = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/models",
    "/v1/models/{model:path}",
)


class Stranger(NamedTuple):
    """How somebody comes in who should not."""

    headers: dict[str, str]
    ticket: str | None = None


@pytest.fixture(scope="module")
def keys() -> Keys:
    return draw_keys()


@pytest.fixture
async def served(keys: Keys, tmp_path: Path) -> AsyncGenerator[Served]:
    async with key_served(keys, tmp_path) as running:
        yield running


@pytest.fixture
async def plain() -> AsyncGenerator[Served]:
    """A server on loopback without keys."""
    async with hand_served() as running:
        yield running


async def start(served: Served, key: str, **request: object) -> str:
    answer = await served.http.post(
        "/v1/streams", json={"prompt": "hi", **request}, headers=bearer(key)
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["stream"])


async def ticket_for(served: Served, stream: str, key: str, **body: object) -> dict[str, Any]:
    answer = await served.http.post(f"/v1/streams/{stream}/tickets", json=body, headers=bearer(key))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def status_and_error(
    served: Served, method: str, path: str, who: Stranger
) -> tuple[int, dict[str, Any], Any]:
    """What a request, or a WebSocket's handshake, is answered with when it is refused."""
    query = "" if who.ticket is None else f"?ticket={who.ticket}"
    if method == "WS":
        url = f"{served.url.replace('http', 'ws')}{path}{query}"
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, additional_headers=who.headers, proxy=None)
        response = refused.value.response
        assert response.body is not None
        return response.status_code, json.loads(response.body)["error"], response.headers
    body: dict[str, object] | None = {"prompt": "x"} if method == "POST" else None
    answer = await served.http.request(method, path + query, headers=who.headers, json=body)
    return answer.status_code, answer.json()["error"], answer.headers


async def is_let_in(served: Served, method: str, path: str, ticket: str) -> bool:
    if method == "WS":
        url = f"{served.url.replace('http', 'ws')}{path}?ticket={ticket}"
        async with connect(url, proxy=None):
            return True
    async with served.http.stream(method, path, params={"ticket": ticket}) as answer:
        return answer.status_code == 200


def test_every_route_has_its_rule() -> None:
    app = create_app(GatewayConfig(), HandBackend())
    assert {rule_for(path) for path in NOT_OFFERED} == {Rule.KEY}
    routes: set[tuple[str, str]] = set()
    for route in app.routes:
        match route:
            case Route(path=path) if path.startswith(NOT_OFFERED):
                pass
            case Route(methods=set() as methods):
                routes |= {(method, route.path) for method in methods - {"HEAD"}}
            case WebSocketRoute():
                routes.add(("WS", route.path))
            case _:
                pytest.fail(f"a rule for {route}?")
    assert routes == RULES.keys()
    for (_, path), rule in RULES.items():
        assert rule_for(path.replace("{stream}", "abc")) is rule, path


@pytest.mark.parametrize(("method", "route"), GUARDED)
async def test_stranger_is_let_in_nowhere(
    served: Served, keys: Keys, method: str, route: str
) -> None:
    stream, other = await start(served, keys.alice), await start(served, keys.alice)
    path = route.replace("{stream}", stream).replace("{model:path}", "hand")
    socket_ticket = await served.http.post("/v1/tickets", headers=bearer(keys.alice))
    of_other = (await ticket_for(served, other, keys.alice))["ticket"]
    of_stream = (await ticket_for(served, stream, keys.alice))["ticket"]
    ticket_stream = stream if "{stream}" in route else None
    granted, _, signature = of_stream.partition(".")
    strangers = {
        "no key": (Stranger({}), 401),
        "no bearer": (Stranger({"Authorization": f"Basic {keys.alice}"}), 401),
        "no key's form": (Stranger(bearer("sk-something")), 401),
        "unknown key": (Stranger(bearer(NOBODY)), 401),
        "wrong secret": (Stranger(bearer(keys.alice[:-2] + "zz")), 401),
        "revoked key": (Stranger(bearer(keys.revoked)), 401),
        "another's secret": (Stranger(bearer(keys.alice[:20] + keys.bob[20:])), 401),
        "forged ticket": (Stranger({}, f"{granted}.{signature[::-1]}"), 401),
        "no ticket": (Stranger({}, "x"), 401),
        "expired ticket": (Stranger({}, forged_ticket(keys, ticket_stream, age_s=5)), 401),
    }
    takes_ticket = RULES[method, route] in TICKET_RULES
    strangers["ticket of another stream"] = (Stranger({}, of_other), 403 if takes_ticket else 401)
    if RULES[method, route] is Rule.KEY_OR_STREAM_TICKET:
        ticket = socket_ticket.json()["ticket"]
        strangers["ticket for sockets"] = (Stranger({}, ticket), 403)
    if not takes_ticket:
        strangers["ticket where none is taken"] = (Stranger({}, of_stream), 401)
    if takes_ticket:  # else the expiry would not be what is refused
        good = forged_ticket(keys, ticket_stream)
        assert await is_let_in(served, method, path, good)
    asked = len(served.backend.requests)
    for name, (stranger, expected) in strangers.items():
        status, error, headers = await status_and_error(served, method, path, stranger)
        assert status == expected, name
        assert error["code"] == ("unauthorized" if status == 401 else "forbidden"), name
        assert ("type" in error) == (route in OPENAI), name
        assert (headers.get("WWW-Authenticate") == 'Bearer realm="wetink"') == (status == 401)
    assert len(served.backend.requests) == asked
    assert served.backend.cancelled == []


@pytest.mark.parametrize("path", [p for (_, p), rule in RULES.items() if rule is Rule.NOTHING])
async def test_probe_needs_no_key(served: Served, path: str) -> None:
    assert (await served.http.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/nothing"), ("GET", "/healthz/"), ("GET", "//healthz"), ("GET", "/%2fhealthz")],
)
async def test_stranger_does_not_learn_what_there_is(
    served: Served, method: str, path: str
) -> None:
    assert (await served.http.request(method, served.url + path)).status_code == 401


def what_is_said(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()


async def test_streams_of_others_do_not_exist(served: Served, keys: Keys) -> None:
    live, ended = await start(served, keys.alice), await start(served, keys.alice)
    served.backend.say(Verified("secret"), Finished("stop", COUNTS), stream=ended)
    epoch = (await served.http.get(f"/v1/streams/{live}", headers=bearer(keys.alice))).json()[
        "epoch"
    ]
    for stream in (live, ended):
        for method, route in GUARDED:
            if "{stream}" not in route:
                continue
            for query in ("", f"?cursor={epoch}.0.0", "?cursor=1.0.0"):
                if query and not route.endswith("/events"):
                    continue
                theirs, unknown = [
                    what_is_said(
                        await served.http.request(
                            method, route.format(stream=each) + query, headers=bearer(keys.bob)
                        )
                    )
                    for each in (stream, "nobody")
                ]
                assert theirs == unknown
                assert theirs[0] in (404, 410)
    assert served.backend.cancelled == []
    answer = await served.http.get(f"/v1/streams/{ended}", headers=bearer(keys.alice))
    assert answer.json()["parts"][0]["committed"] == "secret"


async def test_expired_stream_of_another_never_was(keys: Keys, tmp_path: Path) -> None:
    async with key_served(keys, tmp_path, delivery__retention_s=1.0) as served:
        stream = await start(served, keys.alice)
        served.backend.say(Finished("stop", COUNTS), stream=stream)
        served.clock.advance(2.0)
        for key, code in ((keys.alice, "stream_expired"), (keys.bob, "unknown_stream")):
            answer = await served.http.get(f"/v1/streams/{stream}", headers=bearer(key))
            assert answer.json()["error"]["code"] == code


async def test_streams_of_others_do_not_exist_on_a_socket(served: Served, keys: Keys) -> None:
    stream = await start(served, keys.alice)
    url = f"{served.url.replace('http', 'ws')}/v1/ws"
    async with connect(url, additional_headers=bearer(keys.bob), proxy=None) as socket:
        for each in (stream, "nobody"):
            await socket.send(json.dumps({"type": "attach", "ref": "a", "stream": each}))
            error = json.loads(await socket.recv())
            assert (error["code"], error["message"]) == ("unknown_stream", "no stream has this id")
            # Without an attachment there is nothing to cancel or to acknowledge.
            for message in ({"type": "cancel"}, {"type": "ack", "at": 0}):
                await socket.send(json.dumps({**message, "ref": "a"}))
                assert json.loads(await socket.recv())["code"] == "unknown_ref"
    assert served.backend.cancelled == []


async def test_page_reads_with_a_ticket(served: Served, keys: Keys) -> None:
    stream = await start(served, keys.alice)
    ticket = await ticket_for(served, stream, keys.alice, policy="tts", offsets="utf-16")
    assert ticket["events"] == (
        f"/v1/streams/{stream}/events?offsets=utf-16&ticket={ticket['ticket']}"
    )
    async with served.read(stream, ticket=ticket["ticket"], offsets="utf-16") as reader:
        first = (await reader.next()).event
        assert isinstance(first, Open)
        assert first.policy["unit"] == "sentence"
        served.backend.say(Verified("Hi 👩 there. "), Finished("stop", COUNTS), stream=stream)
        commit, finish = [each.event for each in await reader.to_end()]
    assert isinstance(commit, Commit)
    assert isinstance(finish, Finish)
    assert finish.at == 13
    for query in ("policy=retract", "policy=hold", "offsets=utf-8", ""):
        path = f"/v1/streams/{stream}/events?{query}&ticket={ticket['ticket']}"
        answer = await served.http.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden"), query


async def test_page_opens_a_socket_with_a_ticket(served: Served, keys: Keys) -> None:
    answer = await served.http.post("/v1/tickets", json={"ttl_s": 60}, headers=bearer(keys.alice))
    assert answer.status_code == 201
    stream = await start(served, keys.alice)
    url = served.url.replace("http", "ws") + answer.json()["socket"]
    async with connect(url, proxy=None) as socket:
        await socket.send(json.dumps({"type": "attach", "ref": "a", "stream": stream}))
        assert json.loads(await socket.recv())["type"] == "open"
        await socket.send(json.dumps({"type": "start", "ref": "b", "request": {"prompt": "x"}}))
        assert json.loads(await socket.recv())["type"] == "open"


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("/v1/tickets", {"ttl_s": 1e6}, "invalid_value", "ttl_s"),
        ("/v1/tickets", {"ttl_s": 0}, "invalid_value", "ttl_s"),
        ("/v1/tickets", {"policy": "hold"}, "unknown_field", "policy"),
        ("/v1/streams/{stream}/tickets", {"policy": "nope"}, "invalid_value", "policy"),
        ("/v1/streams/{stream}/tickets", {"offsets": "miles"}, "invalid_value", "offsets"),
    ],
)
async def test_page_is_told_what_a_ticket_cannot_be(
    served: Served, keys: Keys, path: str, body: dict[str, object], code: str, param: str
) -> None:
    stream = await start(served, keys.alice)
    answer = await served.http.post(
        path.format(stream=stream), json=body, headers=bearer(keys.alice)
    )
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)


@pytest.mark.parametrize(("method", "route"), GUARDED)
async def test_key_looks_after_the_gateway_or_uses_it(
    served: Served, keys: Keys, method: str, route: str
) -> None:
    monitors = RULES[method, route] is Rule.MONITORING_KEY
    path = route.replace("{stream}", "abc").replace("{model:path}", "hand")
    wrong = Stranger(bearer(keys.alice if monitors else keys.monitor))
    status, error, _ = await status_and_error(served, method, path, wrong)
    assert (status, error["code"]) == (403, "forbidden")
    if monitors:
        answer = await served.http.get(path, headers=bearer(keys.monitor))
        assert answer.status_code == 200
    assert served.backend.requests == {}


async def test_key_may_do_what_its_scope_says_and_no_more(served: Served, keys: Keys) -> None:
    headers = bearer(keys.limited)
    models = (await served.http.get("/v1/models", headers=headers)).json()["data"]
    assert [model["id"] for model in models] == ["other"]
    refused = {
        "model": ({"model": "hand"}, 404, "unknown_model"),
        "policy kind": ({"policy": {"kind": "retract"}}, 403, "forbidden"),
        "policy name": ({"policy": "retract:3"}, 403, "forbidden"),
        "profile": ({"policy": "chat"}, 403, "forbidden"),
        "priority": ({"priority": 1}, 403, "forbidden"),
    }
    for name, (request, status, code) in refused.items():
        answer = await served.http.post(
            "/v1/streams", json={"prompt": "x", **request}, headers=headers
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), name
    assert served.backend.requests == {}
    stream = await start(served, keys.limited)
    request = served.backend.requests[stream]
    assert (request.model, request.priority) == ("other", -5)
    for policy, status in (("hold", 200), ("tts", 200), ("chunk", 403), ("chat", 403)):
        path = f"/v1/streams/{stream}/events?policy={policy}"
        async with served.http.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == status, policy
    answer = await served.http.post("/v1/streams", json={"prompt": "x"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_streams")


async def test_every_key_has_caches_of_its_own(served: Served, keys: Keys) -> None:
    streams = [await start(served, key) for key in (keys.alice, keys.bob, keys.alice)]
    alice, bob, again = (served.backend.tenants[stream] for stream in streams)
    assert alice == again != bob
    assert "" not in (alice, bob)


async def test_anyone_is_served_beside_keys_where_that_is_allowed(
    keys: Keys, tmp_path: Path
) -> None:
    async with key_served(keys, tmp_path, access__allow_anyone=True) as served:
        theirs = await start(served, keys.alice)
        mine = await served.start()
        assert (await served.http.get(f"/v1/streams/{mine}")).status_code == 200
        assert (await served.http.get(f"/v1/streams/{theirs}")).status_code == 404
        answer = await served.http.get(f"/v1/streams/{mine}", headers=bearer(keys.alice))
        assert answer.status_code == 404
        # A key that was revoked must not pass for none.
        answer = await served.http.get(f"/v1/streams/{mine}", headers=bearer(keys.revoked))
        assert answer.status_code == 401


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_client_library_shows_its_key(
    served: Served, keys: Keys, transport: TransportName
) -> None:
    async with wetink.stream(
        served.url, prompt="x", policy="hold", transport=transport, key=keys.alice
    ) as story:
        stream = await served.backend.admitted.get()
        served.backend.say(Verified("yes"), Finished("stop", COUNTS), stream=stream)
        assert [text async for text in story.committed()] == ["yes"]
    assert served.backend.tenants[stream] == keys.kept[0].id


@pytest.mark.slow
async def test_terminal_takes_its_key_from_option_or_environment(
    served: Served, keys: Keys
) -> None:
    command = str(Path(sys.executable).with_name("wetink"))
    for arguments, env, status in (
        (["--key", keys.alice], {}, 0),
        ([], {"WETINK_KEY": keys.alice}, 0),
        ([], {}, 2),
    ):
        process = await asyncio.create_subprocess_exec(
            command,
            *["stream", "x", "--url", served.url, *arguments],
            env={**os.environ, **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        if status == 0:
            stream = await served.backend.admitted.get()
            served.backend.say(Verified("yes"), Finished("stop", COUNTS), stream=stream)
        out, err = await process.communicate()
        assert process.returncode == status, err
        assert out.startswith(b"yes") if status == 0 else b"a key is needed here" in err


async def test_client_library_may_send_a_made_up_key_where_there_are_none(
    plain: Served,
) -> None:
    answer = await plain.http.get("/v1/models", headers=bearer("sk-no-key-required"))
    assert answer.status_code == 200


async def test_page_uses_the_same_code_where_no_key_is_needed(plain: Served) -> None:
    stream = await plain.start()
    answer = await plain.http.post(f"/v1/streams/{stream}/tickets")
    async with plain.http.stream("GET", answer.json()["events"]) as reading:
        assert reading.status_code == 200
    answer = await plain.http.get(f"/v1/streams/{stream}/events?ticket=x")
    assert answer.status_code == 401


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_client_learns_why_it_is_not_let_in(
    transport: TransportName, keys: Keys, tmp_path: Path
) -> None:
    async with key_served(keys, tmp_path) as served:
        with pytest.raises(wetink.RequestRefused, match="a key is needed here") as caught:
            await wetink.stream(served.url, prompt="hi", transport=transport).__aenter__()
    assert caught.value.code == "unauthorized"
