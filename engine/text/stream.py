"""From verified and drafted tokens to what a stream's events say: text, tail and `Token`s.

Commit boundaries are token boundaries: a token is committed, and reported, when all the text it
completed can be committed. A token of which some text could still begin a stop string is held back
whole, and every token after it; so is the last token while its bytes are no whole code point, since
it must count what becomes of them at the end. So the `n` of the tokens reported with an event
always sum to the length of its text, each token is reported once, and the tokens reported so far
stand for exactly the text committed so far: what a stream needs to be continued by another engine.

Two exceptions, both at the end of a stream: the token in whose middle a stop string begins counts
only the text before it (and those after it count 0), and bytes that never became a code point are
counted by the last token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.errors import EngineRequestError
from engine.frames import Alternative, Token
from engine.text.detokenizer import Detokenizer
from engine.text.stop import StopMatcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.sampling.alternatives import Alternatives
    from engine.text.detokenizer import TokenTable

DRAFT_REJECTED = "draft_rejected"
STOP_SEQUENCE = "stop_sequence"


class VerifiedText(NamedTuple):
    text: str
    tail: str
    """Verified text held back."""
    cause: str | None
    """Why shown text vanished; None when the earlier tail is a prefix of text + tail."""
    tokens: list[Token]
    """The tokens `text` is made of."""
    consumed: int
    """How many of the tokens given count: up to and including the one that completed a stop
    string.
    """
    stopped: bool


class _Held(NamedTuple):
    id: int
    length: int
    """Code points its bytes completed."""
    logprob: float | None
    top: list[Alternative] | None


class TextStream:
    """The text of one stream. `at_start`: the prompt adds no text (see `Detokenizer`)."""

    __slots__ = ("_detokenizer", "_held", "_held_text", "_shown", "_stop")

    def __init__(self, table: TokenTable, stops: Sequence[str], *, at_start: bool = False) -> None:
        self._detokenizer = Detokenizer(table, at_start=at_start)
        self._stop = StopMatcher(stops)
        self._held: list[_Held] = []
        """Verified tokens not reported yet: at most those of the longest stop string and one."""
        self._held_text = ""
        """Their text."""
        self._shown = ""
        """The tail of the last event: what readers may have on screen."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found: nothing more will be committed."""
        return self._stop.matched

    def resume(self, committed_tokens: Sequence[int], committed_chars: int) -> None:
        """Take up a stream of which an earlier engine reported these tokens, standing for
        `committed_chars` code points of text.

        Raises `EngineRequestError` when they do not. `stopped` afterwards: the earlier engine ended
        at a stop string and did not come to say so.
        """
        text = "".join(self._detokenizer.commit(committed_tokens))
        kept, stopped = self._stop.feed(text)
        expected = len(kept) if stopped else len(text)
        if expected != committed_chars:
            raise EngineRequestError(
                "invalid_value",
                f"the committed tokens stand for {expected} code points, not {committed_chars}",
                "committed_chars",
            )

    def draft(self, tokens: Sequence[int], confidences: Sequence[float]) -> tuple[str, list[Token]]:
        """The whole tail (held-back and drafted text) and the tokens it is made of.

        `confidences` as in `Proposal`: each the chance of all tokens up to there. In the marks each
        stands for its own token (the chance that it is accepted if all before it are), so that
        the chance of any piece of the tail is a product; held-back tokens are verified: 1.
        Only for what is then sent: the tail counts as shown from now on.
        """
        pieces = self._detokenizer.peek(tokens)
        marks = [Token(held.id, held.length, held.logprob, 1.0) for held in self._held]
        before = 1.0
        for token, piece, chance in zip(tokens, pieces, confidences, strict=True):
            own = chance / before if before else 0.0
            marks.append(Token(token, len(piece), None, own))
            before = chance
        self._shown = self._held_text + "".join(pieces)
        return self._shown, marks

    def verify(
        self,
        tokens: Sequence[int],
        logprobs: Sequence[float] | None = None,
        alternatives: Sequence[Alternatives] | None = None,
    ) -> VerifiedText:
        """Commit what can be committed of the held-back and these verified tokens."""
        if self.stopped:
            return VerifiedText("", "", None, [], 0, True)
        # Where the matcher's own held text begins within `text`: before it after a resume.
        cut = len(self._held_text) - len(self._stop.held)
        text = self._held_text
        matched = False
        consumed = 0
        for token in tokens:
            top = None if alternatives is None else self._top(alternatives[consumed])
            piece = self._detokenizer.commit((token,))[0]
            logprob = logprobs[consumed] if logprobs is not None else None
            self._held.append(_Held(token, len(piece), logprob, top))
            consumed += 1
            text += piece
            emitted, matched = self._stop.feed(piece)
            cut += len(emitted)
            if matched:
                break
        if matched:
            return self._commit(text, max(cut, 0), len(self._held), consumed)
        count = self._releasable()
        released = sum(held.length for held in self._held[:count])
        return self._commit(text, released, count, consumed)

    def finish(self, cause: str = DRAFT_REJECTED) -> VerifiedText:
        """The stream ends here: what was held back is committed, incomplete bytes as U+FFFD.

        `cause`: why drafted text that was shown vanishes, if any was.
        """
        rest = "" if self.stopped else self._detokenizer.finish()
        self._stop.flush()
        if rest and self._held:
            last = self._held[-1]
            self._held[-1] = last._replace(length=last.length + len(rest))
        text = self._held_text + rest
        return self._commit(text, len(text), len(self._held), 0, cause)

    def _top(self, alternatives: Alternatives) -> list[Alternative]:
        """With the text that each would complete behind what is committed."""
        peek = self._detokenizer.peek
        return [Alternative(id, peek((id,))[0], logprob) for id, logprob in alternatives]

    def _releasable(self) -> int:
        """How many of the held tokens need not be held any longer."""
        count = len(self._held)
        characters = len(self._stop.held)
        if self._detokenizer.incomplete and count:
            count -= 1
            characters -= self._held[count].length
        while count and characters > 0:
            count -= 1
            characters -= self._held[count].length
        return count

    def _commit(
        self, text: str, cut: int, count: int, consumed: int, cause: str = DRAFT_REJECTED
    ) -> VerifiedText:
        """Commit `text[:cut]`, reporting the first `count` held tokens; the others stay held.

        `text` is all that has been verified and not committed. Text beyond `cut` that belongs to
        reported tokens is that of a stop string, and dropped.
        """
        tokens: list[Token] = []
        end = 0
        for held in self._held[:count]:
            start, end = end, min(end + held.length, cut)
            tokens.append(Token(held.id, end - start, held.logprob, top=held.top))
        del self._held[:count]
        tail = "" if self.stopped else text[cut:]
        shown, remains = self._shown, text[:cut] + tail
        vanished: str | None = None
        if not remains.startswith(shown):
            agreed = shown.startswith(text) or text.startswith(shown)
            vanished = STOP_SEQUENCE if self.stopped and agreed else cause
        self._held_text = self._shown = tail
        return VerifiedText(text[:cut], tail, vanished, tokens, consumed, self.stopped)
