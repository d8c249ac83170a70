"""Make a draft head for a model, in stages that go on where they were stopped.

    .venv/bin/python -m engine.training all --seed 1 [--device cuda] [--folder training-run]

data: the model writes its texts · vocabulary: the tokens a head can say · train · export ·
held-out: texts to judge heads by · evaluate: figures of the head made here, or of --head.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec

from engine.errors import EngineConfigError, EngineError
from engine.training.config import TrainingConfig, tiny
from engine.training.recipe import STAGES, Place, Recipe


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        recipe = Recipe(_config(options), _place(options), tell=_tell)
        stages = STAGES if options.stage == "all" else (options.stage,)
        for stage in stages:
            for line in recipe.run(stage):
                sys.stdout.write(f"{line}\n")
    except EngineConfigError as error:
        _tell(f"{error.param}: {error.message}")
        return 2
    except EngineError as error:
        _tell(str(error))
        return 1
    return 0


def _tell(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


def _config(options: argparse.Namespace) -> TrainingConfig:
    """The preset, with the settings of --set over it."""
    config = tiny(options.seed) if options.tiny else TrainingConfig(seed=options.seed)
    values = msgspec.to_builtins(config)
    for setting in options.set:
        key, _, value = setting.partition("=")
        if key not in values:
            raise EngineConfigError(f"no such setting; there are {', '.join(values)}", key)
        try:
            values[key] = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise EngineConfigError(f"{value!r} is not JSON", key) from error
    try:
        return msgspec.convert(values, TrainingConfig)
    except msgspec.ValidationError as error:
        raise EngineConfigError(str(error), "--set") from error


def _place(options: argparse.Namespace) -> Place:
    return Place(
        folder=options.folder,
        model=options.model,
        device=options.device,
        threads=options.threads,
        documents=options.documents,
        head=options.head,
        dtype=options.dtype,
        begin=options.begin,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m engine.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("stage", choices=[*STAGES, "all"])
    add("--seed", type=int, default=1, help="decides everything that is drawn (default: 1)")
    add("--tiny", action="store_true", help="a run of seconds, for trying the stages")
    add("--set", action="append", default=[], metavar="KEY=JSON", help="change one setting")
    add("--folder", type=Path, default=Path("training-run"), help="of everything written")
    add("--model", default="smollm2-135m-instruct", help="the target (default: the embedded model)")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--threads", type=int, help="compute threads (default: one per core)")
    add("--documents", type=Path, help="train on these documents (.npz) instead of written ones")
    add("--begin", type=Path, help="folder of a head to start from, with its vocabulary")
    add("--head", type=Path, help="evaluate the head in this folder")
    add(
        "--dtype",
        choices=["float32", "bfloat16", "served"],
        help="evaluate against the target in this type; served: as the engine runs it (default:"
        " bfloat16 on a GPU, float32 on a CPU)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
