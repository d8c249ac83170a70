from __future__ import annotations

import pytest

from gateway.access.rules import Rule, rule_for


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metrics",
        "/healthz/",
        "//healthz",
        "/v1/healthz",
        "/healthz/../v1/models",
        "/v1/ws/",
        "/v1/streams/a/b/events",
        "/v1/streams//events",
        "/v1/streams/a/events/",
        "/v1/streams/a/events\n",
    ],
)
def test_path_that_is_not_named_needs_a_key(path: str) -> None:
    assert rule_for(path) is Rule.KEY
