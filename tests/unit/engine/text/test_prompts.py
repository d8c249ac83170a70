# pyright: reportUnknownMemberType=false
# transformers declares some of its types in part only.
"""From prompts and messages to tokens."""

from __future__ import annotations

import pytest

from engine.errors import EngineRequestError
from engine.text.prompts import PromptEncoder
from tests import models

BOS = 0


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return PromptEncoder(models.tokenizer(), has_chat_template=True)


def test_encoder_keeps_the_prompt_whole(encoder: PromptEncoder) -> None:
    text = "  The ink is wet.\n\n日本語 🙂"
    assert models.tokenizer().decode(encoder.encode(text)) == text


def test_encoder_applies_the_chat_template_up_to_the_answer(encoder: PromptEncoder) -> None:
    tokens = encoder.encode_chat([{"role": "user", "content": "Say one."}])
    assert models.tokenizer().decode(tokens) == "<s>user: Say one.\n<s>assistant:"
    assert tokens.count(BOS) == 2


def test_encoder_puts_nothing_before_a_continuation() -> None:
    tokenizer = models.tokenizer()
    tokenizer.add_bos_token = True
    encoder = PromptEncoder(tokenizer, has_chat_template=True)
    assert encoder.encode("The ink")[0] == BOS
    assert encoder.encode("The ink")[1:] == encoder.encode_continuation("The ink")
    assert encoder.encode_continuation("") == []
    chat = encoder.encode_chat([{"role": "user", "content": "x"}])
    assert chat[:2].count(BOS) == 1, "the template has written its own"


def test_encoder_refuses_messages_without_a_template() -> None:
    encoder = PromptEncoder(models.tokenizer(), has_chat_template=False)
    with pytest.raises(EngineRequestError, match="send `prompt`") as caught:
        encoder.encode_chat([{"role": "user", "content": "x"}])
    assert (caught.value.code, caught.value.param) == ("invalid_value", "messages")


def test_encoder_passes_on_what_the_template_refuses() -> None:
    tokenizer = models.tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}"
    )
    encoder = PromptEncoder(tokenizer, has_chat_template=True)
    with pytest.raises(EngineRequestError, match="user first") as caught:
        encoder.encode_chat([{"role": "assistant", "content": "x"}])
    assert (caught.value.code, caught.value.param) == ("invalid_value", "messages")
