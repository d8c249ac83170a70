from __future__ import annotations

import pytest

from protocol.durations import BOUNDS_S, Durations


@pytest.mark.parametrize(("seconds", "place"), [(0.0, 0), (0.005, 0), (0.006, 1), (1e6, 13)])
def test_duration_is_counted_up_to_the_bound_it_does_not_exceed(seconds: float, place: int) -> None:
    durations = Durations()
    durations.add(seconds)
    assert durations.counts.index(1) == place
    assert len(durations.counts) == len(BOUNDS_S) + 1
    assert durations.total_s == seconds
