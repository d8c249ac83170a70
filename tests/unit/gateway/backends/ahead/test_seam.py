import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.ahead.seam import LONGEST, cut, pattern


def test_seam_takes_white_space_back_and_leaves_words():
    assert cut("a word") == ("a word", "")
    assert cut("def f():\n    ") == ("def f():", "\n    ")
    assert cut("") == ("", "")


@given(st.text(alphabet="ab \n\té", max_size=90))
def test_seam_loses_nothing(text: str):
    before, healed = cut(text)
    assert before + healed == text
    assert len(healed) <= LONGEST
    assert not healed or healed.isspace()


def test_pattern_lets_through_what_begins_with_the_healed_text_and_nothing_else():
    # The engine's notation for a code point is not Python's.
    python = re.sub(r"\\x\{([0-9A-F]+)\}", lambda m: f"\\u{int(m[1], 16):04x}", pattern("\n  "))
    assert re.fullmatch(python, "\n  return x\n")
    assert not re.fullmatch(python, "\n return x")
