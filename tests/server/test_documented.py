"""Schemathesis asks a gateway for all that its OpenAPI document allows, and for much it does not:
every answer is one the document knows, and none is a failure of the gateway's.

FUZZ_EXAMPLES (15): requests for each operation, beside some hundred that follow from the document.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from gateway.backends.base import Drafted, Finished, Verified
from gateway.backends.scripted import ScriptedBackend, Step
from protocol.events import Token
from tests.server.gateways import serving

HERE = Path(__file__).parent
SETTINGS = HERE / "schemathesis.toml"
TRACE = [
    Step(0.0, Drafted("Hello wo", [Token(1, 5, confidence=0.9), Token(2, 3, confidence=0.5)])),
    Step(0.0, Verified("Hello", " moon", "draft_rejected", [Token(1, 5, logprob=-0.5)])),
    Step(0.0, Verified(" moon.", "", None, [Token(4, 6)])),
    Step(0.0, Finished("stop")),
]


@pytest.mark.heavy
async def test_gateway_answers_as_its_document_says(tmp_path: Path) -> None:
    async with serving(ScriptedBackend({"trace": TRACE})) as (url, http):
        trying = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("--config-file", str(SETTINGS), "run", f"{url}/openapi.json", "--no-color"),
            *("--max-examples", os.environ.get("FUZZ_EXAMPLES", "15")),
            cwd=tmp_path,  # it writes reports
            env={**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_hooks.py")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        report, _ = await trying.communicate()
        assert trying.returncode == 0, report.decode()
        assert (await http.get("/readyz")).status_code == 200
