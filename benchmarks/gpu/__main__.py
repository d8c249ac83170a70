"""`make bench-gpu`: all the figures of a GPU in one run, as one JSON file and one table.

    python -m benchmarks.gpu [--device cuda:0] [--only steps,exact,served] [--budget-s 600] [--tiny]

A part that fails says so in the report, and the others are measured all the same; the report is
written after every figure, so that what was measured stays when time runs out. `--tiny` runs all of
it with tiny models, on a CPU too: a try of this program, no measurement.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import platform
import sys
import tempfile
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu import served, steps
from benchmarks.gpu.checkpoint import ServedModel, served_model
from benchmarks.gpu.report import Figure, Report
from benchmarks.gpu.shapes import SHAPES, TINY
from engine.devices import chosen_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARTS = ("steps", "exact", "served")
RESULT = Path("benchmarks/results/gpu.json")


class Run:
    """One report, filled part by part within a budget of time."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        self._options = options
        self._begun = time.monotonic()
        tiny = options.tiny
        self.plan = steps.Plan(
            device=device,
            shapes=TINY if tiny else SHAPES,
            context=96 if tiny else 512,
            streams=4 if tiny else 64,
            repeats=2 if tiny else 50,
        )
        cuda = device.type == "cuda"
        self.report = Report(
            when=datetime.datetime.now(datetime.UTC).isoformat(),
            device=torch.cuda.get_device_name(device) if cuda else f"CPU ({platform.machine()})",
            versions={
                "Python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in ("torch", "transformers")},
                "CUDA": str(torch.version.cuda),
            },
            tiny=tiny,
        )
        self._rates: dict[int, float] = {}

    def part(self, name: str, figures: Callable[[], Iterator[Figure]]) -> None:
        if time.monotonic() - self._begun > self._options.budget_s:
            self.report.failures[name] = "not begun: the time was used up"
            self._write()
            return
        begin = time.monotonic()
        try:
            for figure in figures():
                self.report.figures.append(figure)
                sys.stderr.write(f"  {figure.name}: {figure.value:.4g} {figure.unit}\n")
                self._write()
        except Exception as error:  # the others are measured all the same
            traceback.print_exc()
            self.report.failures[name] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        self.report.seconds[name] = round(time.monotonic() - begin, 1)
        self._write()

    def steps(self) -> None:
        bandwidth = 0.0

        def copied() -> Iterator[Figure]:
            nonlocal bandwidth
            bandwidth = steps.copy_bandwidth(self.plan)
            yield Figure("copy bandwidth", "GB/s", bandwidth / 1e9)

        self.part("copy bandwidth", copied)
        for name in self.plan.shapes:
            self.part(
                f"steps {name}", lambda name=name: steps.step_figures(self.plan, name, bandwidth)
            )

    def exact(self) -> None:
        for name in self.plan.shapes:
            self.part(f"exact {name}", lambda name=name: steps.exact_figures(self.plan, name))

    def served(self, folder: Path) -> None:
        model = served_model(folder, tiny=self.report.tiny)
        tokens = 8 if self.report.tiny else 128
        streams = (1, 2) if self.report.tiny else (1, 8, 32, 64)
        self.part("served", lambda: self._served(model, streams, tokens))
        device = self.plan.device
        ours = {n: rate for n, rate in self._rates.items() if n in (streams[0], streams[-2])}
        self.part(
            "transformers",
            lambda: served.transformers_figures(model.folder, device, ours, tokens),
        )

    def _served(
        self, model: ServedModel, streams: tuple[int, ...], tokens: int
    ) -> Iterator[Figure]:
        device = str(self.plan.device)
        server = served.Server(
            "--device", device, "--model", model.spec, "--max-sequences", "64", *model.options
        )
        with closing(_Stopping(server)):
            yield Figure(f"HTTP: start with {model.name}", "s", server.start())
            rounds = 1 if self.report.tiny else 3
            for figure in served.served_figures(server, streams, tokens, rounds, head=model.head):
                if figure.unit == "tokens/s":
                    self._rates[int(figure.name.split()[2])] = figure.value
                yield figure

    def _write(self) -> None:
        self._options.json.parent.mkdir(parents=True, exist_ok=True)
        self._options.json.write_bytes(self.report.json())


class _Stopping:
    def __init__(self, server: served.Server) -> None:
        self.close = server.stop


def main() -> int:
    options = _parser().parse_args()
    device = chosen_device(options.device, "torch")
    if options.tiny:
        # Tiny products are over before further threads are awake, and those wait for cores that
        # others use.
        torch.set_num_threads(1)
    run = Run(options, device)
    with tempfile.TemporaryDirectory(prefix="wetink-gpu-") as folder:
        for name in options.only:
            sys.stderr.write(f"{name}\n")
            if name == "served":
                run.served(Path(folder))
            else:
                getattr(run, name)()
    sys.stdout.write(run.report.table())
    return 1 if run.report.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-gpu", description="All figures of a GPU.")
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    add("--only", type=_parts, default=list(PARTS), metavar="A,B", help=", ".join(PARTS))
    add("--budget-s", type=float, default=1200.0, help="no part begins after this (default: 1200)")
    add("--tiny", action="store_true", help="tiny models: a try of the program, no figures")
    add("--json", type=Path, default=RESULT, metavar="FILE", help=f"default: {RESULT}")
    return parser


def _parts(text: str) -> list[str]:
    chosen = text.split(",")
    for name in chosen:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PARTS)}")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
