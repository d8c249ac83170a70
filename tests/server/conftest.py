from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.server.gateways import Served, hand_served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    async with hand_served() as running:
        yield running
