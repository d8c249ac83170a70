"""Where text may be cut: the last boundary that no later text can undo.

A finder is given committed text that begins at a boundary and answers how many of its code points
may leave. "3." may go on as "3.14" and "don" as "don't", so a boundary counts once the text behind
it exists. Whitespace belongs to what precedes it and is never changed. No text makes a finder fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import sentencex  # pyright: ignore[reportMissingTypeStubs]
from icu4py.breakers import SentenceBreaker, WordBreaker

Finder: TypeAlias = Callable[[str], int]
"""Committed text since the last boundary → code points up to the last certain one, 0 for none."""


_sentencex: Callable[[str, str], list[str]] = cast("Any", sentencex).segment

_OTHER_SPACES = "\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_ASCII_SPACES = str.maketrans(dict.fromkeys(_OTHER_SPACES, " "))
"""For every whitespace that is not ASCII. sentencex panics at one between a capital and a full stop
("Vitamin C\u00a0."): it counts it as one byte."""
_FULLWIDTH_STOPS = "。！？｡．"
_BEHIND_SENTENCE = re.compile(r"\S{3}|\S+\s")
"""Enough of the next sentence to judge by: "J. D" may be initials, "J. Doe" or "J. He " is not."""
_OPENING_AT_END = re.compile(r"(?:^|\s)[\"'“‘«(\[]+\s*\Z")
"""A quote behind whitespace opens the next sentence, though it looks like the end of this one."""
_LINE_END = re.compile(r"\r\n|\n|\r(?!\Z)|[\u2028\u2029]")  # a last CR may be half of CRLF
_PARAGRAPH_END = re.compile(r"\r?\n(?:[ \t]*\r?\n)+(?=[ \t]*[^\s])")
_CLAUSE_END = re.compile(
    r"[,;:،؛][\"'”’»)\]]*\s+(?=\S)"  # a comma in a number has no space behind it
    r"|[、，；：][”’」』）]*\s*(?=\S)"  # full-width marks need none
    r"|\s[–—-]+\s+(?=\S)|[–—]+(?=[^\s–—])"
)


def token_finder(_locale: str) -> Finder:
    """Text is committed in whole tokens, so every step ends at a boundary."""
    return len


def sentence_finder(locale: str) -> Finder:
    language = _language(locale)

    def find(text: str) -> int:
        position = certain = 0
        for sentence in _sentences(language, text):
            position += len(sentence)
            if _sentence_is_over(text, sentence, position):
                certain = position
        return certain

    return find


def _sentences(language: str, text: str) -> list[str]:
    """`text` in pieces that each hold one sentence, as sentencex sees it; where it panics or loses
    a character, as ICU does.
    """
    plain = text.translate(_ASCII_SPACES)  # one code point for one: lengths stay
    try:
        sentences = _sentencex(language, plain)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic in Rust is no Exception
        sentences = []
    if sum(map(len, sentences)) != len(text):
        return list(SentenceBreaker(text, language))
    return sentences


def _sentence_is_over(text: str, sentence: str, end: int) -> bool:
    following = text[end : end + 1]
    if not following or following.isspace() or _OPENING_AT_END.search(sentence):
        return False
    return sentence.rstrip()[-1:] in _FULLWIDTH_STOPS or bool(_BEHIND_SENTENCE.match(text, end))


def clause_finder(locale: str) -> Finder:
    sentence = sentence_finder(locale)

    def find(text: str) -> int:
        return max(sentence(text), _last_end(_CLAUSE_END, text))

    return find


def word_finder(locale: str) -> Finder:
    def find(text: str) -> int:
        segments = list(WordBreaker(text, locale))
        position = certain = 0
        for index, segment in enumerate(segments):
            if _word_starts(text, position, segment, is_last=index == len(segments) - 1):
                certain = position
            position += len(segment)
        return certain

    return find


def _word_starts(text: str, position: int, segment: str, *, is_last: bool) -> bool:
    """Whether a new word begins for certain with `segment`: behind whitespace, or, in scripts that
    write none, between two of ICU's words (ASCII punctuation stays with the word it touches).
    """
    if position == 0 or segment.isspace():
        return False
    before = text[position - 1]
    if before.isspace():
        return True
    return not is_last and not before.isascii() and segment[0].isalnum()


def line_finder(_locale: str) -> Finder:
    return lambda text: _last_end(_LINE_END, text)


def paragraph_finder(_locale: str) -> Finder:
    return lambda text: _last_end(_PARAGRAPH_END, text)


def _last_end(pattern: re.Pattern[str], text: str) -> int:
    end = 0
    for match in pattern.finditer(text):
        end = match.end()
    return end


def _language(locale: str) -> str:
    """sentencex knows languages, not regions: "pt-BR" → "pt"."""
    return re.split(r"[-_]", locale, maxsplit=1)[0].lower()


FINDERS: dict[str, Callable[[str], Finder]] = {
    "token": token_finder,
    "word": word_finder,
    "clause": clause_finder,
    "sentence": sentence_finder,
    "line": line_finder,
    "paragraph": paragraph_finder,
}
