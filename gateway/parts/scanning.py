"""Where a JSON value ends, in text that comes piece by piece."""

from __future__ import annotations

import re

_NOTABLE = re.compile(r'["{}\[\]]')
_IN_STRING = re.compile(r'["\\]')
_SCALAR_END = re.compile(r"[,}\]\s]")


class ValueScanner:
    """Finds the end of one value by its brackets and quotes, without judging what is inside."""

    def __init__(self, depth: int = 0) -> None:
        """`depth`: of objects and lists that are open already."""
        self._depth = depth
        self._in_string = False
        self._escaped = False
        self._begun = depth > 0
        self._scalar = False

    def feed(self, text: str) -> int | None:
        """How much of `text` belongs to the value, if that ends in it; None: all of it does."""
        place = 0
        if not self._begun and text:
            self._begun = True
            self._scalar = text[0] not in '{["'
        if self._scalar:
            end = _SCALAR_END.search(text)
            return None if end is None else end.start()
        while place < len(text):
            if self._escaped:
                self._escaped = False
                place += 1
                continue
            found = (_IN_STRING if self._in_string else _NOTABLE).search(text, place)
            if found is None:
                return None
            place = found.end()
            match found[0]:
                case "\\":
                    self._escaped = True
                case '"':
                    self._in_string = not self._in_string
                case "{" | "[":
                    self._depth += 1
                case _:
                    self._depth -= 1
            if self._depth <= 0 and not self._in_string:
                return place
        return None
