# pyright: reportUnknownMemberType=false
# transformers declares some of its types in part only.
"""From a request's prompt or messages to tokens, by the model's own tokenizer and chat template.

What a user writes inside a message is text, whatever it looks like: `<|im_end|>` typed into a chat
ends nothing. A chat template puts special tokens around the messages as plain strings, so the
tokenizer could not tell them from the user's. Here those of the template are renamed to something
that nobody can type, before the text is split; the user's are then split as any other text.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from jinja2 import TemplateError
from tokenizers import AddedToken, Tokenizer

from engine.errors import EngineRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedTokenizerFast

    from engine.frames import ChatMessage, Tool
    from engine.sampling.grammar import GrammarState

NORMALISED_SHARE = 4
"""How many bytes of a text may become one when a tokenizer normalises it (composing accents, say);
generous, for it only decides which prompts are refused unread.
"""


class Encoded(NamedTuple):
    """A request's text as tokens."""

    prompt: list[int]
    at_start: bool
    """Whether the completion begins a text of its own."""
    prediction: list[int]
    """The caller's guess at the output; empty: none."""
    grammar: GrammarState | None = None
    """What the completion must follow, at its beginning."""


class PromptEncoder:
    """Encodes without holding Python's lock for long, so that another thread may do it while the
    engine's goes on. Used by one thread at a time.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        has_chat_template: bool,
        most_tokens: int,
        longest_token: int,
    ) -> None:
        """`most_tokens`: of a prompt. `longest_token` of the vocabulary, in bytes."""
        self._tokenizer = tokenizer
        self._has_chat_template = has_chat_template
        self._most_tokens = most_tokens
        plain = _copy(tokenizer)
        self._plain = plain
        self._bytes_per_token = longest_token * (NORMALISED_SHARE if plain.normalizer else 1)
        self._chat = _Markup(tokenizer)

    def encode(self, prompt: str) -> list[int]:
        """A raw prompt, with what the tokenizer puts before a text (BOS), if anything. Special
        tokens may be written into it. Raises EngineRequestError when it is longer than the context.
        """
        self._check_length(prompt, "prompt")
        return _ids(self._plain, prompt, add_special_tokens=True)

    def encode_prediction(self, text: str) -> list[int]:
        """A guess at the output, as far as the context could hold it."""
        head = text[: self._most_tokens * self._bytes_per_token]
        return _ids(self._plain, head, add_special_tokens=False)[: self._most_tokens]

    @property
    def template(self) -> str:
        """The chat template's source; empty where there is none."""
        return str(self._tokenizer.chat_template or "")

    def answer_opening(self) -> str:
        """What the template puts in front of an answer; empty where it renders no plain chat."""
        if not self._has_chat_template:
            return ""
        chat = [{"role": "user", "content": "Hello"}]
        try:
            bare, opened = (
                str(
                    self._tokenizer.apply_chat_template(
                        chat, add_generation_prompt=opens, tokenize=False
                    )
                )
                for opens in (False, True)
            )
        except TemplateError:
            return ""
        return opened.removeprefix(bare)

    def encode_chat(
        self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = (), begun: str = ""
    ) -> list[int]:
        """The chat template, up to where the assistant begins, and what it has said by then.

        Raises EngineRequestError when the template refuses the messages, or they are longer than
        the context.
        """
        if not self._has_chat_template:
            raise EngineRequestError(
                "invalid_value", "this model has no chat template: send `prompt`", "messages"
            )
        for message in messages:
            self._check_length(message.content, "messages")
        guard = self._chat.guard
        told = [_each_text(_told(message), guard) for message in messages]
        offered = [_each_text(_offered(tool), guard) for tool in tools] or None
        try:
            text = self._tokenizer.apply_chat_template(
                cast("Any", told),
                tools=cast("Any", offered),
                add_generation_prompt=True,
                tokenize=False,
            )
        except (TemplateError, TypeError) as error:
            reason = self._chat.unguard(str(error))
            raise EngineRequestError(
                "invalid_value", f"the model's chat template refuses this: {reason}", "messages"
            ) from error
        whole = str(text) + self._chat.guard(begun)
        self._check_length(whole, "messages")
        return self._chat.encode(whole)

    def _check_length(self, text: str, param: str) -> None:
        """Refuse a text that is too long however it is split, before it is split."""
        least = -(-len(text.encode("utf-8", "surrogatepass")) // self._bytes_per_token)
        if least > self._most_tokens:
            raise EngineRequestError(
                "context_exceeded",
                f"the prompt has {least} tokens or more; this model takes at most"
                f" {self._most_tokens} and a completion of at least one",
                param,
            )


class _Markup:
    """Encodes rendered chat templates, in which only the template's special tokens count."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = _copy(tokenizer)
        nonce = secrets.token_hex(8)
        self._seam = f"\ufdd0{nonce}\ufdd1"
        added = self._tokenizer.get_added_tokens_decoder()
        specials = {id: token for id, token in added.items() if token.special}
        self._aliases = {
            token.content: f"\ufdd0{nonce}-{id}\ufdd1" for id, token in specials.items()
        }
        self._ids: dict[int, int] = {}
        """The special token that an alias's id stands for."""
        for id, token in specials.items():
            alias = self._aliases[token.content]
            self._tokenizer.add_tokens([_renamed(token, alias)])
            alias_id = self._tokenizer.token_to_id(alias)
            assert alias_id is not None
            self._ids[alias_id] = id
        # The special tokens themselves are text from here on.
        self._tokenizer.encode_special_tokens = True
        longest_first = sorted(self._aliases, key=len, reverse=True)
        either = "|".join(map(re.escape, longest_first)) or r"(?!)"
        self._special = re.compile(either)
        self._begins_special = re.compile(f"(?={either})(.)", re.DOTALL)

    def guard(self, text: str) -> str:
        """With a seam inside everything that looks like a special token."""
        return self._begins_special.sub(lambda match: match[1] + self._seam, text)

    def unguard(self, text: str) -> str:
        return text.replace(self._seam, "")

    def encode(self, rendered: str) -> list[int]:
        """Tokens of a template's output over guarded messages. The template writes BOS itself where
        the model wants one.
        """
        named = self._special.sub(lambda match: self._aliases[match[0]], rendered)
        ids = _ids(self._tokenizer, self.unguard(named), add_special_tokens=False)
        return [self._ids.get(id, id) for id in ids]


def _told(message: ChatMessage) -> dict[str, Any]:
    """A message as chat templates want it."""
    told: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        told["tool_calls"] = [
            {
                "id": _short(call.id),
                "type": "function",
                "function": {"name": call.name, "arguments": _parsed(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        told["tool_call_id"] = _short(message.tool_call_id)
    return told


def _offered(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}


def _parsed(arguments: str) -> Any:
    """Templates write them as JSON again; what is none stays as it is."""
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments


def _short(id: str) -> str:
    """Mistral's template takes nothing but nine letters and digits."""
    if re.fullmatch(r"[A-Za-z0-9]{9}", id) or not id:
        return id
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:9]


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """With every text in it changed, names of fields included."""
    match value:
        case str():
            return change(value)
        case list():
            return [_each_text(each, change) for each in cast("list[Any]", value)]
        case dict():
            fields = cast("dict[str, Any]", value)
            return {change(name): _each_text(each, change) for name, each in fields.items()}
        case _:
            return value


def _copy(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _ids(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool) -> list[int]:
    # Of the library's ways to encode, only those for batches let other threads run.
    return tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids


def _renamed(token: AddedToken, content: str) -> AddedToken:
    return AddedToken(
        content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=False,
        special=False,
    )
