"""Where a draft is attached to another model's text.

Upstream's tokens end where they end. Behind a word the draft model goes on as behind its own: split
by its own tokenizer the text up to there looks as it is used to. White space is another matter:
most tokenizers put it into the token of the word that follows, so that a text which ends with it
looks like nothing the model knows. It is taken back, and the model has to begin with it (token
healing).
To do so with the last word too was tried and is worse: where a word is unlikely, its first letter
alone is likelier, and what follows a word that is spelt out is badly drafted.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LONGEST = 64
"""Code points taken back at most: deeper indentation is rare."""
_SPACE = re.compile(r"\s+\Z")


class Seam(NamedTuple):
    before: str
    """What the draft model is given as said; ..."""
    healed: str
    """... and what it must say first."""


def cut(text: str) -> Seam:
    """`before` + `healed` is `text`."""
    found = _SPACE.search(text, max(0, len(text) - LONGEST))
    at = found.start() if found else len(text)
    return Seam(text[:at], text[at:])


def pattern(healed: str) -> str:
    """As a regular expression: any text that begins with `healed`."""
    return "".join(f"\\x{{{ord(character):X}}}" for character in healed) + r"(?s:.*)"
