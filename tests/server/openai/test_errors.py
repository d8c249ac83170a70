"""Refusals in OpenAI's words, and what is not offered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.transports.openai.routes import NOT_OFFERED, REQUEST_HEADERS
from tests.server.gateways import hand_served
from tests.server.openai.asking import CHAT, COMPLETION

if TYPE_CHECKING:
    from tests.server.gateways import Served


async def test_unknown_model_has_openais_code(served: Served) -> None:
    for answer in (
        await served.http.post("/v1/chat/completions", json={**CHAT, "model": "nope"}),
        await served.http.get("/v1/models/nope"),
        await served.http.get("/v1/models/org/nope"),
    ):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (404, "model_not_found")
        assert (error["type"], error["param"]) == ("invalid_request_error", "model")


async def test_full_gateway_has_openais_type_and_says_when_to_come_back() -> None:
    async with hand_served(limits__live_streams=1) as served:
        await served.start()
        answer = await served.http.post("/v1/chat/completions", json=CHAT)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (429, "rate_limit_error")
        assert error["code"] == "rate_limit_exceeded"
        assert answer.headers["retry-after"]


async def test_choices_that_do_not_all_fit_are_refused_whole() -> None:
    async with hand_served(limits__live_streams=2) as served:
        answer = await served.http.post("/v1/chat/completions", json={**CHAT, "n": 3})
        assert answer.status_code == 429
        assert len(served.backend.cancelled) == 2
        await served.start()
        await served.start()


async def test_prompt_over_the_context_has_openais_code(served: Served) -> None:
    answer = await served.http.post("/v1/completions", json={**COMPLETION, "prompt": "a " * 200})
    assert answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "malformed_json"),
        (b"[]", "invalid_value"),
        (b'{"model": "hand"}', "missing_required_parameter"),
        (b'{"n": 1, "n": 2, "messages": []}', "invalid_value"),
    ],
)
async def test_body_that_is_no_request_is_refused(served: Served, body: bytes, code: str) -> None:
    answer = await served.http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_resource_that_is_not_offered_says_so(served: Served) -> None:
    for url in (*NOT_OFFERED, f"{NOT_OFFERED[0]}/x/y"):
        answer = await served.http.post(url, json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
        assert url in answer.json()["error"]["message"]


async def test_models_are_listed_and_found_by_name(served: Served) -> None:
    listed = (await served.http.get("/v1/models")).json()["data"]
    assert [model["id"] for model in listed] == ["hand", "other"]
    for model in listed:
        assert (await served.http.get(f"/v1/models/{model['id']}")).json() == model


async def test_headers_of_openais_libraries_pass_from_an_allowed_page() -> None:
    async with hand_served(server__allowed_origins=["https://page.test"]) as served:
        preflight = await served.http.options(
            "/v1/chat/completions",
            headers={
                "Origin": "https://page.test",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": ", ".join(REQUEST_HEADERS),
            },
        )
        assert preflight.status_code == 200, preflight.text
