from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from engine.drafters.acceptance import EXPLORE_EVERY, MatchChances
from engine.drafters.base import Drafter, Proposal
from engine.drafters.ngram import (
    MAX_MATCH,
    MIN_CONFIDENCE,
    RESYNC_WINDOW,
    NgramDrafter,
)


@dataclass
class Sequence:
    tokens: list[int]
    stream: str = "s"
    salt: bytes = b""


@dataclass
class Run:
    """A drafter at work on one sequence whose continuation is known."""

    prompt: list[int]
    prediction: list[int] = field(default_factory=list[int])
    budget: int = 8

    def __post_init__(self) -> None:
        self.drafter = NgramDrafter()
        self.sequence = Sequence(list(self.prompt))
        self.drafter.begin("s", self.prompt, self.prediction)

    def propose(self) -> Proposal:
        return self.drafter.propose([(self.sequence, self.budget)])[0]

    def write(self, output: list[int]) -> int:
        """Generate `output` with verification; returns the number of steps."""
        steps = 0
        done = 0
        while done < len(output):
            tokens = self.propose().tokens
            right = 0
            while right < len(tokens) and tokens[right : right + 1] == output[done + right :][:1]:
                right += 1
            self.drafter.observe("s", len(tokens), right)
            kept = output[done : done + right + 1]
            self.sequence.tokens += kept
            done += len(kept)
            steps += 1
        return steps


def longest_match(tokens: list[int]) -> int:
    """Length, up to MAX_MATCH, of the longest end of `tokens` that occurs earlier."""
    best = 0
    for end in range(1, len(tokens)):
        match = 0
        while match < min(end, MAX_MATCH) and tokens[end - match - 1] == tokens[-match - 1]:
            match += 1
        best = max(best, match)
    return best


def test_drafter_is_a_drafter() -> None:
    drafter: Drafter = NgramDrafter()
    assert drafter.name == "ngram"


def test_drafter_copies_what_followed_the_longest_match() -> None:
    run = Run([1, 2, 3, 4, 5, 6, 9, 2, 3, 7, 8, 1, 2, 3], budget=2)
    assert run.propose().tokens == [4, 5]


def test_drafter_prefers_the_most_recent_of_equal_matches() -> None:
    run = Run([1, 2, 3, 8, 1, 2, 4, 9, 1, 2], budget=1)
    assert run.propose().tokens == [4]


def test_drafter_proposes_nothing_when_nothing_repeats() -> None:
    assert Run([1, 2, 3, 4]).propose() == Proposal([], [])


def test_drafter_proposes_no_more_than_its_budget() -> None:
    run = Run([1, 2, 3, 4, 5, 6, 7, 8] * 3, budget=3)
    assert len(run.propose().tokens) == 3
    run.budget = 0
    assert run.propose().tokens == []


def test_drafter_drafts_a_loop_beyond_the_end_of_the_context() -> None:
    run = Run([9, *[1, 2] * 6], budget=6)
    assert run.propose().tokens == [1, 2, 1, 2, 1, 2]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=24), st.data())
def test_drafter_finds_the_longest_match_however_the_context_grew(
    tokens: list[int], data: st.DataObject
) -> None:
    start = data.draw(st.integers(1, len(tokens)))
    run = Run(tokens[:start], budget=1)
    while len(run.sequence.tokens) < len(tokens):
        run.propose()
        at = len(run.sequence.tokens)
        run.sequence.tokens += tokens[at : at + data.draw(st.integers(1, 4))]
    (copied,) = run.propose().tokens or [None]
    match = longest_match(tokens)
    if copied is None:
        assert match <= 1
        return
    suffix = tokens[len(tokens) - match :]
    followers = {
        tokens[i + match] for i in range(len(tokens) - match) if tokens[i : i + match] == suffix
    }
    assert copied in followers


def test_drafter_follows_a_prediction_from_its_first_token() -> None:
    prediction = list(range(100, 140))
    run = Run([1, 2, 3], prediction)
    assert run.propose().tokens[:4] == prediction[:4]
    # 40 tokens in steps of at most 8 drafted and one more.
    assert run.write(prediction) <= 7


def test_drafter_finds_its_place_in_a_prediction_again_after_an_edit() -> None:
    prediction = list(range(100, 200))
    edited = [*prediction[:40], 7, 8, *prediction[41:70], *prediction[75:]]
    run = Run([1, 2, 3], prediction)
    assert run.write(edited) <= 20


def test_drafter_goes_on_in_a_prediction_at_the_next_of_several_places() -> None:
    prediction = [50, 51, 1, 2, 60, 61, 1, 2, 70, 71, 1, 2, 80, 81]
    run = Run([9], prediction, budget=1)
    run.sequence.tokens += [50, 51, 1, 2, 60]
    assert run.propose().tokens == [61]
    run.sequence.tokens += [99, 1, 2]
    assert run.propose().tokens == [70]


def test_drafter_finds_its_place_by_a_single_token_a_little_ahead() -> None:
    run = Run([9], [50, 51, 52, 60, 61, 62], budget=2)
    run.sequence.tokens += [50, 51, 99, 60]
    assert run.propose().tokens == [61, 62]


def test_drafter_does_not_trust_a_single_token_far_ahead() -> None:
    far = list(range(100, 100 + RESYNC_WINDOW))
    run = Run([9], [50, 51, *far, 60, 61, 62], budget=2)
    run.sequence.tokens += [50, 51, 99, 60]
    assert run.propose().tokens == []


def test_drafter_finds_a_place_behind_it_when_there_is_none_ahead() -> None:
    prediction = [50, 51, 52, 53, 54, 55]
    run = Run([9], prediction, budget=2)
    run.sequence.tokens += [50, 51, 52, 53, 54]
    assert run.propose().tokens == [55]
    run.sequence.tokens += [8, 50, 51]
    assert run.propose().tokens == [52, 53]


def test_drafter_continues_a_prediction_for_a_resumed_stream() -> None:
    prediction = list(range(100, 120))
    run = Run([1, 2, 3], prediction, budget=2)
    run.sequence.tokens += prediction[:10]
    assert run.propose().tokens == prediction[10:12]


def test_drafter_keeps_streams_apart() -> None:
    drafter = NgramDrafter()
    first, second = Sequence([1, 2, 3, 1, 2], "a"), Sequence([1, 2, 4, 1, 2], "b")
    for sequence in (first, second):
        drafter.begin(sequence.stream, sequence.tokens, [])
    proposals = drafter.propose([(first, 1), (second, 1)])
    assert [proposal.tokens for proposal in proposals] == [[3], [4]]
    drafter.end("a")
    drafter.end("a")
    assert drafter.propose([(second, 1)])[0].tokens == [4]


def test_drafter_states_confidence_that_falls_along_a_draft_and_stops_in_time() -> None:
    run = Run([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2], budget=16)
    confidence = run.propose().confidence
    assert confidence == sorted(confidence, reverse=True)
    assert len(confidence) < 7
    assert min(confidence) >= MIN_CONFIDENCE


def test_drafter_drafts_longer_after_its_drafts_were_right() -> None:
    run = Run(list(range(20)) * 2, budget=16)
    before = len(Run([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2], budget=16).propose().tokens)
    run.write(list(range(20)) * 6)
    run.drafter.begin("s", [], [])
    run.sequence.tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2]
    assert len(run.propose().tokens) >= before


def test_drafter_stops_drafting_what_is_always_wrong_but_tries_again_now_and_then() -> None:
    run = Run([1, 2, 3, 4, 5, 1, 2], budget=4)
    drafted: list[int] = []
    for _ in range(40 + EXPLORE_EVERY):
        tokens = run.propose().tokens
        run.drafter.observe("s", len(tokens), 0)
        drafted.append(len(tokens))
    assert drafted[0] > 0
    late = drafted[40:]
    assert sum(late) == 1


def test_calibration_converges_to_what_is_measured() -> None:
    calibration = MatchChances([0.5] * (MAX_MATCH + 1))
    for i in range(4000):
        calibration.observe(3, 1, int(i % 5 == 0))
    assert abs(calibration.chance(3) - 0.2) < 0.03
    assert calibration.chance(2) == 0.5


def test_calibration_counts_only_tokens_that_were_reached() -> None:
    calibration = MatchChances([0.5] * (MAX_MATCH + 1))
    calibration.observe(1, drafted=4, accepted=1)
    assert calibration.chance(1) > 0.5
    assert calibration.chance(2) < 0.5
    assert calibration.chance(3) == calibration.chance(4) == 0.5
    calibration.observe(MAX_MATCH + 5, drafted=2, accepted=2)
    assert calibration.chance(MAX_MATCH + 5) == calibration.chance(MAX_MATCH) > 0.5
