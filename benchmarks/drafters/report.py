"""Results as JSON, and as tables in docs/drafters.md between two markers."""

from __future__ import annotations

import statistics
from pathlib import Path

import msgspec

from benchmarks.drafters.tally import Tally, calibration_error

DOCUMENT = Path(__file__).parents[2] / "docs" / "drafters.md"
BEGIN = "<!-- make bench-drafters writes from here -->"
END = "<!-- to here -->"


class Cell(msgspec.Struct):
    """One drafter on one kind of task at one temperature with so many streams at a time."""

    kind: str
    temperature: float
    streams: int
    drafter: str
    tally: Tally
    speedups: list[float] = []
    """Against no speculation, one per round."""

    @property
    def speedup(self) -> float | None:
        return statistics.median(self.speedups) if self.speedups else None


class Report(msgspec.Struct):
    date: str
    machine: str
    length: int
    """Most tokens per draft; the engine chooses fewer."""
    rounds: int
    cells: list[Cell] = []


def tables(report: Report) -> str:
    about = (
        f"{report.date}, {report.machine}, drafts of at most {report.length} tokens,"
        f" {report.rounds} alternating rounds. Speed: median ratio to no speculation in the same"
        " round. Error: expected calibration error of a token's confidence given that those before"
        f" it are right, in {len(Tally().bins)} bins of equal width, and the number of tokens."
    )
    lines = [about]
    for streams in dict.fromkeys(cell.streams for cell in report.cells):
        title = "One stream" if streams == 1 else f"{streams} streams at a time"
        lines += ["", f"### {title}", "", _row(HEAD), _row(["---"] * len(HEAD))]
        lines += [
            _row(_cells(cell))
            for cell in report.cells
            if cell.streams == streams and cell.drafter != "none"
        ]
    return "\n".join(lines) + "\n"


def write(report: Report, json: Path | None) -> None:
    """Replace what stands between the markers of docs/drafters.md; the JSON goes to `json`."""
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{tables(report)}{END}{after}")


HEAD = ["task", "T", "drafter", "tokens/step", "acceptance by place", "speed", "error (tokens)"]


def _cells(cell: Cell) -> list[str]:
    tally = cell.tally
    speed = cell.speedup
    return [
        cell.kind,
        f"{cell.temperature:g}",
        cell.drafter,
        f"{tally.tokens_per_step:.2f}",
        " ".join(f"{share:.2f}" for share in tally.by_place[:6]) or "–",
        "–" if speed is None else f"{speed:.2f}",
        f"{calibration_error(tally.bins):.3f} ({tally.judged})",
    ]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
