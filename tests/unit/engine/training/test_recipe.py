# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""The whole recipe on a tiny model, and what a stop in its middle leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from engine.errors import EngineConfigError, EngineError
from engine.loading.checkpoint import load_checkpoint
from engine.loading.head import load_head
from engine.loading.parts import model_shape
from engine.training import documents
from engine.training.__main__ import main
from engine.training.config import TrainingConfig, tiny
from engine.training.documents import Document
from engine.training.evaluation import DRAFT_LENGTH, Judge, walk
from engine.training.export import trainable
from engine.training.recipe import STAGES, Place, Recipe
from engine.training.served import ServedHead
from engine.training.target import Target
from engine.training.trainer import RowOrder, learning_rate
from tests.generation import engine_on, generate, request

if TYPE_CHECKING:
    from pathlib import Path

    from engine.frames import Start

CONFIG = tiny()


def place(folder: Path, model: Path) -> Place:
    return Place(folder=folder, model=str(model), threads=1)


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def run(tiny: Path, told: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("training")
    recipe = Recipe(CONFIG, place(folder, tiny), told.append)
    for stage in STAGES:
        told += recipe.run(stage)
    return folder


def tokens_per_step(lines: list[str]) -> list[float]:
    return [float(line.split("|")[4]) for line in lines[2:]]


def test_training_lowers_the_loss(run: Path, told: list[str]) -> None:
    losses = [float(line.split()[-1]) for line in told if "loss" in line]
    assert len(losses) == CONFIG.steps // 10
    assert losses[-1] < 0.8 * losses[0]


def test_trained_head_drafts_better_than_an_untrained_one(
    run: Path, tiny: Path, tmp_path: Path
) -> None:
    untrained = Recipe(msgspec.structs.replace(CONFIG, steps=1), place(tmp_path, tiny), _nobody)
    (tmp_path / "data").symlink_to(run / "data")
    (tmp_path / "held-out").symlink_to(run / "held-out")
    for stage in ("vocabulary", "train", "export"):
        untrained.run(stage)
    before = tokens_per_step(untrained.run("evaluate"))
    after = tokens_per_step(Recipe(CONFIG, place(run, tiny), _nobody).run("evaluate"))
    assert sum(after) > 1.1 * sum(before)


def test_documents_are_as_many_as_asked_for_and_not_written_again(
    run: Path, tiny: Path, told: list[str]
) -> None:
    made = documents.load(run / "data" / "tokens.npz")
    assert len(list(made)) == CONFIG.documents
    heard: list[str] = []
    Recipe(CONFIG, place(run, tiny), heard.append).run("data")
    assert heard == []


def test_data_written_after_a_stop_are_those_of_one_go(
    run: Path, tiny: Path, tmp_path: Path
) -> None:
    written = run / "data"
    for kind in ("instructions", "answers"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for shard in sorted((written / kind).iterdir())[:1]:
            (tmp_path / "data" / kind / shard.name).write_bytes(shard.read_bytes())
    heard: list[str] = []
    Recipe(CONFIG, place(tmp_path, tiny), heard.append).run("data")
    assert not [line for line in heard if line.startswith("instructions: 16 ")]
    again, once = (documents.load(f / "data" / "tokens.npz") for f in (tmp_path, run))
    assert list(again) == list(once)


def test_training_goes_on_bit_for_bit_where_it_was_saved(
    run: Path, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").symlink_to(run / "data")

    class Stopped(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("batch 50"):
            raise Stopped

    Recipe(CONFIG, place(tmp_path, tiny), stop).run("vocabulary")
    with pytest.raises(Stopped):
        Recipe(CONFIG, place(tmp_path, tiny), stop).run("train")
    heard: list[str] = []
    Recipe(CONFIG, place(tmp_path, tiny), heard.append).run("train")
    # It was saved after 40 batches.
    assert heard[0].startswith("batch 50")
    ours, theirs = (
        load_file(folder / "checkpoints" / "checkpoint.safetensors") for folder in (tmp_path, run)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_checkpoint_of_other_settings_is_refused(run: Path, tiny: Path) -> None:
    other = msgspec.structs.replace(CONFIG, learning_rate=0.5)
    with pytest.raises(EngineError, match="other settings"):
        Recipe(other, place(run, tiny), _nobody).run("train")


def start_of(temperature: float) -> Start:
    return request(
        "s",
        "The ink is",
        temperature=temperature,
        seed=4,
        max_tokens=120,
        ignore_eos=True,
        drafter="head",
        draft_length=DRAFT_LENGTH,
    )


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_served_head_walks_as_the_engine_does(run: Path, tiny: Path, temperature: float) -> None:
    """The engine's own count of steps, on the text it writes."""
    engine = engine_on(tiny, draft_head=str(run / "head"), mode="fast")
    start = start_of(temperature)
    prompt = list(engine.encode(start).prompt)
    said = generate(engine, start)["s"]
    engine.close()
    served = ServedHead(load_checkpoint(str(tiny)), run / "head", threads=1, longest=200)
    tokens, steps = served.walk(Document(prompt + said.ids, len(prompt)), temperature, 4)
    served.close()
    # Reading the prompt is the engine's first step, and gives the first token.
    assert (tokens, steps) == (said.counts.completion - 1, said.counts.steps - 1)
    assert steps < 0.9 * tokens


def test_both_evaluations_agree_on_a_greedy_text(run: Path, tiny: Path) -> None:
    checkpoint = load_checkpoint(str(tiny))
    engine = engine_on(tiny, draft_head=str(run / "head"), mode="fast")
    start = start_of(0.0)
    prompt = list(engine.encode(start).prompt)
    document = Document(prompt + generate(engine, start)["s"].ids, len(prompt))
    engine.close()
    published = load_head(run / "head", model_shape(checkpoint.config))
    target = Target(checkpoint, published.feature_layers, dtype=torch.float32, device="cpu")
    judge = Judge(target, trainable(published), published.tokens)
    steps = walk(judge.marks(document, 0.0, 5, seed=0).right[:DRAFT_LENGTH])[1]
    served = ServedHead(checkpoint, run / "head", threads=1, longest=200)
    assert steps == pytest.approx(served.walk(document, 0.0, 0)[1], abs=2)
    served.close()


def test_rows_of_a_pass_come_once_each_and_in_another_order_every_time() -> None:
    order = RowOrder(10, seed=3)
    rows = [row for number in range(5) for row in order.batch(number, 4).tolist()]
    first, second = rows[:10], rows[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_learning_rate_rises_and_falls() -> None:
    config = TrainingConfig(warmup=10, steps=110, learning_rate=1.0, final_learning_rate=0.2)
    rates = [learning_rate(config, step) for step in (0, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.6, 0.2])


def test_command_refuses_an_unknown_setting_by_its_name(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--folder", str(tmp_path), "--model", str(tiny), "--tiny"]
    assert main(["data", *folder, "--set", "speed=9"]) == 2
    assert "speed: no such setting" in capsys.readouterr().err
    assert main(["data", *folder, "--set", "batch=0"]) == 2
    assert "batch" in capsys.readouterr().err


def test_missing_device_is_refused(tiny: Path, tmp_path: Path) -> None:
    asked = place(tmp_path, tiny)._replace(device="cuda:99")
    with pytest.raises(EngineConfigError) as caught:
        Recipe(CONFIG, asked, _nobody)
    assert caught.value.param == "device"


def _nobody(line: str) -> None:
    """Nobody listens."""
