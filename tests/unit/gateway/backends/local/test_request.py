from __future__ import annotations

from gateway.backends.local.request import start_frame
from protocol.requests import GenerationRequest


def test_engine_is_told_whose_caches_a_stream_may_use() -> None:
    request = GenerationRequest(prompt="x", seed=1)
    frames = [
        start_frame("s", request, want_drafts=False, tenant=tenant) for tenant in ("", "a", "b")
    ]
    assert [frame.salt for frame in frames] == [b"", b"a", b"b"]
