from __future__ import annotations

import pytest

from wetink_vllm.endpoints import endpoint_of
from wetink_vllm.versions import is_tried


@pytest.mark.parametrize(
    ("first", "rank", "endpoint"),
    [
        ("tcp://127.0.0.1:5757", 0, "tcp://127.0.0.1:5757"),
        ("tcp://127.0.0.1:5757", 3, "tcp://127.0.0.1:5760"),
        ("ipc:///run/drafts", 2, "ipc:///run/drafts-2"),
    ],
)
def test_engine_publishes_at_an_address_of_its_own(first: str, rank: int, endpoint: str) -> None:
    assert endpoint_of(first, rank) == endpoint


def test_patch_release_of_a_version_that_was_tried_counts_as_tried() -> None:
    assert is_tried("0.32.1")
    assert not is_tried("0.33.0")
    assert not is_tried("0.3.2")
