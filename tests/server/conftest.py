from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.policies.boundaries import FINDERS
from tests.server.gateways import Served, hand_served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


class Panic(BaseException):
    """As a library in Rust panics: no Exception."""


@pytest.fixture
def failing_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """`chunk` by sentence panics at every text."""

    def finder(_locale: str) -> Callable[[str], int]:
        def find(_text: str) -> int:
            raise Panic

        return find

    monkeypatch.setitem(FINDERS, "sentence", finder)


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    async with hand_served() as running:
        yield running
