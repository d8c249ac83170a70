from __future__ import annotations

import pytest

from gateway.config import OverloadConfig
from gateway.overload import degrade
from protocol.requests import Draft, GenerationRequest

CONFIG = OverloadConfig(shorter_drafts_from_s=2.0, shorter_draft_length=3, fallback_from_s=10.0)
REQUEST = GenerationRequest(prompt="x", model="large", draft=Draft(drafter="suffix"))


@pytest.mark.parametrize(
    ("expected_s", "done", "model", "length"),
    [
        (0.0, [], "large", None),
        (1.9, [], "large", None),
        (2.0, ["shorter_drafts"], "large", 3),
        (10.0, ["shorter_drafts", "fallback_model"], "small", 3),
    ],
)
def test_request_is_given_less_step_by_step(
    expected_s: float, done: list[str], model: str, length: int | None
) -> None:
    request, said = degrade(REQUEST, CONFIG, expected_s, "small")
    assert (said, request.model) == (done, model)
    assert request.draft == Draft(drafter="suffix", length=length)


@pytest.mark.parametrize(("length", "given"), [(0, 0), (3, 3), (4, 3)])
def test_draft_that_is_short_already_is_left_alone(length: int, given: int) -> None:
    asked = GenerationRequest(prompt="x", model="large", draft=Draft(length=length))
    request, said = degrade(asked, CONFIG, 5.0, None)
    assert request.draft.length == given
    assert bool(said) == (given < length)


@pytest.mark.parametrize("fallback", [None, "large"])
def test_request_without_another_model_keeps_its_own(fallback: str | None) -> None:
    request, said = degrade(REQUEST, CONFIG, 100.0, fallback)
    assert (said, request.model) == (["shorter_drafts"], "large")


def test_operator_may_do_without_shorter_drafts() -> None:
    config = OverloadConfig(shorter_drafts_from_s=None)
    assert degrade(REQUEST, config, 100.0, None) == (REQUEST, [])
