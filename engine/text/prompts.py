"""From a request's prompt or messages to tokens, by the model's own tokenizer and chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import TemplateError

from engine.errors import EngineRequestError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class PromptEncoder:
    """Encodes on the caller's thread; keeps no state of its own."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, has_chat_template: bool) -> None:
        self._tokenizer = tokenizer
        self._has_chat_template = has_chat_template

    def encode(self, prompt: str) -> list[int]:
        """A raw prompt, with what the tokenizer puts before a text (BOS), if anything."""
        return list(self._tokenizer(prompt).input_ids)

    def encode_continuation(self, text: str) -> list[int]:
        """Text that stands in the middle: nothing is put before it."""
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        """The chat template, up to where the assistant begins. Raises EngineRequestError."""
        if not self._has_chat_template:
            raise EngineRequestError(
                "invalid_value", "this model has no chat template: send `prompt`", "messages"
            )
        try:
            text = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
        except TemplateError as error:
            raise EngineRequestError(
                "invalid_value", f"the model's chat template refuses this: {error}", "messages"
            ) from error
        # The template writes BOS itself where the model wants one.
        return self.encode_continuation(str(text))
