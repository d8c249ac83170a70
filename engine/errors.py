"""The engine's exceptions: whose fault decides the class."""

from __future__ import annotations


class EngineError(Exception):
    """Base of every exception the engine raises."""


class EngineConfigError(EngineError):
    """The operator asked for what cannot run; `param` names the setting."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class EngineRequestError(EngineError):
    """A user's request cannot run; travels as `Rejected` (codes as in the public error body)."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class IntegrityError(EngineError):
    """A bookkeeping invariant does not hold: our bug, never caught and continued."""
