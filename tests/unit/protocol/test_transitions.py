"""The table of transitions against the one printed in the specification."""

from __future__ import annotations

import re
from pathlib import Path

import protocol
from protocol.events import Commit, Error, Finish, Heartbeat, Open, Part, Retract, Tentative
from protocol.transitions import Interruption, NothingMore, State, Step, follow

STEPS: dict[str, list[Step]] = {
    "open": [Open],
    "text": [Tentative, Commit, Retract, Part],
    "finish": [Finish],
    "error": [Error],
    "ends": [Interruption],
    "204": [NothingMore],
}


def printed() -> dict[State, list[State | None]]:
    """Rows of the table in SPEC section 5.5; "ignored" and "-" are no transition."""
    spec = (Path(protocol.__file__).parent / "SPEC.md").read_text()
    section = spec.split("### 5.5 States")[1].split("## 6.")[0]
    rows: dict[State, list[State | None]] = {}
    for line in section.splitlines():
        cells = [cell.strip().split(",")[0] for cell in line.strip("|").split("|")]
        if cells[0].upper() in State.__members__:
            names = [cell.upper() for cell in cells]
            rows[State[names[0]]] = [State.__members__.get(name) for name in names[1:]]
    return rows


def test_transitions_follow_the_specification() -> None:
    table = printed()
    assert set(table) == set(State)
    for state, targets in table.items():
        for steps, target in zip(STEPS.values(), targets, strict=True):
            assert {follow(state, step) for step in steps} == {target}, (state, steps)


def test_heartbeat_changes_no_state() -> None:
    for state in State:
        assert follow(state, Heartbeat) in ({state} if state is not State.FAILED else {None})


def test_spec_sections_named_in_vectors_and_code_exist() -> None:
    folder = Path(protocol.__file__).parent
    spec = (folder / "SPEC.md").read_text()
    numbers = set(re.findall(r"^(?:#+ |\*\*)(\d+(?:\.\d+)*)", spec, re.MULTILINE))
    files = [*folder.glob("*.py"), *(folder.parent / "tests" / "vectors").glob("*.json")]
    for file in files:
        cited = re.findall(
            r'SPEC\s+section\s+(\d+(?:\.\d+)*)|"spec": "([\d.]+)"', file.read_text(), re.DOTALL
        )
        for match in cited:
            assert "".join(match) in numbers, (file.name, match)
