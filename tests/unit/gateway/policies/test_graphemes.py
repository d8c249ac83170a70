from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from icu4py.breakers import CharacterBreaker

from gateway.policies.graphemes import MAX_CLUSTER, GraphemeSafePart, cluster_floor
from gateway.policies.hold import HoldPart
from gateway.policies.retract import RetractPart
from protocol.events import OffsetUnit
from protocol.ledger import Ledger
from protocol.policy import View

FAMILY = "👩\u200d👩\u200d👧"
FLAGS = "🇩🇪🇫🇷🇯🇵"
ACCENTED = "e\u0301\u0323o"
PIECES = ["a", " ", "\r", "\n", "\u0301", "\u200d", "👩", "👧", "🇩", "🇪", "你", "か", "\u3099", "é"]


@pytest.mark.parametrize(
    "text", [FAMILY, FLAGS, ACCENTED, f"ab{FAMILY}{FLAGS}cd {ACCENTED}你か\u3099"]
)
def test_reader_never_holds_half_a_cluster(text: str) -> None:
    ends = {0, len(text)}
    position = 0
    for cluster in CharacterBreaker(text, "en"):
        position += len(cluster)
        ends.add(position)
    ledger, policy = Ledger(), GraphemeSafePart(HoldPart())
    for char in text:
        ledger.verify(char)
        assert policy.view(ledger.current, 0.0).committed in ends


def test_reader_gets_a_cluster_when_the_next_one_begins() -> None:
    ledger, policy = Ledger(), GraphemeSafePart(HoldPart())
    ledger.verify(f"a{FAMILY}")
    assert policy.view(ledger.current, 0.0) == View(1, 1)
    ledger.verify("b")
    assert policy.view(ledger.current, 0.0) == View(6, 6)


def test_drafted_text_does_not_make_a_committed_cluster_certain() -> None:
    ledger, policy = Ledger(), GraphemeSafePart(RetractPart(None, OffsetUnit.CODEPOINT))
    ledger.verify("🇩")
    ledger.draft("🇪x")
    assert policy.view(ledger.current, 0.0) == View(0, 2)


def test_held_back_cluster_is_not_shown_by_a_policy_without_tail() -> None:
    ledger, policy = Ledger(), GraphemeSafePart(HoldPart())
    ledger.verify("a", tail="a")
    assert policy.view(ledger.current, 0.0) == View(0, 0)


def test_endless_cluster_is_not_waited_for_for_ever() -> None:
    ledger, policy = Ledger(), GraphemeSafePart(HoldPart())
    ledger.verify("e" + "\u0301" * (MAX_CLUSTER + 10))
    assert policy.view(ledger.current, 0.0).committed == MAX_CLUSTER + 11


@given(st.lists(st.sampled_from(PIECES), max_size=200).map("".join), st.data())
def test_looking_at_a_window_finds_what_looking_at_everything_finds(
    text: str, data: st.DataObject
) -> None:
    ledger = Ledger()
    ledger.verify(text)
    limit = data.draw(st.integers(0, len(text)))
    boundary = position = 0
    for cluster in CharacterBreaker(text, "en"):
        if position <= limit:
            boundary = position
        position += len(cluster)
    assert cluster_floor(ledger.current, 0, limit, available=len(text)) == boundary
