from __future__ import annotations

import pytest

from gateway.access.rules import Rule, rule_for


@pytest.mark.parametrize(
    "path",
    [
        "/metrics/",
        "/v1/upstreams/x",
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


@pytest.mark.parametrize("path", ["/", "/wetink.js", "/playground.css", "/healthz"])
def test_page_and_probe_need_nothing(path: str) -> None:
    assert rule_for(path) is Rule.NOTHING


@pytest.mark.parametrize("path", ["/a/wetink.js", "/wetink.js/", "/.js", "/keys.json", "/x.py"])
def test_what_only_looks_like_a_page_needs_a_key(path: str) -> None:
    assert rule_for(path) is Rule.KEY
