"""Readers that come, cancel and go, in a process of their own: `passers_by.py URL FIRST COUNT`.

Of their own, so that what is measured of the gateway beside them is the gateway's alone.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import wetink

if TYPE_CHECKING:
    from wetink.client import TransportName

AT_ONCE = 8
POLICIES = ("hold", "retract", "chunk:word")


async def pass_by(url: str, number: int) -> None:
    """Reads a stream to its end, or cancels it, or leaves without a word."""
    transport: TransportName = "ws" if number % 2 else "sse"
    cut = number % 5 != 0
    stream = wetink.stream(
        url,
        prompt=f"Chapter {number}. It was",
        policy=POLICIES[number % len(POLICIES)],
        max_tokens=64 if cut else 8,  # a stream that is cut has to be running still
        ignore_eos=True,
        transport=transport,
    )
    async with stream as reading:
        if not cut:
            async for _ in reading:
                pass
        elif number % 3 == 0:
            await reading.cancel()


async def main(url: str, first: int, count: int) -> None:
    numbers = iter(range(first, first + count))

    async def walk() -> None:
        for number in numbers:
            await pass_by(url, number)

    await asyncio.gather(*(walk() for _ in range(AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
