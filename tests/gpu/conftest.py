"""Checkpoints of the tests that need a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import models

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def near(tiny: Path) -> Path:
    """A draft model that is right about every second time."""
    return models.write_near(tiny.with_name("near"), tiny, distance=0.05)
