"""Whether a draft ahead of an upstream pays: how long it lets its readers wait."""

from __future__ import annotations

PAYS_FROM_FIRST_S = 0.25
"""A shorter wait for the first text is none; to draft meanwhile is not worth it."""
PAYS_FROM_S = 0.007
"""Per code point: slower than some 30 tokens a second, below which a reader sees it."""
TIMES_FASTER = 1.3
"""How much faster than the upstream a draft must come to get ahead of it."""
KNOWN_FROM = 48
"""Code points after which a pace is known."""
MEMORY = 1500.0
"""Code points after which what was seen counts half."""
FIRST_WEIGHT = 0.3
"""Of the latest wait for a first text."""


class Pace:
    """Seconds per code point of one source, over its last texts."""

    def __init__(self) -> None:
        self._characters = 0.0
        self._seconds = 0.0

    def observe(self, characters: int, seconds: float) -> None:
        self._characters += characters
        self._seconds += seconds
        if self._characters > MEMORY:
            self._characters /= 2
            self._seconds /= 2

    @property
    def per_character_s(self) -> float | None:
        """None: not known yet."""
        known = self._characters >= KNOWN_FROM
        return self._seconds / self._characters if known else None


class Worth:
    """Of drafting ahead of one upstream model. As long as little is known of it, drafts are tried;
    its pace is seen without them as well, so that they begin again where it slows down.
    """

    def __init__(self, drafter: Pace) -> None:
        self.upstream = Pace()
        self._drafter = drafter
        self._first_s: float | None = None

    def observe_first(self, seconds: float) -> None:
        """How long a stream's first text took."""
        before = seconds if self._first_s is None else self._first_s
        self._first_s = before + FIRST_WEIGHT * (seconds - before)

    @property
    def before_first(self) -> bool:
        """Whether to draft while its first text is waited for."""
        return self._first_s is None or self._first_s >= PAYS_FROM_FIRST_S

    @property
    def along(self) -> bool:
        """Whether to draft between its texts."""
        pace, ours = self.upstream.per_character_s, self._drafter.per_character_s
        if pace is None:
            return True
        return pace >= PAYS_FROM_S and (ours is None or pace >= TIMES_FASTER * ours)
