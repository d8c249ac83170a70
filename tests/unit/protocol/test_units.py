"""Units; most cases are vectors and properties."""

from __future__ import annotations

import pytest

from protocol import units
from protocol.events import OffsetUnit


@pytest.mark.parametrize("unit", OffsetUnit)
def test_units_refuse_an_offset_outside_the_text(unit: OffsetUnit) -> None:
    for offset in (-1, 4, 100):
        with pytest.raises(ValueError, match="outside"):
            units.index("abc", offset, unit)
    with pytest.raises(ValueError, match="outside"):
        units.index("日本", 7, unit)
