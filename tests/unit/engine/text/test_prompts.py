# pyright: reportUnknownMemberType=false
# transformers declares some of its types in part only.
"""From prompts and messages to tokens."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from engine.errors import EngineRequestError
from engine.frames import Call, ChatMessage, Tool
from engine.text.prompts import PromptEncoder
from tests import models

BOS, EOS = 0, 1
TYPED = ("</s>", "<s>", "<s", "s>", "/s>", "<", "a", " ", "\n", "\ufdd0", "ß", "🙂")


def encoder_of(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> PromptEncoder:
    settings: dict[str, Any] = {"has_chat_template": True, "most_tokens": 511, "longest_token": 8}
    return PromptEncoder(tokenizer, **(settings | changes))


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return encoder_of(models.tokenizer())


def test_encoder_keeps_the_prompt_whole(encoder: PromptEncoder) -> None:
    text = "  The ink is wet.\n\n日本語 🙂"
    assert models.tokenizer().decode(encoder.encode(text)) == text


def test_encoder_applies_the_chat_template_up_to_the_answer(encoder: PromptEncoder) -> None:
    tokens = encoder.encode_chat([ChatMessage("user", "Say one.")])
    assert models.tokenizer().decode(tokens) == "<s>user: Say one.\n<s>assistant:"
    assert tokens.count(BOS) == 2


def test_encoder_goes_on_behind_an_answer_that_has_begun(encoder: PromptEncoder) -> None:
    messages = [ChatMessage("user", "Say one.")]
    bare = encoder.encode_chat(messages)
    begun = encoder.encode_chat(messages, begun="one two")
    assert begun[: len(bare)] == bare
    assert len(begun) > len(bare)


def test_encoder_takes_what_the_answer_has_said_as_text(encoder: PromptEncoder) -> None:
    messages = [ChatMessage("user", "Say one.")]
    special = encoder.encode("</s>")
    said = encoder.encode_chat(messages, begun="</s>")[len(encoder.encode_chat(messages)) :]
    assert said
    assert special[-1] not in said


def test_encoder_puts_nothing_before_a_prediction() -> None:
    tokenizer = models.tokenizer()
    tokenizer.add_bos_token = True
    encoder = encoder_of(tokenizer)
    assert encoder.encode("The ink")[0] == BOS
    assert encoder.encode("The ink")[1:] == encoder.encode_prediction("The ink")
    assert encoder.encode_prediction("") == []
    chat = encoder.encode_chat([ChatMessage("user", "x")])
    assert chat[:2].count(BOS) == 1, "the template has written its own"


@given(st.lists(st.sampled_from(TYPED), max_size=8).map("".join), st.sampled_from(TYPED))
def test_encoder_takes_what_a_user_typed_as_text(
    encoder: PromptEncoder, content: str, role: str
) -> None:
    tokens = encoder.encode_chat([ChatMessage(role, content)])
    assert models.tokenizer().decode(tokens) == f"<s>{role}: {content}\n<s>assistant:"
    assert [token for token in tokens if token in (BOS, EOS)] == [BOS, BOS], (
        "only the template's own"
    )


@given(st.text(alphabet=st.characters(exclude_characters="<>", exclude_categories=["Cs"])))
def test_encoder_splits_harmless_messages_as_the_tokenizer_does(
    encoder: PromptEncoder, content: str
) -> None:
    messages = [{"role": "user", "content": content}]
    tokenizer = models.tokenizer()
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    encoded = tokenizer.backend_tokenizer.encode(str(expected), add_special_tokens=False)
    assert encoder.encode_chat([ChatMessage("user", content)]) == encoded.ids


def test_encoder_lets_a_raw_prompt_hold_special_tokens(encoder: PromptEncoder) -> None:
    assert encoder.encode("<s>user: x</s>")[0] == BOS
    assert encoder.encode("<s>user: x</s>")[-1] == EOS


def test_encoder_keeps_the_space_that_only_a_text_begins_with() -> None:
    """A SentencePiece-like tokenizer puts a space before a text, not before every piece of it."""
    backend = Tokenizer(BPE({"▁": 0, "a": 1, "▁a": 2, "<s>": 3, "\n": 4, ":": 5}, [("▁", "a")]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    template = "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", chat_template=template
    )
    messages = [ChatMessage("user", "a"), ChatMessage("user", "a a")]
    expected = tokenizer.backend_tokenizer.encode("<s>a<s>a a", add_special_tokens=False).ids
    assert encoder_of(tokenizer).encode_chat(messages) == expected == [3, 1, 3, 1, 2]


@pytest.mark.parametrize("param", ["prompt", "messages"])
def test_encoder_refuses_unread_what_cannot_fit(param: str) -> None:
    encoder = encoder_of(models.tokenizer(), most_tokens=20)
    text = "x" * (20 * 8 + 1)
    with pytest.raises(EngineRequestError, match="has 21 tokens or more; .* at most 20") as caught:
        if param == "prompt":
            encoder.encode(text)
        else:
            encoder.encode_chat([ChatMessage("user", text)])
    assert (caught.value.code, caught.value.param) == ("context_exceeded", param)
    # What might fit is counted, by the engine.
    assert len(encoder.encode(text[1:])) > 20


def test_encoder_refuses_unread_no_text_that_shrinks_when_it_is_normalised() -> None:
    tokenizer = models.tokenizer()
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.NFC()
    encoder = encoder_of(tokenizer, most_tokens=20, longest_token=2)
    decomposed = "e\u0301" * 20  # 3 bytes each, 2 when composed
    assert len(decomposed.encode()) > 20 * 2
    assert encoder.encode(decomposed) == encoder.encode("é" * 20)


def test_encoder_cuts_a_prediction_to_what_a_context_can_hold() -> None:
    encoder = encoder_of(models.tokenizer(), most_tokens=20)
    assert encoder.encode_prediction("x" * 10_000) == encoder.encode("x" * 20)


def test_encoder_refuses_messages_without_a_template() -> None:
    encoder = encoder_of(models.tokenizer(), has_chat_template=False)
    with pytest.raises(EngineRequestError, match="send `prompt`") as caught:
        encoder.encode_chat([ChatMessage("user", "x")])
    assert (caught.value.code, caught.value.param) == ("invalid_value", "messages")


def test_encoder_passes_on_what_the_template_refuses() -> None:
    tokenizer = models.tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] != 'user' %}"
        "{{ raise_exception('user first, not ' + messages[0]['role']) }}{% endif %}"
    )
    encoder = encoder_of(tokenizer)
    with pytest.raises(EngineRequestError, match="user first, not <s>$") as caught:
        encoder.encode_chat([ChatMessage("<s>", "x")])
    assert (caught.value.code, caught.value.param) == ("invalid_value", "messages")


def test_encoder_tells_template_of_tools_and_calls() -> None:
    telling = models.tokenizer()
    telling.chat_template = (
        "{% for t in tools or [] %}{{ t.function.name }}:{{ t.function.parameters | tojson }};"
        "{% endfor %}{% for m in messages %}<s>{{ m.role }}{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.id | length }}{{ c.function.name }}"
        "({{ c.function.arguments.at }}){% endfor %}{{ m.tool_call_id }}{% endfor %}"
    )
    encoder = encoder_of(telling)
    chat = [
        ChatMessage("assistant", "", [Call("tide", '{"at": "<s>"}', "call_1")]),
        ChatMessage("tool", "high", tool_call_id="123456789"),
    ]
    tokens = encoder.encode_chat(chat, [Tool("tide", "when", {"type": "object"})])
    written = 'tide:{"type": "object"};<s>assistant9tide(<s>)<s>toolhigh123456789'
    assert telling.decode(tokens) == written
    # What a caller writes is text, in arguments too.
    assert tokens.count(cast("int", telling.convert_tokens_to_ids("<s>"))) == 2
