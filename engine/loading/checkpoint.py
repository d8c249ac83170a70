"""Open a checkpoint: weights as they lie in safetensors, configuration, tokenizer.

No pickle file is ever opened and no code from a checkpoint is ever run.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer

from engine.errors import EngineError
from engine.loading.blocks import BLOCKS_FILE
from engine.loading.pull import (
    EMBEDDED_MODEL,
    LAYOUT,
    Progress,
    PullError,
    build_once,
    cache_folder,
    convert_gguf,
    pull,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

SUPPORTED_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]


class CheckpointError(EngineError):
    """The checkpoint cannot be used. `code`: `model_not_found`, `unsupported_checkpoint`,
    `unsupported_architecture`, `unsupported_tokenizer` or `broken_checkpoint`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class GenerationDefaults(msgspec.Struct, frozen=True):
    """Sampling settings of generation_config.json; None where it has none."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    name: str
    config: PretrainedConfig
    folder: Path
    tokenizer: PreTrainedTokenizerFast
    has_chat_template: bool
    defaults: GenerationDefaults
    eos_token_ids: frozenset[int]
    special_token_ids: frozenset[int]

    def tensors(self, dtype: str | None) -> dict[str, torch.Tensor]:
        """Weights by Hugging Face name in `dtype` ("float32", "bfloat16", "float16"; None: as they
        are). May be mapped from the file: read-only. `lm_head.weight` is absent where
        `config.tie_word_embeddings`. Raises `CheckpointError`.
        """
        return _load_tensors(self.folder, None if dtype is None else DTYPES[dtype])

    @property
    def blocks(self) -> Path | None:
        """The quantised weights of the GGUF file it was converted from, if the kernels take them as
        they are.
        """
        path = self.folder / BLOCKS_FILE
        return path if path.is_file() else None


def no_progress(phase: str, fraction: float | None) -> None:
    """For callers who do not watch."""


def load_checkpoint(spec: str, progress: Progress = no_progress) -> Checkpoint:
    """Open `spec`: a Hugging Face directory, a GGUF file (converted once into the cache, in
    bfloat16), the embedded model's name (fetched when absent) or a hub name.

    Weights are read later, by `Checkpoint.tensors`. Raises `CheckpointError`.
    """
    name, folder = _locate(spec, progress)
    config = _load_config(folder)
    tokenizer = _load_tokenizer(folder)
    _weight_files(folder)
    settings = _read_json(folder / "generation_config.json")
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return Checkpoint(
        name=name,
        config=config,
        folder=folder,
        tokenizer=tokenizer,
        has_chat_template=bool(tokenizer.chat_template),
        defaults=_defaults(settings),
        eos_token_ids=_ids(settings.get("eos_token_id"))
        | _ids(config.eos_token_id)
        | _ids(tokenizer.eos_token_id),
        special_token_ids=frozenset(id for id, token in added.items() if token.special),
    )


def _locate(spec: str, progress: Progress) -> tuple[str, Path]:
    """(name, Hugging Face directory)."""
    path = Path(spec).expanduser()
    try:
        if path.is_dir():
            return path.resolve().name, path
        if path.is_file():
            return path.stem, _converted(path.resolve(), progress)
        if spec == EMBEDDED_MODEL:
            return spec, pull(progress)
    except PullError as error:
        raise CheckpointError("broken_checkpoint", error.message) from error
    if HUB_NAME.fullmatch(spec):
        return spec, _from_hub(spec, progress)
    raise CheckpointError(
        "model_not_found",
        f"{spec!r} is no model: give a Hugging Face directory, a .gguf file, a hub name"
        f" (owner/name) or {EMBEDDED_MODEL!r}",
    )


def _converted(path: Path, progress: Progress) -> Path:
    """The directory made from a GGUF file; made anew when the file has changed."""
    if path.suffix != ".gguf":
        raise CheckpointError(
            "unsupported_checkpoint",
            f"{path.name} is a single file that is no .gguf; only GGUF files and directories with"
            " safetensors are opened (never pickle files)",
        )
    state = path.stat()
    identity = f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0{LAYOUT}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    target = cache_folder() / "converted" / f"{path.stem}-{key}"

    return build_once(target, lambda folder: convert_gguf(path, folder, progress), progress)


def _from_hub(name: str, progress: Progress) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    progress(f"fetching {name} from the hub", None)
    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            "model_not_found",
            f"{name!r} is no directory here, and the hub has no such model (or shows it to its"
            " owners only)",
        ) from error
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        # Its first line is the reason; what follows is advice for users of its own library.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            "model_not_found", f"{name!r} is no directory here, and the hub says: {reason}"
        ) from error


def _load_config(folder: Path) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise CheckpointError(
            "broken_checkpoint", f"{folder.name}: config.json cannot be used: {error}"
        ) from error
    architectures = config.architectures or []
    if not architectures or architectures[0] not in SUPPORTED_ARCHITECTURES:
        raise CheckpointError(
            "unsupported_architecture",
            f"{folder.name} is {', '.join(architectures) or 'of unknown architecture'};"
            f" supported: {', '.join(SUPPORTED_ARCHITECTURES)}",
        )
    if getattr(config, "sliding_window", None) is not None:
        raise CheckpointError(
            "unsupported_architecture",
            f"{folder.name} uses sliding window attention ({config.sliding_window} tokens);"
            " supported: full attention only (sliding_window null)",
        )
    if getattr(config, "quantization_config", None) is not None:
        raise CheckpointError(
            "unsupported_checkpoint",
            f"{folder.name} is quantised; supported: plain safetensors and GGUF files",
        )
    return config


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (ValueError, OSError, KeyError) as error:
        raise CheckpointError(
            "unsupported_tokenizer", f"{folder.name}: no tokenizer can be made: {error}"
        ) from error
    if not tokenizer.is_fast:
        raise CheckpointError(
            "unsupported_tokenizer",
            f"{folder.name} has no fast tokenizer: tokenizer.json is needed",
        )
    return tokenizer


def _load_tensors(folder: Path, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (the file itself is not iterable)
                    tensor = file.get_tensor(name)
                    tensors[name] = tensor if dtype is None else tensor.to(dtype)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                "broken_checkpoint", f"{path.name} cannot be read: {error}"
            ) from error
    return tensors


def _weight_files(folder: Path) -> list[Path]:
    index = _read_json(folder / "model.safetensors.index.json")
    if index:
        return [folder / name for name in _shards(index)]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    pickles = [path.name for pattern in PICKLE_PATTERNS for path in folder.glob(pattern)]
    if pickles:
        raise CheckpointError(
            "unsupported_checkpoint",
            f"{folder.name} has its weights in {', '.join(sorted(pickles))}: pickle files can run"
            " code and are not opened; convert them to safetensors",
        )
    raise CheckpointError(
        "broken_checkpoint",
        f"{folder.name} has neither model.safetensors nor model.safetensors.index.json",
    )


def _shards(index: dict[str, Any]) -> list[str]:
    """File names of an index; what is not in the checkpoint's own folder is not opened."""
    try:
        names = set(msgspec.convert(index.get("weight_map"), dict[str, str]).values())
    except msgspec.ValidationError as error:
        raise CheckpointError(
            "broken_checkpoint", f"model.safetensors.index.json: weight_map: {error}"
        ) from error
    outside = [name for name in sorted(names) if Path(name).name != name]
    if outside:
        raise CheckpointError(
            "broken_checkpoint",
            f"model.safetensors.index.json names {outside[0]!r}, which is no file of its folder",
        )
    return sorted(names)


def _read_json(path: Path) -> dict[str, Any]:
    """{} when there is no such file."""
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise CheckpointError("broken_checkpoint", f"{path.name}: {error}") from error


def _defaults(settings: dict[str, Any]) -> GenerationDefaults:
    wanted = {key: settings.get(key) for key in GenerationDefaults.__struct_fields__}
    try:
        return msgspec.convert(wanted, GenerationDefaults)
    except msgspec.ValidationError as error:
        raise CheckpointError("broken_checkpoint", f"generation_config.json: {error}") from error


def _ids(value: Any) -> frozenset[int]:
    """An entry that may be absent, one id or a list of ids."""
    if value is None:
        return frozenset()
    return frozenset(value if isinstance(value, list) else [value])
