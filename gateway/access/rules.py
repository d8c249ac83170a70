"""Which requests need what. Whatever is not named here needs a key."""

from __future__ import annotations

import re
from enum import Enum, auto

PUBLIC_PATHS = frozenset(
    {"/healthz", "/readyz", "/openapi.json", "/asyncapi.json", "/schema.json", "/example.json"}
)
"""What a probe has to reach, and what says no more than the source code does (`example.json`: the
recorded answer that the page begins with)."""
_PAGE = re.compile(r"/([\w-]+\.(css|html|js|png|svg|woff2))?")
"""The pages that come with the gateway, and what they load: the same for everybody."""
MONITORING_PATHS = frozenset({"/metrics", "/v1/upstreams"})
"""They tell of everybody's streams, and where the servers behind the gateway are."""
_EVENTS = re.compile(r"/v1/streams/[^/]+/events")
_SOCKET = "/v1/ws"


class Rule(Enum):
    """What a request has to bring."""

    NOTHING = auto()
    KEY = auto()
    MONITORING_KEY = auto()
    """One made for that alone."""
    KEY_OR_STREAM_TICKET = auto()
    KEY_OR_SOCKET_TICKET = auto()


def rule_for(path: str) -> Rule:
    """`path`: of the URL, decoded."""
    if path in PUBLIC_PATHS or _PAGE.fullmatch(path):
        return Rule.NOTHING
    if path in MONITORING_PATHS:
        return Rule.MONITORING_KEY
    if path == _SOCKET:
        return Rule.KEY_OR_SOCKET_TICKET
    return Rule.KEY_OR_STREAM_TICKET if _EVENTS.fullmatch(path) else Rule.KEY
