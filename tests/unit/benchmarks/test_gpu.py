"""The benchmark of GPUs: what it says of its figures, and that all of it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.report import Figure, Report

ROOT = Path(__file__).parents[3]


def test_a_figure_meets_its_bar_in_its_own_sense() -> None:
    assert Figure("a", "ms", 1.0, 1.0, "at most").met
    assert not Figure("a", "ms", 1.1, 1.0, "at most").met
    assert Figure("a", "×", 2.0, 1.7).met
    assert not Figure("a", "×", 1.6, 1.7).met
    assert Figure("a", "×", 1.6).met is None


def test_table_shows_figures_bars_and_failures() -> None:
    figures = [Figure("a step", "ms", 1.25, 1.0, "at most"), Figure("copy", "GB/s", 3000.0)]
    report = Report("2026-01-01T00:00", "H100", {"torch": "2"}, tiny=False, figures=figures)
    report.failures["served"] = "no port"
    table = report.table()
    assert "| a step | 1.25 ms | at most 1 | missed |" in table
    assert "| copy | 3000 GB/s |  |  |" in table
    assert "served failed: no port" in table
    assert json.loads(report.json())["figures"][0]["wanted"] == 1.0


@pytest.mark.heavy
def test_all_of_it_runs_with_tiny_models_on_a_cpu(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--json", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = [figure["name"] for figure in json.loads(path.read_bytes())["figures"]]
    for part in (
        "copy bandwidth",
        "8B, 1 stream",
        "exact: rows that changed bits",
        "head ÷ no drafts",
    ):
        assert any(part in name for name in names), part
