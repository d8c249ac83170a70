"""Overload: who is served next, how long that takes, and what is done with less."""

from gateway.overload.degradation import degrade
from gateway.overload.turns import Turn, Turns

__all__ = ["Turn", "Turns", "degrade"]
