"""A vLLM request as far as the plugin reads one, over a tokenizer of single bytes."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

NAME = "wetink-0123456789abcdef0123456789abcdef"
END = 256
"""The special token that ends a text."""


def byte_tokenizer() -> Tokenizer:
    """Token n is byte n, so that a code point takes several tokens."""
    # ByteLevel's letters for bytes: printable ones stand for themselves, the others come after.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain}
    letters |= {byte: chr(256 + place) for place, byte in enumerate(rest)}
    vocabulary = {letter: byte for byte, letter in letters.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens([AddedToken("<end>")])  # pyright: ignore[reportUnknownMemberType]
    return tokenizer


def tokens(text: str) -> list[int]:
    return list(text.encode())


class Params:
    def __init__(self) -> None:
        self.eos_token_id: int | None = END
        self.stop_token_ids: list[int] = []
        self.skip_special_tokens = True
        self.include_stop_str_in_output = False


class Request:
    def __init__(self, name: str | None = NAME) -> None:
        self.request_id = f"chatcmpl-{name or 'somebody-elses'}-1a2b3c4d"
        self.prompt_token_ids = tokens("prompt: ")
        self.output_token_ids: list[int] = []
        self.spec_token_ids: list[int] = []
        self.sampling_params = Params()
        self.finished = False

    def is_finished(self) -> bool:
        return self.finished
