"""vLLM as its two sides tell it, for every order in which they may arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hypothesis import strategies as st

from gateway.backends.vllm.messages import Piece, Update

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "wetink-0123456789abcdef0123456789abcdef"


def update(at: int, text: str, draft: str = "") -> Update:
    pieces = [Piece(number, 1, None) for number in range(len(draft))]
    return Update(
        request=NAME, at=at, text=text, draft=draft, pieces=pieces, drafted=0, accepted=0, steps=0
    )


class Telling(NamedTuple):
    """One text: what HTTP brings piece by piece, what the plugin publishes, what comes when."""

    pieces: list[str]
    updates: list[Update]
    order: list[bool]
    """True: the next piece; False: the next update. Whoever is out of items leaves the other."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def play(self, commit: Callable[[str], None], hear: Callable[[Update], None]) -> None:
        pieces, updates = list(self.pieces), list(self.updates)
        for is_piece in self.order:
            if is_piece and pieces:
                commit(pieces.pop(0))
            elif not is_piece and updates:
                hear(updates.pop(0))
        for one in updates:
            hear(one)
        for piece in pieces:
            commit(piece)


def _cut(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=8)))
    ends = [place for place in places if place < len(text)] + [len(text)]
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


# Few letters, so that drafts agree with the text by chance and differ late; one beyond the BMP.
TEXTS = st.text(alphabet="ab \N{GRINNING FACE}", min_size=1, max_size=40)


@st.composite
def tellings(draw: st.DrawFn, *, losses: bool = True) -> Telling:
    text = draw(TEXTS)
    verified = _cut(draw, text)
    updates: list[Update] = []
    at = 0
    for piece in verified:
        behind = text[at + len(piece) :]
        right = behind[: draw(st.integers(0, 6))]
        draft = right + draw(st.text(alphabet="ab", max_size=3))
        # Sometimes the draft comes apart from the verdict, as from the engine's loop.
        if draw(st.booleans()):
            updates.append(update(at, piece))
            updates.append(update(at + len(piece), "", draft))
        else:
            updates.append(update(at, piece, draft))
        at += len(piece)
    if losses:
        kept = draw(st.lists(st.booleans(), min_size=len(updates), max_size=len(updates)))
        updates = [one for one, is_kept in zip(updates, kept, strict=True) if is_kept]
    order = draw(st.lists(st.booleans(), max_size=40))
    return Telling(_cut(draw, text), updates, order)
