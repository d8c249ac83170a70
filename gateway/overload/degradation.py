"""What a request gets less of while many wait, before anybody is refused: first shorter drafts,
then a smaller model. The text of a model stays the same with drafts of any length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from protocol.events import Degradation

if TYPE_CHECKING:
    from gateway.config import OverloadConfig
    from protocol.requests import GenerationRequest


def degrade(
    request: GenerationRequest, config: OverloadConfig, expected_s: float, fallback: str | None
) -> tuple[GenerationRequest, list[str]]:
    """The request as it is served when newcomers have to expect to wait for `expected_s` seconds,
    and what was done to it, as `open` says it.

    `fallback`: the model that may take the place of the one it would have; None: none.
    """
    done: list[str] = []
    length = config.shorter_draft_length
    if _is_due(expected_s, config.shorter_drafts_from_s) and (
        request.draft.length is None or request.draft.length > length
    ):
        draft = msgspec.structs.replace(request.draft, length=length)
        request = msgspec.structs.replace(request, draft=draft)
        done.append(Degradation.SHORTER_DRAFTS)
    if (
        fallback is not None
        and fallback != request.model
        and _is_due(expected_s, config.fallback_from_s)
    ):
        request = msgspec.structs.replace(request, model=fallback)
        done.append(Degradation.FALLBACK_MODEL)
    return request, done


def _is_due(expected_s: float, from_s: float | None) -> bool:
    return from_s is not None and expected_s >= from_s
