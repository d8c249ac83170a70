"""Stage "train": AdamW over packed rows; a stopped run goes on bit for bit from its checkpoint."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from engine.errors import EngineError
from engine.training.documents import packed
from engine.training.head import visible_rows
from engine.training.losses import (
    SoftTargets,
    row_weights,
    soft_targets,
    step_weights,
    unrolled_losses,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from engine.training.config import TrainingConfig
    from engine.training.documents import Documents
    from engine.training.head import TrainableHead
    from engine.training.target import Reading, Target

MOMENTS = ("exp_avg", "exp_avg_sq")
EPSILON = 1e-8


class Progress(NamedTuple):
    step: int
    """Batches learnt from."""
    loss: float
    """Of the last: cross-entropy per token of an answer, mean over the steps of the test by their
    weights, in nats.
    """


class RowOrder:
    """An endless order of rows, each pass shuffled by seed and number of the pass alone."""

    def __init__(self, rows: int, seed: int) -> None:
        self._rows, self._seed = rows, seed

    def batch(self, number: int, size: int) -> NDArray[np.int64]:
        """Indices [size] of batch `number`, from 0; it may reach into the next pass."""
        places = np.arange(number * size, (number + 1) * size)
        passes = [
            self._shuffled(one)
            for one in range(places[0] // self._rows, 1 + places[-1] // self._rows)
        ]
        return np.concatenate(passes)[places - places[0] // self._rows * self._rows]

    def _shuffled(self, number: int) -> NDArray[np.int64]:
        return np.random.default_rng((self._seed, number)).permutation(self._rows)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Up in a line, then down along half a cosine. `step` from 0."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    share = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    return config.final_learning_rate + share * (config.learning_rate - config.final_learning_rate)


class Trainer:
    """One run of the training stage. Mutates the head it is given."""

    def __init__(
        self,
        config: TrainingConfig,
        target: Target,
        head: TrainableHead,
        known: NDArray[np.int64],
        documents: Documents,
    ) -> None:
        """`known` [vocabulary of the head] ascending. Raises EngineError where there is no row."""
        self._config, self._target = config, target
        self._device = target.embedding.device
        self.head = head.to(self._device)
        self._known = torch.from_numpy(known).to(self._device)
        self._tokens, self._owner = packed(documents, config.row)
        if not len(self._tokens):
            raise EngineError(f"the documents do not fill one row of {config.row} tokens")
        self._order = RowOrder(len(self._tokens), config.seed)
        self._optimizer = torch.optim.AdamW(
            self.head.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            eps=EPSILON,
            weight_decay=0.0,
        )
        self.step = 0

    def run(self, folder: Path, tell: Callable[[Progress], None]) -> None:
        """Up to the last batch, from the newest checkpoint in `folder` if there is one."""
        folder.mkdir(parents=True, exist_ok=True)
        self.resume(folder)
        while self.step < self._config.steps:
            loss = self.learn()
            tell(Progress(self.step, loss))
            if self.step % self._config.checkpoint_every == 0 or self.step == self._config.steps:
                self.save(folder)

    def learn(self) -> float:
        """One batch; gives its loss (see `Progress`)."""
        config = self._config
        chosen = self._order.batch(self.step, config.batch)
        rate = learning_rate(config, self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        counted = self._counted(chosen)
        for first in range(0, len(chosen), config.rows_at_once):
            part = chosen[first : first + config.rows_at_once]
            loss = self._loss(part) / counted
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), config.gradient_norm)
        self._optimizer.step()
        self.step += 1
        return total

    def _counted(self, rows: NDArray[np.int64]) -> float:
        """What a batch's losses are divided by: the weights of all its rows in all steps."""
        config = self._config
        owner = torch.from_numpy(self._owner[rows])
        weights = step_weights(config.test_steps, config.step_decay)
        return max(
            sum(
                float(row_weights(owner, step, config.prompt_weight).sum()) * weight
                for step, weight in enumerate(weights)
            ),
            1.0,
        )

    def _loss(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Weighted sum over all rows and steps."""
        config = self._config
        tokens = torch.from_numpy(self._tokens[rows]).to(self._device)
        owner = torch.from_numpy(self._owner[rows]).to(self._device)
        visible = visible_rows(owner)
        reading = self._target.read(tokens, visible)
        targets = self._targets(reading)
        with self._precision():
            steps = self.head.unroll(
                reading.features.float(),
                tokens,
                self._target.embedding,
                visible,
                config.test_steps,
            )
            losses = unrolled_losses(steps, targets, owner, config.prompt_weight)
            weights = step_weights(config.test_steps, config.step_decay)
            terms = [loss * weight for loss, weight in zip(losses, weights, strict=True)]
        return torch.stack(terms).sum()

    def _targets(self, reading: Reading) -> SoftTargets:
        """Row by row: logits over the whole vocabulary are the largest tensor of all."""
        parts = [soft_targets(self._target.logits(row), self._known) for row in reading.states]
        return SoftTargets(
            torch.stack([part.probabilities for part in parts]),
            torch.stack([part.known for part in parts]),
        )

    def _precision(self) -> Any:
        if self._device.type == "cpu":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)

    def save(self, folder: Path) -> None:
        """The checkpoint for `resume`; appears whole or not at all, in the place of the last."""
        tensors = dict(self.head.state_dict())
        for name, weight in self.head.named_parameters():
            state = self._optimizer.state.get(weight, {})
            tensors |= {f"{moment}.{name}": state[moment] for moment in MOMENTS if moment in state}
        about = {"step": str(self.step), "config": _identity(self._config)}
        scratch = folder / ".checkpoint.safetensors"
        save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, scratch, about)
        scratch.replace(folder / "checkpoint.safetensors")

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint there, if there is one. Raises EngineError when it was made
        with other settings, which would not give what either run gives.
        """
        path = folder / "checkpoint.safetensors"
        if not path.is_file():
            return
        with safe_open(path, framework="pt") as file:
            about: dict[str, str] = file.metadata()
        if about["config"] != _identity(self._config):
            raise EngineError(f"{path} was made with other settings: {about['config']}")
        tensors = load_file(path, device=str(self._device))
        names = self.head.state_dict().keys()
        self.head.load_state_dict({name: tensors[name] for name in names})
        self.step = int(about["step"])
        if self.step:
            for name, weight in self.head.named_parameters():
                self._optimizer.state[weight] = {
                    "step": torch.tensor(float(self.step)),
                    **{moment: tensors[f"{moment}.{name}"] for moment in MOMENTS},
                }


def _identity(config: TrainingConfig) -> str:
    """What must be the same for a run to go on; how often it is saved need not."""
    same = msgspec.structs.replace(config, checkpoint_every=1)
    return msgspec.json.encode(same).decode()
