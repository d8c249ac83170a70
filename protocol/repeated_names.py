"""Refuses an object in which one name stands twice (SPEC section 8.1.1).

msgspec keeps the last of the two values; a user who wrote two meant something else.
"""

from __future__ import annotations

import json

from protocol.errors import ErrorCode, RequestError
from protocol.refusals import cut, malformed, quoted


def refuse_repeated_names_json(data: bytes | str) -> None:
    """`data` has been decoded once, so it is valid. Numbers stay strings: a long one is free."""
    try:
        json.loads(data, object_pairs_hook=_pairs, parse_int=str, parse_float=str)
    except RecursionError as error:  # msgspec can go a little deeper
        raise malformed(error, data) from None


def _pairs(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        _refuse_second(name, seen)


def _refuse_second(name: str, seen: set[str]) -> None:
    if name in seen:
        raise RequestError(
            ErrorCode.INVALID_VALUE, f"{quoted(name)} is given twice; give it once", cut(name)
        )
    seen.add(name)


def refuse_repeated_names_msgpack(data: bytes) -> None:
    """`data` has been decoded once, so every length in it can be believed."""
    _Walk(data).value()


class _Walk:
    """Steps over MessagePack values, looking only at the names of maps."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def value(self) -> None:
        """Steps over one value; as deep as msgspec went before, which bounds the recursion."""
        code = self._take(1)
        if code <= 0x7F or code >= 0xE0:  # a small integer
            return
        if code <= 0x8F:
            self._map(code & 0x0F)
        elif code <= 0x9F:
            self._values(code & 0x0F)
        elif code <= 0xBF:
            self._at += code & 0x1F
        elif code in _SIZED:
            length_bytes, extra = _SIZED[code]
            length = self._take(length_bytes)
            self._at += length + extra
        elif code in _ARRAYS:
            self._values(self._take(_ARRAYS[code]))
        elif code in _MAPS:
            self._map(self._take(_MAPS[code]))
        else:
            self._at += _FIXED[code]

    def _map(self, size: int) -> None:
        seen: set[str] = set()
        for _ in range(size):
            start = self._at
            self.value()
            name = _name(self._data[start : self._at])
            if name is not None:
                _refuse_second(name, seen)
            self.value()

    def _values(self, times: int) -> None:
        for _ in range(times):
            self.value()

    def _take(self, size: int) -> int:
        """The next `size` bytes as an unsigned integer."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(taken, "big")


def _name(encoded: bytes) -> str | None:
    """The text of an encoded key; None for a key that is no text."""
    code = encoded[0]
    if 0xA0 <= code <= 0xBF:
        return encoded[1:].decode()
    return encoded[1 + _STRINGS[code] :].decode() if code in _STRINGS else None


# https://github.com/msgpack/msgpack/blob/master/spec.md#formats
_STRINGS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}
# code → (bytes of its length, bytes besides that length): binary, extensions, strings
_SIZED = {
    **{0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0)},
    **{0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)},
    **{code: (size, 0) for code, size in _STRINGS.items()},
}
# code → bytes behind it: nil, booleans, floats, integers, extensions of fixed size
_FIXED = {
    **{0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8},
    **{0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8},
    **{0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17},
}
