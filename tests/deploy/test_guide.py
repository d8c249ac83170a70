"""Every block of code in the operating guide does what it says."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

from gateway.config import GatewayConfig
from gateway.settings.command import problems_of
from tests.deploy.files import DEPLOY
from tests.server.gateways import hand_served

ROOT = DEPLOY.parent
GUIDE = (ROOT / "docs" / "OPERATING.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"```(\w*)\n(.*?)```", GUIDE, re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def test_blocks_are_of_the_kinds_that_are_tried_here() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "toml"}


@pytest.mark.parametrize("block", blocks("toml"))
def test_configuration_in_the_guide_can_be_used(block: str) -> None:
    tree = tomllib.loads(block)
    assert tree
    assert problems_of(tree) == []


@pytest.mark.parametrize("command", [line for block in blocks("sh") for line in block.splitlines()])
async def test_command_in_the_guide_succeeds(command: str) -> None:
    """The gateway it asks is one of ours; `doctor` looks at a machine that needs no engine here."""
    async with hand_served() as served:
        line = command.replace("http://127.0.0.1:8000", served.url).replace("curl ", "curl -f ")
        bin_folder = str(Path(sys.executable).parent)
        settings = {"WETINK_SERVER_PORT": "0", "WETINK_BACKEND_KIND": "scripted"}
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", line),
            cwd=ROOT,
            env={**os.environ, **settings, "PATH": f"{bin_folder}:{os.environ['PATH']}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert output


def test_keys_in_the_guide_are_keys() -> None:
    sections = GatewayConfig.__struct_fields__
    named = re.findall(rf"`({'|'.join(sections)})\.([a-z_]+)", GUIDE)
    assert named
    for section, key in named:
        assert hasattr(getattr(GatewayConfig(), section), key), f"{section}.{key}"
