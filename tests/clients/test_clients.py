"""Clients of OpenAI's interface as their users install them, against a gateway with the embedded
model. Each script prints what it was told, as JSON.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest
import pytest_asyncio

from gateway.backends.local import LocalBackend
from gateway.config import EngineConfig, GatewayConfig
from gateway.server import running_server
from gateway.transports.openai.routes import REQUEST_HEADERS
from tests.server.openai.page import examples

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = [
    pytest.mark.clients,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".clients" / "bin" / "python"
MODEL = "smollm2-135m-instruct"
PROMPT = "Where do ships sleep?"
TOKENS = 24
PATIENCE_S = 240.0
"""litellm and the Agents SDK take half a minute to import on a busy machine."""


class Reference(NamedTuple):
    text: str
    tokens: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def base() -> AsyncGenerator[str]:
    config = GatewayConfig.load(None, {"server.port": 0})
    async with running_server(config, LocalBackend(EngineConfig())) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            while (await http.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        yield f"{url}/v1"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reference(base: str) -> Reference:
    """What a greedy answer says, asked for without any client."""
    body = {
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 0,
        "max_tokens": TOKENS,
    }
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        answer = (await http.post(f"{base}/chat/completions", json=body)).json()
    return Reference(
        answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]
    )


async def told(base: str, script: str) -> dict[str, Any]:
    """What a client's script says."""
    program = ["node"] if script.endswith(".mjs") else [str(PYTHON), "-I"]
    command = [*program, str(HERE / script), base, MODEL, PROMPT, str(TOKENS)]
    return dict(json.loads((await printed(*command)).splitlines()[-1]))


async def printed(*command: str) -> bytes:
    """What a program prints that succeeds."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=HERE / "node"
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode()[-3000:]
    return out


@pytest.mark.parametrize(
    "script",
    [
        "python/with_openai.py",
        "python/with_langchain.py",
        "python/with_litellm.py",
        "python/with_llm.py",
        "python/with_agents.py",
        "node/with_openai.mjs",
        "node/with_ai_sdk.mjs",
    ],
)
async def test_client_is_told_the_same_text_however_it_asks(
    base: str, reference: Reference, script: str
) -> None:
    answers = await told(base, script)
    assert set(answers["texts"]) == {reference.text}
    assert set(answers.get("tokens", [])) <= {reference.tokens}


async def test_openai_python_knows_choices_models_and_errors(base: str) -> None:
    answers = await told(base, "python/with_openai.py")
    assert len(set(answers["choices"])) == 3
    assert answers["prompts"] == [0, 1]
    assert (answers["models"], answers["model"]) == ([MODEL], MODEL)
    assert answers["errors"] == ["model_not_found", "banana", "unknown_url"]


async def test_openai_node_knows_choices_models_and_errors(base: str) -> None:
    answers = await told(base, "node/with_openai.mjs")
    assert len(set(answers["choices"])) == 2
    assert answers["models"] == [MODEL]
    assert answers["errors"] == ["model_not_found"]


async def test_openai_node_sends_no_header_that_a_page_may_not(base: str) -> None:
    sent = set((await told(base, "node/with_openai.mjs"))["headers"])
    # Those a browser sends by itself, or lets a page set anyhow (Fetch, CORS-safelisted).
    free = {"accept", "content-type", "user-agent", "authorization", "content-length"}
    assert sent - free <= {name.lower() for name in REQUEST_HEADERS}
    assert any(name.startswith("x-stainless-") for name in sent)


async def test_node_examples_of_the_openai_page_run(base: str) -> None:
    written = examples(base.removesuffix("/v1"))
    for code in (code for name, code in written.items() if name.endswith(".mjs")):
        assert (await printed("node", "--input-type=module", "--eval", code)).strip()


@pytest.mark.parametrize(
    "script",
    [
        "python/structured_openai.py",
        "python/structured_langchain.py",
        "python/structured_instructor.py",
        "python/structured_agents.py",
        "python/structured_litellm.py",
        "node/structured_openai.mjs",
        "node/structured_ai_sdk.mjs",
        "python/tools_langchain.py",
        "python/tools_instructor.py",
        "python/tools_agents.py",
        "node/tools_ai_sdk.mjs",
        "python/responses_agents.py",
        "node/responses_openai.mjs",
    ],
)
async def test_client_gets_an_object_of_its_schema(base: str, script: str) -> None:
    """Constrained decoding: a small model's ships are valid, not wise."""
    answers = await told(base, script)
    assert answers["objects"]
    assert set(answers.get("names", [])) <= {"Ship"}
    for ship in answers["objects"]:
        assert ship.keys() == {"name", "masts", "ports"}
        assert 1 <= ship["masts"] <= 5
        assert len(ship["name"]) <= 20
        assert len(ship["ports"]) <= 2
