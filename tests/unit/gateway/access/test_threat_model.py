"""Each defence that docs/threat-model.md names is held by a test, and that test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)))
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.count("|") == 4 and "`tests/" in line
]


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_reader_finds_the_test_that_is_named(file: str, test: str) -> None:
    module = ast.parse((ROOT / file).read_text())
    assert test in {getattr(node, "name", None) for node in module.body}


def test_every_threat_has_a_defence_and_a_test() -> None:
    threats = [
        line
        for line in PAGE.splitlines()
        if line.startswith("| ") and not line.startswith(("| threat |", "| the gateway", "|---"))
    ]
    table_of_addresses = 5
    assert len(ROWS) == len(threats) - table_of_addresses > 15
    for threat, defence, tests in ROWS:
        assert threat and defence, threat
        assert re.fullmatch(r"(`tests/[\w/]+\.py::test_\w+`(, )?)+", tests), threat
