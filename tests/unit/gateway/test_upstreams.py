from __future__ import annotations

from gateway.backends.base import DraftsState, UpstreamState
from gateway.upstreams import shown


def test_command_says_how_many_engines_drafts_are_heard_of() -> None:
    state = UpstreamState(
        name="gpu1",
        dialect="vllm",
        models=["m"],
        priority=0,
        weight=1.0,
        continued={},
        servers=[],
        drafts=DraftsState(engines=2, lost_frames=3, missed_steps=4),
    )
    assert "  drafts of 2 engines are heard; 3 frames lost, 4 steps left out\n" in shown(state)
