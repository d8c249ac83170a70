"""What servers with OpenAI's API understand beyond it.

Sources: vLLM's `ChatCompletionRequest` and `StructuredOutputsParams`, SGLang's `protocol.py`,
llama.cpp's `tools/server/README.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from gateway.config.upstreams import DialectName

_SAME_NAMES = {
    name: name for name in ("top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos")
}
_LLAMA_CPP_NAMES = {
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
    "ignore_eos": "ignore_eos",
}


class Dialect(NamedTuple):
    name: DialectName
    sampling: dict[str, str] = _SAME_NAMES
    """Its names of the sampling parameters that OpenAI's API does not have; others it refuses."""
    continues: Literal["flags", "last_message"] | None = None
    """How it continues an answer in a chat: with `continue_final_message`; or always where the last
    message is the assistant's. None: it does not."""
    token_ids: str | None = None
    """Field that asks for token ids, where it has one."""
    grammars: Literal["structured_outputs", "regex"] | None = None
    """Where it takes a grammar that is no JSON Schema; None: nowhere."""
    chat_max_tokens: str = "max_tokens"
    """What that is called in a chat."""


DIALECTS: dict[str, Dialect] = {
    "compatible": Dialect("compatible"),
    "openai": Dialect("openai", sampling={}, chat_max_tokens="max_completion_tokens"),
    "vllm": Dialect(
        "vllm", continues="flags", token_ids="return_token_ids", grammars="structured_outputs"
    ),
    "sglang": Dialect("sglang", continues="flags", grammars="regex"),
    "llama.cpp": Dialect("llama.cpp", sampling=_LLAMA_CPP_NAMES, continues="last_message"),
    "wetink": Dialect("wetink"),
}

_BY_OWNER = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llama.cpp",
    "wetink": "wetink",
    "openai": "openai",
    "system": "openai",
}


def dialect_of(owner: str | None) -> Dialect:
    """By what `/v1/models` says in `owned_by`."""
    return DIALECTS[_BY_OWNER.get(owner or "", "compatible")]
