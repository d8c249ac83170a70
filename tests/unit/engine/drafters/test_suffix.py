from __future__ import annotations

from dataclasses import dataclass, field

from engine.drafters.suffix import PROMPT_END, Shelves, SuffixDrafter

ANSWER = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]


@dataclass
class Sequence:
    stream: str
    tokens: list[int] = field(default_factory=list[int])
    salt: bytes = b""


def say(
    drafter: SuffixDrafter,
    stream: str,
    prompt: list[int],
    answer: list[int],
    *,
    salt: bytes = b"",
) -> int:
    """A whole stream, verified; returns how many drafted tokens were right."""
    sequence = Sequence(stream, list(prompt), salt)
    drafter.begin(stream, prompt, [])
    done = accepted = 0
    while done < len(answer):
        (proposal,) = drafter.propose([(sequence, 8)])
        right = 0
        for drafted, token in zip(proposal.tokens, answer[done:], strict=False):
            if drafted != token:
                break
            right += 1
        if proposal.tokens:
            drafter.observe(stream, len(proposal.tokens), right)
        kept = answer[done : done + right + 1]
        sequence.tokens += kept
        done += len(kept)
        accepted += right
    drafter.end(stream)
    return accepted


def test_drafter_copies_an_answer_that_was_given_before() -> None:
    drafter = SuffixDrafter(Shelves())
    assert say(drafter, "first", [1, 2, 3], ANSWER) == 0
    assert say(drafter, "second", [4, 2, 3], ANSWER) >= 5


def test_drafter_knows_a_question_by_its_end_alone() -> None:
    drafter = SuffixDrafter(Shelves())
    question = list(range(100, 100 + PROMPT_END))
    say(drafter, "first", [*range(50), *question], ANSWER)
    drafter.begin("second", question, [])
    (proposal,) = drafter.propose([(Sequence("second", list(question)), 4)])
    assert proposal.tokens == ANSWER[:4]
    drafter.end("second")


def test_drafter_copies_from_a_stream_that_still_runs() -> None:
    drafter = SuffixDrafter(Shelves())
    running = Sequence("running", [1, 2, 3, *ANSWER])
    drafter.begin("running", [1, 2, 3], [])
    drafter.propose([(running, 4)])
    drafter.begin("late", [1, 2, 3, 5, 6], [])
    (proposal,) = drafter.propose([(Sequence("late", [1, 2, 3, 5, 6]), 3)])
    assert proposal.tokens == [7, 8, 9]


def test_drafter_finds_no_end_in_itself() -> None:
    drafter = SuffixDrafter(Shelves())
    drafter.begin("s", [], [])
    assert drafter.propose([(Sequence("s", [1, 2, 3, 4]), 8)])[0].tokens == []


def test_nothing_is_copied_from_another_tenant() -> None:
    drafter = SuffixDrafter(Shelves())
    say(drafter, "first", [1, 2, 3], ANSWER, salt=b"one")
    assert say(drafter, "second", [1, 2, 3], ANSWER, salt=b"other") == 0
    assert say(drafter, "third", [1, 2, 3], ANSWER, salt=b"one") >= 5


def test_confidence_never_rises_along_a_draft() -> None:
    drafter = SuffixDrafter(Shelves())
    say(drafter, "first", [1, 2, 3], ANSWER)
    drafter.begin("second", [1, 2, 3], [])
    (proposal,) = drafter.propose([(Sequence("second", [1, 2, 3]), 8)])
    assert proposal.tokens
    assert proposal.confidence == sorted(proposal.confidence, reverse=True)
    assert proposal.confidence[0] < 1.0


def test_copies_that_never_hold_are_hardly_proposed_any_more() -> None:
    drafter = SuffixDrafter(Shelves())
    say(drafter, "first", [1, 2, 3], ANSWER)
    drafted = 0
    for number in range(200):
        stream = str(number)
        drafter.begin(stream, [900 + number, 3], [])
        (proposal,) = drafter.propose([(Sequence(stream, [900 + number, 3]), 1)])
        if proposal.tokens:
            drafter.observe(stream, 1, 0)
            drafted += number >= 100
        drafter.end(stream)
    assert drafted < 20


def test_memory_stays_bounded_and_the_least_used_is_forgotten_first() -> None:
    most = 400_000
    shelves = Shelves(most)
    drafter = SuffixDrafter(shelves)
    say(drafter, "old", [1, 2, 3], ANSWER, salt=b"old")
    for number in range(60):
        say(drafter, "again", [1, 2, 3], ANSWER, salt=b"used")
        start = 1000 * number + 100
        say(drafter, f"s{number}", [], list(range(start, start + 300)), salt=b"busy")
        assert shelves.bytes <= most
    assert say(drafter, "old again", [1, 2, 3], ANSWER, salt=b"old") == 0
    assert say(drafter, "still there", [1, 2, 3], ANSWER, salt=b"used") >= 5
