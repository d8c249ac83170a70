from __future__ import annotations

from gateway.policies.retract import RetractPart
from protocol.ledger import Ledger
from protocol.server import View


def test_retract_shows_the_whole_tail_without_a_bound() -> None:
    ledger = Ledger()
    ledger.verify("ab")
    ledger.draft("cdef")
    assert RetractPart(None).view(ledger.current, 0.0) == View(2, 6)


def test_retract_shows_at_most_max_tail_of_what_is_not_committed() -> None:
    ledger, policy = Ledger(), RetractPart(3)
    ledger.verify("ab")
    ledger.draft("cdef")
    assert policy.view(ledger.current, 0.0) == View(2, 5)
    ledger.verify("c", "def")
    assert policy.view(ledger.current, 0.0) == View(3, 6)
