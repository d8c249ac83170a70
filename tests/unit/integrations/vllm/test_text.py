from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.integrations.vllm.requests import END, byte_tokenizer, tokens
from wetink_vllm.text import RequestText

TOKENIZER = byte_tokenizer()


def request_text(*, skip_special_tokens: bool = True) -> RequestText:
    return RequestText(TOKENIZER, tokens("hello "), skip_special_tokens=skip_special_tokens)


def test_text_holds_back_bytes_that_complete_no_code_point() -> None:
    text = request_text()
    first, *rest = tokens("\N{GRINNING FACE}")
    assert text.verify([first]) == ""
    assert text.verify(rest) == "\N{GRINNING FACE}"
    assert (text.tokens, text.length) == (4, 1)


def test_draft_leaves_no_trace_in_the_text() -> None:
    text = request_text()
    first, *rest = tokens("\N{GRINNING FACE}")
    text.verify([first])
    assert text.draft(rest)[-1] == (rest[-1], "\N{GRINNING FACE}")
    assert text.draft(tokens("x")) != []
    assert text.verify(rest) == "\N{GRINNING FACE}"


def test_text_leaves_out_special_tokens_that_the_request_skips() -> None:
    assert request_text().verify([*tokens("a"), END, *tokens("b")]) == "ab"
    shown = request_text(skip_special_tokens=False).verify([*tokens("a"), END, *tokens("b")])
    assert shown == "a<end>b"


@given(said=st.text(max_size=12), cut=st.integers(0, 60))
def test_verified_text_is_the_same_wherever_steps_end(said: str, cut: int) -> None:
    ids = tokens(said)
    text = request_text()
    parts = [text.verify(ids[:cut])]
    text.draft(tokens("draft"))
    parts.append(text.verify(ids[cut:]))
    assert "".join(parts) == said
    assert text.length == len(said)
