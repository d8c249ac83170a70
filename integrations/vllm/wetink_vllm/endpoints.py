"""Where each engine of one vLLM publishes."""

from __future__ import annotations


def endpoint_of(first: str, rank: int) -> str:
    """Of the engine with this data-parallel rank: a port of its own, counted on from the first's;
    for `ipc://` a path of its own.
    """
    if rank == 0:
        return first
    if first.startswith("tcp://"):
        address, _, port = first.rpartition(":")
        return f"{address}:{int(port) + rank}"
    return f"{first}-{rank}"
