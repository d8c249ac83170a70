"""Tokens to text, piece by piece, for verified and for drafted tokens.

Each token stands for fixed bytes, so the text of a sequence is the UTF-8 decoding of its tokens'
bytes. `TokenTable` holds those bytes, `Detokenizer` the bytes at the end that are not yet a whole
code point. Promise, whatever the grouping:

    data = b"".join(table.token_bytes(token) for token in tokens)
    "".join(pieces) + finish() == data.decode("utf-8", "replace")

less the leading space which a SentencePiece-style decoder strips from the start of a whole text.
A U+FFFD therefore appears only for bytes the model really wrote, never for a code point cut by a
token boundary. `tokenizer.decode` differs in one case: for invalid bytes made of byte tokens it
writes one U+FFFD per byte.
"""

from __future__ import annotations

import codecs
import json
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from tokenizers import Tokenizer

from engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


PART_MARKS = frozenset(
    {
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[CALL_ID]",
        "[ARGS]",
    }
)
"""Where they are special tokens they have text all the same: readers of an answer's parts go by
it.
"""


class FastTokenizer(Protocol):
    """What is needed of a Hugging Face `PreTrainedTokenizerFast`."""

    @property
    def backend_tokenizer(self) -> Tokenizer: ...


class UnsupportedTokenizerError(EngineError):
    """This tokenizer's decoder cannot be run token by token."""


DecoderSpec: TypeAlias = dict[str, Any]
"""One decoder of tokenizer.json: `type` and what belongs to it."""


def _byte_of_character() -> dict[str, int]:
    """The GPT-2 byte-level alphabet, inverted.

    Printable Latin-1 stands for itself; the other 68 bytes, in order, are U+0100 and up.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(0x100 + i): byte for i, byte in enumerate(others)})
    return table


def _flatten(spec: DecoderSpec) -> Iterable[DecoderSpec]:
    if spec["type"] == "Sequence":
        for inner in spec["decoders"]:
            yield from _flatten(inner)
    else:
        yield spec


class _TokenDecoder:
    """A tokenizer.json decoder, reduced to one function from a token's string to its bytes.

    `strip_left`: how many spaces the start of a whole text loses.
    """

    def __init__(self, spec: DecoderSpec | None) -> None:
        if spec is None:
            raise UnsupportedTokenizerError("the tokenizer has no decoder")
        self._byte_level: dict[str, int] | None = None
        self._replacements: list[tuple[str, str]] = []
        self._byte_fallback = False
        self._fused = False
        self.strip_left = 0
        steps = list(_flatten(spec))
        for step in steps:
            self._add(step, alone=len(steps) == 1)

    def _add(self, step: DecoderSpec, *, alone: bool) -> None:
        match step:
            case {"type": "ByteLevel"} if alone:
                self._byte_level = _byte_of_character()
            case {"type": "Replace", "pattern": {"String": str(pattern)}, "content": str(content)}:
                self._replacements.append((pattern, content))
            case {"type": "ByteFallback"}:
                self._byte_fallback = True
            case {"type": "Fuse"}:
                self._fused = True
            case {"type": "Strip", "content": " ", "start": int(start), "stop": 0} if self._fused:
                # Before Fuse it would strip every token.
                self.strip_left = start
            case _:
                raise UnsupportedTokenizerError(
                    f"tokenizer decoder {json.dumps(step, ensure_ascii=False)} cannot be run token"
                    " by token; supported: ByteLevel alone, or a Sequence of Replace (of a string),"
                    " ByteFallback, Fuse and Strip (of spaces at the start, after Fuse)"
                )

    def __call__(self, token: str) -> bytes:
        if self._byte_level is not None:
            try:
                return bytes([self._byte_level[character] for character in token])
            except KeyError:
                # An added token written in plain text.
                return token.encode("utf-8")
        for pattern, content in self._replacements:
            token = token.replace(pattern, content)
        if self._byte_fallback and len(token) == 6 and token[:3] == "<0x" and token[5] == ">":
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                pass
        return token.encode("utf-8")


class TokenTable:
    """The bytes of every token of one tokenizer; built once, shared, never changed.

    Special tokens, but for those that mark parts of an answer, and ids without a token have no
    bytes. Raises `UnsupportedTokenizerError`.
    """

    __slots__ = ("_bytes", "_text", "special_ids", "strip_left")

    def __init__(self, tokenizer: FastTokenizer | Tokenizer) -> None:
        backend = tokenizer if isinstance(tokenizer, Tokenizer) else tokenizer.backend_tokenizer
        # The decoder's pickled state is its entry in tokenizer.json.
        state = backend.decoder.__getstate__() if backend.decoder is not None else b"null"
        decode = _TokenDecoder(json.loads(state))
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.special_ids = frozenset(
            id for id, token in backend.get_added_tokens_decoder().items() if token.special
        )
        self.strip_left = decode.strip_left
        size = max(vocabulary.values(), default=-1) + 1
        self._bytes = [b""] * size
        for token, id in vocabulary.items():
            if token in PART_MARKS:
                self._bytes[id] = token.encode()
            elif id not in self.special_ids:
                self._bytes[id] = decode(token)
        # Most tokens are whole code points: their text is looked up, not decoded.
        self._text = [_text_or_none(data) for data in self._bytes]

    @property
    def longest(self) -> int:
        """Bytes of the longest token, at least 1."""
        return max(1, *map(len, self._bytes)) if self._bytes else 1

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token] if token < len(self._bytes) else b""

    def token_text(self, token: int) -> str | None:
        """The token's text where it is whole code points, else None."""
        return self._text[token] if token < len(self._text) else ""

    def has_text(self, tokens: Iterable[int]) -> bool:
        """Whether any of the tokens adds text: if none of a prompt's do, a text begins after it."""
        return any(self.token_bytes(token) for token in tokens)


def _text_or_none(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


class Detokenizer:
    """The text of one sequence of tokens. State: at most three bytes, and spaces still to strip.

    `at_start`: a whole text begins here (nothing but special tokens before); otherwise this
    continues a text and a leading space belongs to it.
    """

    __slots__ = ("_pending", "_strip", "_table")

    def __init__(self, table: TokenTable, *, at_start: bool = False) -> None:
        self._table = table
        self._pending = b""
        self._strip = table.strip_left if at_start else 0

    def commit(self, tokens: Sequence[int]) -> list[str]:
        """The text each token completed, "" while its bytes are incomplete."""
        pieces, self._pending, self._strip = self._decode(tokens)
        return pieces

    def peek(self, tokens: Sequence[int]) -> list[str]:
        """What `commit` would return, without committing."""
        return self._decode(tokens)[0]

    @property
    def incomplete(self) -> int:
        """How many bytes at the end are no whole code point yet, 0 to 3."""
        return len(self._pending)

    def finish(self) -> str:
        """The incomplete bytes at the end, as the replacement character; "" if there are none."""
        rest, self._pending = self._pending, b""
        return rest.decode("utf-8", "replace")

    def _decode(self, tokens: Sequence[int]) -> tuple[list[str], bytes, int]:
        table, pending, strip = self._table, self._pending, self._strip
        pieces: list[str] = []
        for token in tokens:
            text = None if pending else table.token_text(token)
            if text is None:
                data = pending + table.token_bytes(token)
                text, used = codecs.utf_8_decode(data, "replace", False)
                pending = data[used:]
            if strip and text:
                kept = text.lstrip(" ")
                dropped = min(strip, len(text) - len(kept))
                text = text[dropped:]
                strip = 0 if text else strip - dropped
            pieces.append(text)
        return pieces, pending, strip
