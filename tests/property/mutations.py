"""Bytes that are nearly right: valid ones with something cut out, put in, doubled or flipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

MOST_EDITS = 3
MOST_BYTES = 8


@st.composite
def mutated(draw: DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, MOST_EDITS))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, MOST_BYTES)))
        match draw(st.sampled_from(("cut out", "put in", "replace", "double", "flip", "end"))):
            case "cut out":
                del data[at:end]
            case "put in":
                data[at:at] = draw(st.binary(max_size=MOST_BYTES))
            case "replace":
                data[at:end] = draw(st.binary(min_size=end - at, max_size=end - at))
            case "double":
                data[at:at] = data[at:end] * draw(st.integers(1, 40))
            case "flip":
                data[at:end] = bytes(byte ^ (1 << draw(st.integers(0, 7))) for byte in data[at:end])
            case _:
                del data[at:]
    return bytes(data)
