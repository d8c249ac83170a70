"""The stages in their order, and where each leaves what the next one reads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import torch

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import EngineConfigError
from engine.loading.checkpoint import load_checkpoint
from engine.loading.head import load_head
from engine.loading.parts import model_shape
from engine.training import documents
from engine.training.data import Author, held_out_seeds, write_data, write_held_out
from engine.training.evaluation import Judge, evaluate, table
from engine.training.export import export, trainable
from engine.training.head import TrainableHead
from engine.training.served import ServedHead, evaluate_served
from engine.training.target import Target
from engine.training.trainer import Progress, Trainer
from engine.training.vocabulary import coverage, most_frequent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from engine.loading.head import DraftHead
    from engine.training.config import TrainingConfig
    from engine.training.documents import Documents
    from engine.training.evaluation import Figures

STAGES = ("data", "vocabulary", "train", "export", "held-out", "evaluate")
REPORT_EVERY = 10
"""Batches between two lines about the loss."""


class Place(NamedTuple):
    """Where a run happens: nothing here changes what a seed gives, but for the last four."""

    folder: Path
    model: str
    device: str = "cpu"
    threads: int | None = None
    documents: Path | None = None
    """Documents to train on; None: those of the stage "data"."""
    head: Path | None = None
    """Head to evaluate; None: the one exported."""
    dtype: str | None = None
    """Of the target to evaluate against; "served": as the engine runs it."""
    begin: Path | None = None
    """Head to start from; None: random weights."""


class Recipe:
    def __init__(self, config: TrainingConfig, place: Place, tell: Callable[[str], None]) -> None:
        """Raises EngineConfigError where the device is not there."""
        if place.device.startswith("cuda") and not torch.cuda.is_available():
            raise EngineConfigError("this torch sees no CUDA device", "device")
        self._config, self._place, self._tell = config, place, tell
        self._threads = place.threads or len(os.sched_getaffinity(0))
        torch.set_num_threads(self._threads)
        self._checkpoint = load_checkpoint(place.model)
        self._shape = model_shape(self._checkpoint.config)

    def run(self, stage: str) -> list[str]:
        """One of `STAGES`; gives lines for whoever asked. Raises EngineError."""
        match stage:
            case "data":
                return self._data()
            case "vocabulary":
                return self._vocabulary()
            case "train":
                return self._train()
            case "export":
                return self._export()
            case "held-out":
                self._held_out()
                return []
            case "evaluate":
                return self._evaluate()
            case _:
                raise EngineConfigError(f"there are {', '.join(STAGES)}", "stage")

    @property
    def exported(self) -> Path:
        return self._place.folder / "head"

    def _data(self) -> list[str]:
        if self._place.documents is not None:
            return []
        folder = self._place.folder / "data"
        finished = (folder / "tokens.npz").is_file()
        written = self._documents() if finished else self._write_data(folder)
        return [f"{written.count} documents, {len(written.tokens)} tokens"]

    def _write_data(self, folder: Path) -> Documents:
        author = self._author()
        try:
            return write_data(author, self._config, folder)
        finally:
            author.engine.close()

    def _author(self) -> Author:
        engine = Engine(
            EngineConfig(
                model=self._place.model, threads=self._threads, drafter="none", mode="fast"
            ),
            lambda phase, fraction: None,
        )
        return Author(engine, self._checkpoint.tokenizer, self._tell)

    def _documents(self) -> Documents:
        return documents.load(self._place.documents or self._place.folder / "data" / "tokens.npz")

    def _vocabulary(self) -> list[str]:
        self._place.folder.mkdir(parents=True, exist_ok=True)
        written = self._documents()
        begin = self._begin()
        known = (
            most_frequent(written, self._config.draft_vocabulary, self._shape.vocab)
            if begin is None
            else begin.tokens.astype(np.int64)
        )
        np.save(self._place.folder / "vocabulary.npy", known)
        return [f"{len(known)} tokens, {coverage(written, known):.1%} of all that is said"]

    def _begin(self) -> DraftHead | None:
        begin = self._place.begin
        return None if begin is None else load_head(begin, self._shape)

    def _known(self) -> NDArray[np.int64]:
        return np.load(self._place.folder / "vocabulary.npy")

    def _target(self, layers: tuple[int, ...], dtype: str | None = None) -> Target:
        """On a GPU in bfloat16, unless another type is named."""
        usual = "float32" if self._place.device == "cpu" else "bfloat16"
        kind = torch.float32 if (dtype or usual) == "float32" else torch.bfloat16
        return Target(self._checkpoint, layers, dtype=kind, device=self._place.device)

    def _trainer(self) -> tuple[Trainer, Target]:
        begin, known = self._begin(), self._known()
        config = msgspec.structs.replace(self._config, draft_vocabulary=len(known))
        if begin is None:
            target = self._target(config.layers_of(self._shape.layers))
            head = TrainableHead(target.head_shape(config))
            head.initialise(config.seed)
        else:
            target = self._target(begin.feature_layers)
            head = trainable(begin)
        return Trainer(config, target, head, known, self._documents()), target

    def _train(self) -> list[str]:
        trainer, _ = self._trainer()
        recent: list[float] = []

        def tell(progress: Progress) -> None:
            recent.append(progress.loss)
            if progress.step % REPORT_EVERY == 0 or progress.step == self._config.steps:
                self._tell(f"batch {progress.step}: loss {sum(recent) / len(recent):.4f}")
                recent.clear()

        trainer.run(self._place.folder / "checkpoints", tell)
        return [f"trained on {trainer.step} batches"]

    def _export(self) -> list[str]:
        trainer, target = self._trainer()
        trainer.resume(self._place.folder / "checkpoints")
        export(trainer.head, self._known(), target, self._shape.context, self.exported)
        return [f"{self.exported}, after {trainer.step} batches"]

    def _held_out(self) -> dict[tuple[str, float], Documents]:
        author = self._author()
        try:
            return write_held_out(author, self._config, self._place.folder / "held-out")
        finally:
            author.engine.close()

    def _evaluate(self) -> list[str]:
        """Against the texts of the stage "held-out", written here if they are not there yet."""
        texts = self._held_out()
        folder = self._place.head or self.exported
        if self._place.dtype == "served":
            return list(table(self._served(folder, texts)))
        published = load_head(folder, self._shape)
        target = self._target(published.feature_layers, self._place.dtype)
        head = trainable(published).to(target.embedding.device)
        judge = Judge(target, head, published.tokens)
        found: dict[tuple[str, float], Figures] = {}
        for (kind, temperature), written in texts.items():
            self._tell(f"evaluating {kind} at {temperature:g}")
            found[kind, temperature] = evaluate(
                judge, written, temperature, self._config.test_steps
            )
        return list(table(found))

    def _served(
        self, folder: Path, texts: dict[tuple[str, float], Documents]
    ) -> dict[tuple[str, float], Figures]:
        longest = max(int(written.lengths.max()) for written in texts.values())
        served = ServedHead(self._checkpoint, folder, threads=self._threads, longest=longest)
        try:
            return {
                (kind, temperature): evaluate_served(
                    served, written, temperature, held_out_seeds(kind, written.count)
                )
                for (kind, temperature), written in texts.items()
            }
        finally:
            served.close()
