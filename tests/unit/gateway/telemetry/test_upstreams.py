from __future__ import annotations

from gateway.backends.base import DraftsState, UpstreamState
from gateway.telemetry.upstreams import upstream_metrics


def test_metrics_tell_which_drafts_are_heard_and_where_some_were_lost() -> None:
    quiet = UpstreamState(
        name="gpu1", dialect="vllm", models=["m"], priority=0, weight=1.0, continued={}, servers=[]
    )
    drafting = UpstreamState(
        name="gpu2",
        dialect="vllm",
        models=["m"],
        priority=0,
        weight=1.0,
        continued={},
        servers=[],
        drafts=DraftsState(engines=2, lost_frames=3, missed_steps=4),
    )
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in upstream_metrics([quiet, drafting])
        for sample in metric.samples
    }
    assert samples == {
        ("wetink_upstream_drafting_engines", "gpu2"): 2,
        ("wetink_upstream_drafts_lost_total", "gpu2", "on_the_way"): 3,
        ("wetink_upstream_drafts_lost_total", "gpu2", "in_the_engine"): 4,
    }
