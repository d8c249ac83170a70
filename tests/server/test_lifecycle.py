"""Starting, stopping, being looked at, and whom the gateway answers."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import httpx
import jsonschema
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from gateway.backends.base import Drafted, Verified
from gateway.config import GatewayConfig
from gateway.errors import BackendError, ConfigError
from gateway.server import bind, running_server, serve
from gateway.service import Gateway
from protocol.events import Error, Open, Retract
from tests.server.gateways import Reader, hand_served, serving
from tests.unit.gateway.doubles import HandBackend

if TYPE_CHECKING:
    from tests.server.gateways import Served


async def test_gateway_answers_while_the_model_loads() -> None:
    backend = HandBackend(starts=False)
    async with serving(backend) as (_, http):
        assert (await http.get("/healthz")).status_code == 200
        unready = await http.get("/readyz")
        assert (unready.status_code, unready.json()["status"]) == (503, "loading")
        assert (await http.get("/v1/models")).json()["data"] == []
        for path, body in (
            ("/v1/streams", {"prompt": "x"}),
            ("/v1/completions", {"prompt": "x"}),
        ):
            refused = await http.post(path, json=body)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "engine_unavailable"
            assert int(refused.headers["retry-after"]) >= 1
        backend.started.set()
        ready = await http.get("/readyz")
        while ready.status_code != 200:
            ready = await http.get("/readyz")
        assert ready.json() == {"status": "ready"}
        assert [model["id"] for model in (await http.get("/v1/models")).json()["data"]] == [
            "hand",
            "other",
        ]
        assert (await http.post("/v1/streams", json={"prompt": "x"})).status_code == 201
    assert backend.stopped


async def test_gateway_says_that_its_engine_restarts() -> None:
    backend = HandBackend()
    async with serving(backend) as (_, http):
        while (await http.get("/readyz")).status_code != 200:
            pass
        backend.go_down()
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "restarting"})
        refused = await http.post("/v1/streams", json={"prompt": "x"})
        assert (refused.status_code, refused.json()["error"]["message"]) == (
            503,
            "the engine is restarting",
        )


async def test_gateway_is_stopping_once_it_shuts_down() -> None:
    gateway = Gateway(GatewayConfig.load(env={}), HandBackend())
    gateway.start()
    await gateway.started()
    assert gateway.status == "ready"
    gateway.shut_down()
    assert gateway.status == "stopping"
    assert not gateway.ready
    await gateway.stop()


async def test_gateway_says_why_its_backend_cannot_start() -> None:
    backend = HandBackend()
    backend.start_failure = BackendError("no such model")
    async with serving(backend) as (_, http):
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "failed")
        assert answer.json()["message"] == "no such model"
        refused = await http.post("/v1/streams", json={"prompt": "x"})
        assert refused.json()["error"]["message"] == "no such model"


async def test_serve_ends_with_the_reason_when_the_backend_cannot_start() -> None:
    backend = HandBackend()
    backend.start_failure = BackendError("no such model")
    config = GatewayConfig.load(overrides={"server.port": 0}, env={})
    with pytest.raises(BackendError, match="no such model"):
        await serve(config, backend, lambda _url: pytest.fail("it is not ready"))


def test_bind_names_an_address_that_is_taken() -> None:
    listener = bind(GatewayConfig.load(overrides={"server.port": 0}, env={}))
    listener.listen()
    port = listener.getsockname()[1]
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}"):
        bind(GatewayConfig.load(overrides={"server.port": port}, env={}))
    listener.close()


async def test_readers_are_told_of_a_shutdown_and_connections_end() -> None:
    backend = HandBackend()
    config = GatewayConfig.load(overrides={"server.port": 0}, env={})
    async with httpx.AsyncClient(trust_env=False) as http, AsyncExitStack() as reading:
        async with running_server(config, backend) as url:
            body = {"prompt": "x", "policy": "retract"}
            streaming = http.stream(
                "POST", f"{url}/v1/streams", json=body, headers={"Accept": "text/event-stream"}
            )
            reader = Reader(await reading.enter_async_context(streaming))
            assert isinstance((await reader.next()).event, Open)
            backend.say(Verified("some"), Drafted(" more"))
            await reader.events(2)
        retracted, last = [event for event, _ in await reader.to_end()]
    assert isinstance(retracted, Retract)
    assert isinstance(last, Error)
    assert (last.code, last.retryable, last.at) == ("shutting_down", True, 4)
    assert backend.cancelled == list(backend.requests)
    assert backend.stopped


async def test_documents_describe_every_endpoint(served: Served) -> None:
    openapi = (await served.http.get("/openapi.json")).json()
    assert openapi["openapi"] == "3.2.0"
    expected = {
        "/v1/streams": {"post"},
        "/v1/streams/{stream}": {"get", "delete"},
        "/v1/streams/{stream}/events": {"get"},
        "/v1/streams/{stream}/tickets": {"post"},
        "/v1/tickets": {"post"},
        "/v1/demonstration": {"get"},
        "/v1/chat/completions": {"post"},
        "/v1/completions": {"post"},
        "/v1/responses": {"post"},
        "/v1/models": {"get"},
        "/v1/models/{model}": {"get"},
        "/v1/upstreams": {"get"},
        "/healthz": {"get"},
        "/readyz": {"get"},
        "/metrics": {"get"},
        "/openapi.json": {"get"},
        "/asyncapi.json": {"get"},
        "/schema.json": {"get"},
    }
    assert {path: set(item) for path, item in openapi["paths"].items()} == expected
    references = json.dumps(openapi).split('"$ref": "#/components/')[1:]
    for reference in references:
        kind, name = reference.split('"')[0].split("/")
        assert name in openapi["components"][kind], reference
    request = {
        **openapi["components"]["schemas"]["GenerationRequest"],
        "components": openapi["components"],
    }
    jsonschema.validate({"prompt": "x", "policy": {"kind": "hold"}}, request)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"prompt": "x", "max_tokens": -1}, request)
    asyncapi = (await served.http.get("/asyncapi.json")).json()
    assert asyncapi["asyncapi"].startswith("3.")
    schema = (await served.http.get("/schema.json")).json()
    assert "$defs" in schema


@pytest.mark.parametrize("host", ["evil.test", "evil.test:8000", "localhost.evil.test", ""])
async def test_gateway_on_loopback_answers_for_loopback_names_only(
    served: Served, host: str
) -> None:
    answer = await served.http.get("/healthz", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["param"]) == (403, "Host")


async def test_gateway_on_loopback_answers_for_localhost(served: Served) -> None:
    for host in ("localhost", "localhost:1", "127.0.0.1:8000", "[::1]:8000"):
        assert (await served.http.get("/healthz", headers={"Host": host})).status_code == 200


async def test_page_from_elsewhere_starts_nothing_unless_it_is_allowed() -> None:
    body = {"prompt": "x"}
    async with hand_served(server__allowed_origins=["http://page.test"]) as served:
        url = f"{served.url.replace('http', 'ws', 1)}/v1/ws"
        for origin in ("http://evil.test", "null", "http://["):
            answer = await served.http.post("/v1/streams", json=body, headers={"Origin": origin})
            assert (answer.status_code, answer.json()["error"]["param"]) == (403, "Origin")
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, origin=Origin(origin), proxy=None)
            assert refused.value.response.status_code == 403
        assert served.backend.requests == {}
        for origin in ("http://page.test", served.url):
            answer = await served.http.post("/v1/streams", json=body, headers={"Origin": origin})
            assert answer.status_code == 201
            async with connect(url, origin=Origin(origin), proxy=None):
                pass


async def test_only_allowed_pages_are_shown_answers_by_their_browser() -> None:
    async with hand_served(server__allowed_origins=["http://page.test"]) as served:
        preflight = await served.http.options(
            "/v1/streams",
            headers={
                "Origin": "http://page.test",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "last-event-id,content-type",
            },
        )
        assert preflight.status_code == 200
        stream = await served.start()
        for origin, shown in (("http://page.test", "http://page.test"), ("http://evil.test", None)):
            answer = await served.http.get(f"/v1/streams/{stream}", headers={"Origin": origin})
            assert answer.headers.get("access-control-allow-origin") == shown
