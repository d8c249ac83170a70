"""One request's tokens as text, made as vLLM's own detokenizer makes it.

Bytes that complete no code point yet, and special tokens that the request skips, give no text: the
same stream decoder decides, in the same state, so that both come to the same text.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from tokenizers.decoders import DecodeStream

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tokenizers import Tokenizer


class TextLost(Exception):
    """The decoder cannot go on from where it is; vLLM begins anew there, and text may differ."""


class RequestText:
    """Verified text grows; a draft is decoded behind it and leaves no trace."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int] | None, *, skip_special_tokens: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(ids=prompt, skip_special_tokens=skip_special_tokens)
        self.tokens = 0
        """Verified tokens decoded so far."""
        self.length = 0
        """Code points of verified text."""

    def verify(self, ids: Iterable[int]) -> str:
        """The text that they complete. Raises TextLost."""
        pieces: list[str] = []
        for token in ids:
            pieces.append(self._step(self._stream, token))
            self.tokens += 1
        text = "".join(pieces)
        self.length += len(text)
        return text

    def draft(self, ids: Iterable[int]) -> list[tuple[int, str]]:
        """Each token with the text that it completes, were they all verified. Raises TextLost."""
        stream = copy(self._stream)
        return [(token, self._step(stream, token)) for token in ids]

    def _step(self, stream: DecodeStream, token: int) -> str:
        try:
            return stream.step(self._tokenizer, token) or ""
        except Exception as error:  # the library raises the base class for "Invalid prefix"
            raise TextLost(str(error)) from error
