"""What a voice is given for a text: the same words in the same places, without what is no speech.

Every code point stays where it is, so that places in the speech are places in the text. Numbers and
abbreviations are the voice's business: espeak-ng says "3.14" and "Dr." itself, in its own language.
"""

from __future__ import annotations

import re

_NO_SPEECH = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]"  # espeak-ng takes commands behind a \x01
    r"|^[ \t]*(?:\#{1,6}(?=\s)|>+|[-*+](?=\s))"  # headings, quotations, lists
    r"|`+|~~"
    r"|\*+(?=[^\s*])|(?<=[^\s*])\*+"  # emphasis; " * " is a product
    r"|(?<!\w)_+(?=\w)|(?<=\w)_+(?!\w)"
    r"|\[(?=[^\]\n]*\]\()|(?<=[^\s\]])\]\([^)\s]*\)",  # [what a link says](where it leads)
    re.MULTILINE,
)


def speech(text: str) -> str:
    """`text` with blanks for the marks of Markdown and for control characters."""
    return _NO_SPEECH.sub(lambda mark: " " * len(mark[0]), text)
