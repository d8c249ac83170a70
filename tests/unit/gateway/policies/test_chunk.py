from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.policies.chunk import ChunkPart
from protocol.events import Usage
from protocol.ledger import Ledger
from protocol.policy import View
from protocol.requests import Chunk

if TYPE_CHECKING:
    import pytest


def test_chunk_withholds_text_until_its_boundary_is_certain() -> None:
    ledger, policy = Ledger(), ChunkPart(Chunk(unit="sentence"))
    ledger.verify("Dr. Smith paid 3.")
    assert policy.view(ledger.current, 0.0) == View(0, 0)
    ledger.verify("14 dollars. ")
    assert policy.view(ledger.current, 0.0) == View(0, 0)
    ledger.verify("He left")
    assert policy.view(ledger.current, 0.0) == View(29, 29)


def test_chunk_ignores_boundaries_that_are_only_drafted() -> None:
    ledger, policy = Ledger(), ChunkPart(Chunk(unit="line"))
    ledger.verify("one")
    ledger.draft("\ntwo\n")
    assert policy.view(ledger.current, 0.0) == View(0, 0)


def test_chunk_shows_text_behind_the_chunk_when_asked_for_the_tail() -> None:
    ledger, policy = Ledger(), ChunkPart(Chunk(unit="line", tail=True))
    ledger.verify("one\ntwo")
    ledger.draft(" three")
    assert policy.view(ledger.current, 0.0) == View(4, 13)


def test_chunk_finds_the_last_boundary_of_a_part_that_is_complete() -> None:
    """Even of one so long that it is looked through only now and then."""
    ledger, policy = Ledger(), ChunkPart(Chunk(unit="line"))
    for _ in range(3000):
        ledger.verify("a")
        policy.view(ledger.current, 0.0)
    ledger.verify("\nrest")
    assert policy.view(ledger.current, 0.0).committed == 0
    ledger.finish("length", Usage())
    assert policy.view(ledger.current, 0.0) == View(3001, 3001)


def test_chunk_delivers_overdue_text_and_keeps_the_boundaries_where_they_were() -> None:
    ledger, policy = Ledger(), ChunkPart(Chunk(unit="sentence", max_delay_ms=500))
    ledger.verify("It is")
    assert policy.view(ledger.current, 10.0) == View(0, 0, 10.5)
    ledger.verify(" long")
    assert policy.view(ledger.current, 10.4) == View(0, 0, 10.5)
    assert policy.view(ledger.current, 10.5) == View(10, 10, None)
    ledger.verify(". Now more")
    assert policy.view(ledger.current, 10.6) == View(12, 12, 11.1)


def test_chunk_measures_the_delay_from_the_oldest_text_that_is_still_withheld() -> None:
    ledger, policy = Ledger(), ChunkPart(Chunk(unit="line", max_delay_ms=1000))
    ledger.verify("one")
    assert policy.view(ledger.current, 1.0).wake_at == 2.0
    ledger.verify("\ntwo")
    assert policy.view(ledger.current, 1.5) == View(4, 4, 2.5)


def test_chunk_takes_any_delay_however_long() -> None:
    ledger, policy = Ledger(), ChunkPart(Chunk(unit="line", max_delay_ms=10**400))
    ledger.verify("one")
    assert policy.view(ledger.current, 0.0) == View(0, 0, 86_400.0)


def test_chunk_by_token_delivers_what_is_committed_and_not_what_is_held_back() -> None:
    ledger, policy = Ledger(), ChunkPart(Chunk(unit="token"))
    ledger.verify("Hel", "lo")
    assert policy.view(ledger.current, 0.0) == View(3, 3)
    ledger.verify("lo")
    assert policy.view(ledger.current, 0.0) == View(5, 5)


def test_chunk_looks_through_a_long_text_without_boundaries_only_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def finder(_locale: str) -> object:
        def find(text: str) -> int:
            seen.append(len(text))
            return 0

        return find

    monkeypatch.setattr("gateway.policies.chunk.FINDERS", {"line": finder})
    ledger, policy = Ledger(), ChunkPart(Chunk(unit="line"))
    for _ in range(5000):
        ledger.verify("abcd")
        policy.view(ledger.current, 0.0)
    assert sum(seen) < 20 * ledger.current.committed_length


def test_chunk_finds_a_boundary_late_in_a_long_text() -> None:
    ledger, policy = Ledger(), ChunkPart(Chunk(unit="line"))
    for _ in range(3000):
        ledger.verify("a")
        policy.view(ledger.current, 0.0)
    ledger.verify("\n")
    for _ in range(400):
        ledger.verify("b")
        policy.view(ledger.current, 0.0)
    assert policy.view(ledger.current, 0.0).committed == 3001
