"""What of the scheduler's steps is published: states of the requests that a reader asked to see.

Knows vLLM's requests by the few attributes it reads, and imports nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wetink_vllm.acceptance import Acceptance
from wetink_vllm.messages import joined_id
from wetink_vllm.publisher import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


class _Followed:
    """What is kept of a request while it lives."""

    __slots__ = ("accepted", "drafted", "name", "steps")

    def __init__(self, name: str | None) -> None:
        self.name = name
        """None: nobody asked to see it."""
        self.drafted = 0
        self.accepted = 0
        self.steps = 0


class Watch:
    """Runs in the engine's loop: nothing here waits, decodes or copies a text."""

    def __init__(self, put: Callable[[Sequence[State]], None]) -> None:
        """`put`: the publisher's; returns at once."""
        self._put = put
        self._acceptance = Acceptance()
        self._followed: dict[str, _Followed] = {}

    def judged(
        self,
        requests: Mapping[str, Any],
        scheduled: Mapping[str, list[int]],
        lengths: Mapping[str, int],
    ) -> None:
        """A step verified drafts. `requests`: those that took part, by vLLM's id, with the step's
        tokens appended; `scheduled`: the drafts that were verified; `lengths`: how many output
        tokens each request had before.
        """
        states: list[State] = []
        for request_id, request in requests.items():
            new = len(request.output_token_ids) - lengths[request_id]
            if new <= 0:
                continue  # part of a prompt was read
            drafted = sum(token >= 0 for token in scheduled.get(request_id, ()))
            accepted = min(drafted, new - 1)
            has_ended = request.is_finished()
            # A request that has ended may have been cut behind what was accepted.
            if drafted and not has_ended:
                self._acceptance.observe(drafted, accepted)
            followed = self._follow(request_id)
            if followed.name is not None:
                followed.drafted += drafted
                followed.accepted += accepted
                followed.steps += 1
                states.append(_state(followed.name, request, followed))
            if has_ended:
                del self._followed[request_id]
        if states:
            self._put(states)

    def drafted(self, requests: Iterable[Any]) -> None:
        """They have new drafts, for the next step."""
        states: list[State] = []
        for request in requests:
            if request.is_finished():
                continue  # its blocks are still on their way elsewhere
            followed = self._follow(request.request_id)
            if followed.name is None or not (draft := _shown(request)):
                continue
            chances = tuple(map(self._acceptance.chance, range(len(draft))))
            states.append(_state(followed.name, request, followed, draft, chances))
        if states:
            self._put(states)

    def ended(self, request_ids: Iterable[str]) -> None:
        """They were given up from outside; their readers know that from their own streams."""
        for request_id in request_ids:
            self._followed.pop(request_id, None)

    def _follow(self, request_id: str) -> _Followed:
        followed = self._followed.get(request_id)
        if followed is None:
            followed = self._followed[request_id] = _Followed(joined_id(request_id))
        return followed


def _state(
    name: str,
    request: Any,
    followed: _Followed,
    draft: tuple[int, ...] = (),
    confidences: tuple[float | None, ...] = (),
) -> State:
    params = request.sampling_params
    verified = len(request.output_token_ids)
    if _ended_by_token(request) and not params.include_stop_str_in_output:
        verified -= 1  # vLLM gives the token that ends a text no text either
    return State(
        name,
        request,
        verified,
        draft,
        params.skip_special_tokens,
        confidences,
        followed.drafted,
        followed.accepted,
        followed.steps,
    )


def _shown(request: Any) -> tuple[int, ...]:
    """The draft up to a placeholder, or to a token that would end the text."""
    ends = _ending_tokens(request.sampling_params)
    shown: list[int] = []
    for token in request.spec_token_ids:
        if token < 0 or token in ends:
            break
        shown.append(token)
    return tuple(shown)


def _ended_by_token(request: Any) -> bool:
    output = request.output_token_ids
    return (
        request.is_finished()
        and len(output) > 0
        and output[-1] in _ending_tokens(request.sampling_params)
    )


def _ending_tokens(params: Any) -> set[int]:
    return {params.eos_token_id, *(params.stop_token_ids or ())}
