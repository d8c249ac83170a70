"""Stop strings, found in verified text as it arrives, in time linear in its length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import EngineRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_STOP_LENGTH = 512
"""Code points. Each costs a node of the automaton, some 300 bytes, in the process all share."""


class _Node:
    __slots__ = ("children", "depth", "fallback", "match")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.children: dict[str, _Node] = {}
        self.fallback: _Node | None = None
        self.match = 0
        """Length of the longest stop string that ends here; 0: none."""


def _automaton(stops: Sequence[str]) -> _Node:
    """Aho and Corasick, 1975: a trie whose `fallback` is the longest proper suffix in the trie."""
    root = _Node(0)
    for stop in stops:
        node = root
        for character in stop:
            node = node.children.setdefault(character, _Node(node.depth + 1))
        node.match = len(stop)
    level = list(root.children.values())
    for node in level:
        node.fallback = root
    while level:
        deeper: list[_Node] = []
        for node in level:
            for character, child in node.children.items():
                child.fallback = _step(node.fallback, character, root)
                child.match = child.match or child.fallback.match
                deeper.append(child)
        level = deeper
    return root


def _step(node: _Node | None, character: str, root: _Node) -> _Node:
    while node is not None:
        child = node.children.get(character)
        if child is not None:
            return child
        node = node.fallback
    return root


class StopMatcher:
    """Holds back the longest end of the text that could begin a stop string.

    The match that is complete first wins, and of those complete at the same character the longest:
    this depends on the text alone, not on how it was cut into pieces. Text before the match is
    emitted; the stop string and everything after it are dropped.
    """

    __slots__ = ("_node", "_root", "held", "matched")

    def __init__(self, stops: Sequence[str]) -> None:
        """Raises `EngineRequestError` for a stop string that is too long."""
        if not all(stops):
            raise ValueError("a stop string must not be empty")
        for place, stop in enumerate(stops):
            if len(stop) > MAX_STOP_LENGTH:
                raise EngineRequestError(
                    "invalid_value",
                    f"stop[{place}] has {len(stop)} code points; at most {MAX_STOP_LENGTH} are"
                    " allowed",
                    f"stop[{place}]",
                )
        self._root = _automaton(stops)
        self._node = self._root
        self.held = ""
        """Verified text not emitted yet; shorter than the longest stop string."""
        self.matched = False

    def feed(self, text: str) -> tuple[str, bool]:
        """Returns what can be emitted now, and whether a stop string was matched (then, and ever
        after).
        """
        if self.matched or not self._root.children:
            return ("" if self.matched else text), self.matched
        node, root = self._node, self._root
        for i, character in enumerate(text):
            node = node.children.get(character) or _step(node.fallback, character, root)
            if node.match:
                seen = self.held + text[: i + 1]
                self.held, self.matched = "", True
                return seen[: len(seen) - node.match], True
        self._node = node
        seen = self.held + text
        cut = len(seen) - node.depth
        self.held = seen[cut:]
        return seen[:cut], False

    def flush(self) -> str:
        """The text ends here: what was held back is no stop string."""
        rest, self.held = self.held, ""
        self._node = self._root
        return rest
