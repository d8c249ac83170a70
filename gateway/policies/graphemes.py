"""`grapheme_safe`: no reader is left with half of what a person sees as one character.

UAX #29 joins emoji by ZWJ, flags by pairs, and letters with the marks behind them, so the last
cluster of a text that still grows is never certain; it is held back until the next one begins.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from icu4py.breakers import CharacterBreaker

from protocol.policy import View

if TYPE_CHECKING:
    from gateway.policies.base import PartPolicy
    from protocol.ledger import PartLedger

_WINDOW = 64
"""Code points looked at on either side of a cut, when the text there has a certain boundary."""
MAX_CLUSTER = 512
"""A longer cluster (a heap of combining marks) is no longer waited for: it would hold text back for
ever and be looked at again at every step."""
_CERTAIN = re.compile("[ -~\u3400-\u4dbf\u4e00-\u9fff](?=[ -~\u3400-\u4dbf\u4e00-\u9fff])")
"""Between two of these (printable ASCII, Han) there is always a boundary."""


class GraphemeSafePart:
    """Wraps another policy and moves its positions back to cluster boundaries.

    ICU's offsets are UTF-16 units; its segments are taken as strings instead, so that positions
    stay code points.
    """

    def __init__(self, inner: PartPolicy) -> None:
        self._inner = inner
        self._committed = 0

    def view(self, part: PartLedger, now: float) -> View:
        wanted = self._inner.view(part, now)
        self._committed = cluster_floor(
            part, self._committed, wanted.committed, available=part.committed_length
        )
        if wanted.shown <= wanted.committed:
            # The policy shows no tail: what is held back here must not become one.
            return View(self._committed, self._committed, wanted.wake_at)
        shown = cluster_floor(part, self._committed, wanted.shown, available=part.total_length)
        return View(self._committed, max(shown, self._committed), wanted.wake_at)


def cluster_floor(part: PartLedger, floor: int, limit: int, *, available: int) -> int:
    """The largest cluster boundary in floor…limit that text after `available` cannot undo.

    `floor` is a boundary found before. All positions are code points in the part.
    """
    if limit <= floor:
        return floor
    start = _certain_boundary(part, floor, limit)
    window = part.text(start, min(available, limit + _WINDOW))
    boundary, position = floor, start
    for cluster in CharacterBreaker(window, "en"):
        if position > limit:
            break
        boundary = max(boundary, position)
        position += len(cluster)
    return limit if limit - boundary > MAX_CLUSTER else boundary


def _certain_boundary(part: PartLedger, floor: int, limit: int) -> int:
    """Where to begin breaking: as near to `limit` as the text has a boundary beyond doubt."""
    start = max(floor, limit - _WINDOW)
    nearest = floor
    for match in _CERTAIN.finditer(part.text(start, limit)):
        nearest = start + match.end()
    return nearest
