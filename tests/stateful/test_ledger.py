"""The ledger against a model of plain strings, with right and wrong calls in any order."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol.errors import LedgerError
from protocol.events import Usage
from protocol.ledger import Completed, Failed, Ledger
from tests.property.traces import patient, pieces

if TYPE_CHECKING:
    from collections.abc import Callable

causes = st.none() | st.sampled_from(("draft_rejected", "engine_restart"))


class LedgerMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger()
        self.committed = [""]
        self.tail = ""
        self.cause: str | None = None
        self.ended = False

    def expect(self, invariant: str, call: Callable[[], None]) -> None:
        with pytest.raises(LedgerError) as error:
            call()
        assert error.value.invariant == invariant

    @rule(tail=pieces, cause=causes)
    def draft(self, tail: str, cause: str | None) -> None:
        def call() -> None:
            self.ledger.draft(tail, (), cause)

        rewritten = not tail.startswith(self.tail)
        if self.ended:
            self.expect("nothing_after_the_end", call)
        elif rewritten and cause is None:
            self.expect("explained_rewrite", call)
        else:
            call()
            self.tail = tail
            self.cause = cause if rewritten else self.cause

    @rule(text=pieces, tail=pieces, accepted=st.integers(0, 20), cause=causes)
    def verify(self, text: str, tail: str, accepted: int, cause: str | None) -> None:
        text = self.tail[:accepted] + text

        def call() -> None:
            self.ledger.verify(text, tail, (), cause)

        rewritten = not (text + tail).startswith(self.tail)
        if self.ended:
            self.expect("nothing_after_the_end", call)
        elif rewritten and cause is None:
            self.expect("explained_rewrite", call)
        else:
            call()
            self.committed[-1] += text
            self.tail = tail
            self.cause = cause if rewritten else self.cause

    @rule(text=st.sampled_from(("\ud800", "a\udfff", "\ud83d\udc4d")), as_tail=st.booleans())
    def send_lone_surrogates(self, text: str, as_tail: bool) -> None:
        if not self.ended:
            self.expect(
                "whole_code_points",
                lambda: (
                    self.ledger.draft(self.tail + text)
                    if as_tail
                    else self.ledger.verify(self.tail + text)
                ),
            )

    @rule(name=st.none() | st.just("f"))
    def begin_part(self, name: str | None) -> None:
        def call() -> None:
            self.ledger.begin_part("tool_call", name)

        if self.ended:
            self.expect("nothing_after_the_end", call)
        elif self.tail:
            self.expect("empty_tail", call)
        else:
            call()
            self.committed.append("")
            self.cause = None

    @precondition(lambda self: len(self.committed) > 1 or len(self.committed[0]) > 12)
    @rule(failing=st.booleans())
    def end(self, failing: bool) -> None:
        def call() -> None:
            if failing:
                self.ledger.fail("engine_failed", "gone", False)
            else:
                self.ledger.finish("stop", Usage())

        if self.ended:
            self.expect("nothing_after_the_end", call)
        elif self.tail and not failing:
            self.expect("empty_tail", call)
        else:
            call()
            self.cause = "cancelled" if self.tail else self.cause
            self.tail = ""
            self.ended = True
            assert isinstance(self.ledger.ending, Failed if failing else Completed)
            assert self.ledger.current.complete is not failing

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        parts = self.ledger.parts
        assert [part.committed_text() for part in parts] == self.committed
        assert [part.index for part in parts] == list(range(len(parts)))
        assert all(part.complete and not part.tail for part in parts[:-1])
        current = self.ledger.current
        assert current is parts[-1]
        assert (current.tail, current.cause) == (self.tail, self.cause)
        whole = self.committed[-1] + self.tail
        assert current.committed_length == len(self.committed[-1])
        assert current.total_length == len(whole)
        assert current.text(0) == whole
        middle = len(whole) // 2
        assert current.text(middle // 2, middle) == whole[middle // 2 : middle]
        assert current.text(middle) == whole[middle:]
        text = "".join(self.committed).encode()
        assert self.ledger.digest() == hashlib.sha256(text).hexdigest()
        assert (self.ledger.ending is not None) is self.ended


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(patient, max_examples=40, stateful_step_count=25)
