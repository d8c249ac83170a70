"""What Wetink asks of itself, and whether a row meets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from benchmarks.engine.rounds import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.engine.rounds import Row

PLAIN = "Wetink"
NGRAM = "Wetink, n-gram"
DRAFTED = "Wetink, head"
"""Not the default drafts: these remember answers, and every round asks the same."""
OURS = (PLAIN, NGRAM, DRAFTED)
LLAMACPP = "llama.cpp"
VLLM = "vLLM"
TRANSFORMERS = "transformers"
PEERS = (LLAMACPP, VLLM, TRANSFORMERS)


class Ratio(NamedTuple):
    """`column` is at least `wanted` times as good as the best of `against`."""

    wanted: float
    against: Sequence[str]
    column: str = PLAIN

    def judge(self, row: Row) -> Verdict:
        theirs = row.best(self.against)
        # A single name is said even where it was not measured.
        label = "the best peer" if len(self.against) > 1 else self.against[0]
        bar = f"{self.column} ÷ {label}"
        if theirs is None or row.median(self.column) is None:
            return Verdict(bar, self.wanted, None, None, None)
        value = row.ratio(self.column, theirs)
        return Verdict(bar, self.wanted, value, theirs, value >= self.wanted)


class Limit(NamedTuple):
    """The median of `column` is no worse than `wanted`, in the row's own unit."""

    wanted: float
    column: str = PLAIN

    def judge(self, row: Row) -> Verdict:
        value = row.median(self.column)
        if value is None:
            return Verdict(self.column, self.wanted, None, None, None)
        met = value >= self.wanted if row.higher_is_better else value <= self.wanted
        return Verdict(self.column, self.wanted, value, None, met)


BARS: dict[str, tuple[Ratio | Limit, ...]] = {
    "chat, 1 stream": (
        Ratio(1.5, PEERS),
        Ratio(0.98, (PLAIN,), NGRAM),
        Ratio(1.7, (PLAIN,), DRAFTED),
        Ratio(2.5, (LLAMACPP,), DRAFTED),
    ),
    "chat, 8 streams": (
        Ratio(2.0, PEERS),
        Ratio(0.98, (PLAIN,), NGRAM),
        Ratio(1.1, (PLAIN,), DRAFTED),
    ),
    "chat, 32 streams": (
        Ratio(1.4, PEERS),
        Ratio(0.98, (PLAIN,), NGRAM),
        Ratio(0.98, (PLAIN,), DRAFTED),
    ),
    "first committed token p50, 1 stream": (Ratio(1.0, PEERS),),
    "first committed token p50, 8 streams": (Ratio(1.0, PEERS),),
    "first committed token p50, 32 streams": (Ratio(1.0, PEERS),),
    "prefill of 2,000 tokens": (Ratio(2.5, (LLAMACPP,)),),
    "edit code, with prediction": (Ratio(2.5, (PLAIN,), NGRAM), Ratio(2.5, (PLAIN,), DRAFTED)),
    "summarise": (Ratio(2.5, (PLAIN,), NGRAM), Ratio(2.5, (PLAIN,), DRAFTED)),
    "kept beside two busy processes": (Limit(40.0), Ratio(1.0, (LLAMACPP,))),
    "warm start": (Limit(6.0),),
    "first request's rate, of the sixth to tenth's": (Limit(95.0),),
}
"""By row name."""


def judge(rows: Sequence[Row]) -> None:
    for row in rows:
        row.verdicts = [bar.judge(row) for bar in BARS.get(row.name, ())]
