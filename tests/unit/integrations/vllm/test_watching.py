from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.integrations.vllm.requests import END, NAME, Request, tokens
from wetink_vllm.watching import Watch

if TYPE_CHECKING:
    from wetink_vllm.publisher import State


def _states() -> list[State]:
    return []


def step(watch: Watch, request: Request, new: list[int], drafted: list[int]) -> None:
    """As vLLM's scheduler does one, where one request takes part."""
    before = {request.request_id: len(request.output_token_ids)}
    request.output_token_ids += new
    took_part = {request.request_id: request}
    watch.judged(took_part, {request.request_id: drafted} if drafted else {}, before)


def test_watch_publishes_a_verdict_and_then_the_next_draft() -> None:
    states, request = _states(), Request()
    watch = Watch(states.extend)
    step(watch, request, tokens("abc"), tokens("abx"))
    request.spec_token_ids = tokens("de")
    watch.drafted([request])
    verdict, draft = states
    assert (verdict.name, verdict.verified, verdict.draft) == (NAME, 3, ())
    assert (verdict.drafted, verdict.accepted, verdict.steps) == (3, 2, 1)
    assert (draft.verified, draft.draft) == (3, tuple(tokens("de")))


def test_watch_shows_no_draft_beyond_a_placeholder_or_the_end_of_the_text() -> None:
    states, request = _states(), Request()
    request.spec_token_ids = [*tokens("ab"), -1, *tokens("c")]
    Watch(states.extend).drafted([request])
    request.spec_token_ids = [*tokens("a"), END, *tokens("c")]
    Watch(states.extend).drafted([request])
    assert [state.draft for state in states] == [(97, 98), (97,)]


def test_watch_does_not_count_placeholders_as_drafts() -> None:
    states, request = _states(), Request()
    step(Watch(states.extend), request, tokens("ab"), [97, -1, -1])
    assert (states[0].drafted, states[0].accepted) == (1, 1)


def test_watch_gives_the_token_that_ends_a_text_no_text() -> None:
    states, request = _states(), Request()
    request.finished = True
    step(Watch(states.extend), request, [*tokens("ab"), END], [])
    assert states[0].verified == 2


def test_watch_publishes_nothing_of_requests_that_nobody_asked_to_see() -> None:
    states, request = _states(), Request(None)
    watch = Watch(states.extend)
    step(watch, request, tokens("ab"), tokens("a"))
    request.spec_token_ids = tokens("c")
    watch.drafted([request])
    assert states == []


def test_watch_passes_over_drafts_of_a_request_that_has_ended() -> None:
    states, request = _states(), Request()
    request.spec_token_ids = tokens("c")
    request.finished = True
    Watch(states.extend).drafted([request])
    assert states == []


def test_watch_passes_over_a_step_that_only_reads_the_prompt() -> None:
    states, request = _states(), Request()
    step(Watch(states.extend), request, [], [])
    assert states == []


def test_watch_says_how_sure_a_draft_is_once_it_has_seen_enough() -> None:
    states, request = _states(), Request()
    watch = Watch(states.extend)
    request.spec_token_ids = tokens("ab")
    watch.drafted([request])
    assert states[-1].confidences == (None, None)
    for _ in range(40):
        step(watch, request, tokens("ax"), tokens("ab"))
    watch.drafted([request])
    first, second = states[-1].confidences
    assert first is not None and first > 0.95
    assert second is not None and second < 0.05
