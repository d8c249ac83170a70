"""States of an attachment and every transition between them; knows neither role (SPEC section 5.5).

A text event that fits no row here is a protocol violation whoever sends it.
"""

from __future__ import annotations

from enum import Enum, auto

from protocol.events import (
    Commit,
    Error,
    Finish,
    Heartbeat,
    Open,
    Part,
    Retract,
    ServerEvent,
    Tentative,
)


class State(Enum):
    CONNECTING = auto()
    OPEN = auto()
    INTERRUPTED = auto()
    FINISHED = auto()
    FAILED = auto()


class Interruption:
    """Not on the wire: the transport ended without `finish` or `error`."""


class NothingMore:
    """Not on the wire as an event: a resume was answered with HTTP 204, after `finish`."""


Step = type[ServerEvent] | type[Interruption] | type[NothingMore]

_TRANSITIONS: dict[State, dict[Step, State]] = {
    State.CONNECTING: {
        Open: State.OPEN,
        Error: State.FAILED,
        Interruption: State.INTERRUPTED,
        NothingMore: State.FINISHED,
        Heartbeat: State.CONNECTING,
    },
    State.OPEN: {
        Tentative: State.OPEN,
        Commit: State.OPEN,
        Retract: State.OPEN,
        Part: State.OPEN,
        Heartbeat: State.OPEN,
        Finish: State.FINISHED,
        Error: State.FAILED,
        Interruption: State.INTERRUPTED,
    },
    State.INTERRUPTED: {
        Open: State.OPEN,
        Error: State.FAILED,
        Interruption: State.INTERRUPTED,
        NothingMore: State.FINISHED,
        Heartbeat: State.INTERRUPTED,
    },
    State.FINISHED: {
        Interruption: State.FINISHED,
        Heartbeat: State.FINISHED,
    },
    State.FAILED: {
        Interruption: State.INTERRUPTED,
    },
}


def follow(state: State, step: Step) -> State | None:
    """State after `step`; None when the protocol forbids it."""
    return _TRANSITIONS[state].get(step)
