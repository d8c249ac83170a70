"""What the page may do to the engine, from a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.config import MAX_VERIFY_DELAY_MS as ENGINE_MOST
from gateway.config import MAX_VERIFY_DELAY_MS
from tests.server.gateways import serving
from tests.unit.gateway.doubles import HandBackend

if TYPE_CHECKING:
    import httpx


class SlowBackend(HandBackend):
    """A backend with an engine that can be slowed down and killed."""

    def __init__(self) -> None:
        super().__init__()
        self.verify_delay_ms = 250.0
        self.kills = 0

    def slow_verification(self, delay_ms: float) -> None:
        self.verify_delay_ms = delay_ms

    def kill_engine(self) -> None:
        self.kills += 1
        self.go_down()


async def until_ready(http: httpx.AsyncClient) -> None:
    while (await http.get("/readyz")).status_code != 200:
        pass


def test_bound_of_the_pause_is_the_engines() -> None:
    assert MAX_VERIFY_DELAY_MS == ENGINE_MOST


async def test_engine_is_out_of_reach_without_demonstration_mode() -> None:
    async with serving(SlowBackend()) as (_, http):
        assert (await http.get("/v1/demonstration")).status_code == 204
        assert (await http.put("/v1/demonstration", json={})).status_code == 405
        assert (await http.post("/v1/demonstration/kill")).status_code == 404


async def test_demonstration_is_not_offered_where_there_is_no_engine() -> None:
    async with serving(HandBackend(), demonstration__enabled=True) as (_, http):
        assert (await http.get("/v1/demonstration")).status_code == 204


async def test_demonstration_slows_verification_down() -> None:
    backend = SlowBackend()
    async with serving(backend, demonstration__enabled=True) as (_, http):
        before = await http.get("/v1/demonstration")
        assert before.json() == {"verify_delay_ms": 250.0, "most": MAX_VERIFY_DELAY_MS}
        after = await http.put("/v1/demonstration", json={"verify_delay_ms": 400})
        assert after.json()["verify_delay_ms"] == 400.0
    assert backend.verify_delay_ms == 400.0


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b'{"verify_delay_ms": -1}', "invalid_value", "verify_delay_ms"),
        (b'{"verify_delay_ms": 1001}', "invalid_value", "verify_delay_ms"),
        (b'{"verify_delay": 1}', "unknown_field", "verify_delay"),
        (b"{}", "missing_field", "verify_delay_ms"),
        (b"slow", "malformed_json", None),
    ],
)
async def test_demonstration_refuses_what_is_no_pace(
    body: bytes, code: str, param: str | None
) -> None:
    backend = SlowBackend()
    async with serving(backend, demonstration__enabled=True) as (_, http):
        answer = await http.put("/v1/demonstration", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
    assert backend.verify_delay_ms == 250.0


async def test_demonstration_kills_the_engine_where_one_runs() -> None:
    backend = SlowBackend()
    async with serving(backend, demonstration__enabled=True) as (_, http):
        await until_ready(http)
        assert (await http.post("/v1/demonstration/kill")).status_code == 204
        assert backend.kills == 1
        again = await http.post("/v1/demonstration/kill")
    assert (again.status_code, again.json()["error"]["code"]) == (503, "engine_unavailable")
    assert backend.kills == 1


async def test_page_from_elsewhere_cannot_kill_the_engine() -> None:
    backend = SlowBackend()
    async with serving(backend, demonstration__enabled=True) as (_, http):
        await until_ready(http)
        stranger = {"Origin": "http://elsewhere.example"}
        answer = await http.post("/v1/demonstration/kill", headers=stranger)
    assert (answer.status_code, backend.kills) == (403, 0)


async def test_openapi_document_describes_the_levers_where_there_are_some() -> None:
    async with serving(SlowBackend(), demonstration__enabled=True) as (_, http):
        paths = (await http.get("/openapi.json")).json()["paths"]
    assert set(paths["/v1/demonstration"]) == {"get", "put"}
    assert set(paths["/v1/demonstration/kill"]) == {"post"}


async def test_page_learns_of_a_dead_engine_from_an_answer_that_is_no_error() -> None:
    backend = SlowBackend()
    async with serving(backend, demonstration__enabled=True) as (_, http):
        await until_ready(http)
        assert (await http.get("/healthz")).json() == {"status": "ok", "readiness": "ready"}
        await http.post("/v1/demonstration/kill")
        answer, state = await http.get("/healthz"), (await http.get("/readyz")).json()["status"]
    assert (answer.status_code, answer.json()["readiness"]) == (200, state)
    assert state != "ready"
