"""Calls as a model writes them, read as the text comes: the name, then the arguments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.parts.scanning import ValueScanner

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from gateway.parts.dialect import Calls

LONGEST_UNNAMED = 65_536
"""Code points of a call whose name has not come; what is longer is text."""
_SIDE = r'(?:"(?:id|type)"\s*:\s*"[^"\\]*"\s*,\s*)*'
_HEADER = re.compile(
    rf'\{{\s*{_SIDE}"name"\s*:\s*"(?P<name>[^"\\]+)"\s*,\s*{_SIDE}'
    r'"(?:arguments|parameters)"\s*:\s*(?=\S)'
)
_OUTSIDE = re.compile(r"(?P<name>[\w.-]{1,64})\s*(?:\[CALL_ID\][\w-]*)?(?:\[ARGS\])?\s*(?=\{)")
_MAY_BE_OUTSIDE = re.compile(r"[\w.-]{1,64}\s*(?:\[[A-Z_]*\]?[\w-]*){0,2}\s*")


class _Whole(msgspec.Struct):
    name: str
    arguments: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()


class Named(NamedTuple):
    """A call of this name begins."""

    name: str


class Arguments(NamedTuple):
    text: str


class Ended(NamedTuple):
    """No more calls: the first so many code points of the text not consumed belong to them."""

    is_text: bool
    """Whether the rest, with what stood in front of it, is no call but text."""


class CallsReader:
    """Reads from behind the opener on. `held`: text taken in and not yet understood."""

    def __init__(self, calls: Calls, names: AbstractSet[str]) -> None:
        """`names`: of the tools there are. A call of any other is text."""
        self._calls = calls
        self._names = names
        self._scanner: ValueScanner | None = None
        """Of the arguments, while they come."""
        self._inside = False
        """Whether the arguments stand inside the call's own object."""
        self._closing: ValueScanner | None = None
        """Of what is left of the call's own object."""
        self.held = ""
        self.count = 0
        """Calls whose name was said."""

    @property
    def is_open(self) -> bool:
        """Whether a call that was named has not ended."""
        return self._scanner is not None or self._closing is not None

    def feed(self, text: str) -> list[Named | Arguments | Ended]:
        """After `Ended`, `held` is what is left."""
        self.held += text
        found: list[Named | Arguments | Ended] = []
        while self.held:
            step = self._step(found)
            if not step or isinstance(found[-1] if found else None, Ended):
                break
        return found

    def _step(self, found: list[Named | Arguments | Ended]) -> bool:
        """Whether anything was understood."""
        if self._scanner is not None:
            end = self._scanner.feed(self.held)
            text = self._take(len(self.held) if end is None else end)
            if text:
                found.append(Arguments(text))
            if end is not None:
                self._scanner = None
                self._closing = ValueScanner(1) if self._inside else None
            return True
        if self._closing is not None:
            end = self._closing.feed(self.held)
            self._take(len(self.held) if end is None else end)
            if end is not None:
                self._closing = None
            return True
        return self._between(found)

    def _between(self, found: list[Named | Arguments | Ended]) -> bool:
        blank = len(self.held) - len(self.held.lstrip())
        # White space behind a call is consumed only with what follows it: it may be text's.
        rest = self.held[blank:]
        closer = self._calls.closer
        if not rest:
            return False
        if closer and rest.startswith(closer):
            self._take(blank + len(closer))
            found.append(Ended(is_text=False))
            return True
        if closer and closer.startswith(rest):
            return False
        if rest[0] in ",;[" and (rest[0] != "[" or self.count == 0):
            self._take(blank + 1)
            return True
        if rest[0] == "]" and self.count:
            self._take(blank + 1)
            return True
        if rest[0] == "{":
            return self._object(blank, found)
        if self._calls.is_named_outside and self._named_outside(blank, found):
            return True
        if self._calls.is_named_outside and _MAY_BE_OUTSIDE.fullmatch(rest):
            return False
        found.append(Ended(is_text=True))
        return True

    def _object(self, blank: int, found: list[Named | Arguments | Ended]) -> bool:
        rest = self.held[blank:]
        header = _HEADER.match(rest)
        if header is not None:
            if header["name"] not in self._names:
                found.append(Ended(is_text=True))
                return True
            self._take(blank + header.end())
            self._name(header["name"], found, inside=True)
            return True
        end = ValueScanner().feed(rest)
        if end is None:
            if len(rest) > LONGEST_UNNAMED:
                found.append(Ended(is_text=True))
                return True
            return False
        try:
            whole = msgspec.json.decode(rest[:end], type=_Whole)
        except (msgspec.DecodeError, UnicodeEncodeError):
            whole = None
        if whole is None or whole.name not in self._names:
            found.append(Ended(is_text=True))
            return True
        self._take(blank + end)
        self.count += 1
        raw = bytes(whole.arguments) or bytes(whole.parameters) or b"{}"
        found += [Named(whole.name), Arguments(raw.decode())]
        return True

    def _named_outside(self, blank: int, found: list[Named | Arguments | Ended]) -> bool:
        header = _OUTSIDE.match(self.held, blank)
        if header is None or header["name"] not in self._names:
            return False
        self._take(header.end())
        self._name(header["name"], found, inside=False)
        return True

    def _name(self, name: str, found: list[Named | Arguments | Ended], *, inside: bool) -> None:
        self.count += 1
        self._scanner, self._inside = ValueScanner(), inside
        found.append(Named(name))

    def _take(self, count: int) -> str:
        text, self.held = self.held[:count], self.held[count:]
        return text
