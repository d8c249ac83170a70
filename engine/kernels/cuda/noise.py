# pyright: basic, reportMissingImports=false, reportUnknownMemberType=false
# Triton comes with CUDA builds of PyTorch only, and its language is not Python's.
"""argmax(x + Gumbel noise) of many rows in one pass over x; the noise is never written anywhere.

The words are those of sampling/device_noise.py, which says where they come from.
"""

from __future__ import annotations

import triton
import triton.language as tl

from engine.sampling.device_noise import MULTIPLIERS, ROUNDS, WEYL

MULTIPLIER_0, MULTIPLIER_1 = tl.constexpr(MULTIPLIERS[0]), tl.constexpr(MULTIPLIERS[1])
WEYL_0, WEYL_1 = tl.constexpr(WEYL[0]), tl.constexpr(WEYL[1])
PHILOX_ROUNDS = tl.constexpr(ROUNDS)
NOTHING = tl.constexpr(float("-inf"))


@triton.jit
def best_of_parts(
    x,  # [rows, vocab] float32
    seeds,  # [rows] int64
    positions,  # [rows] int64
    best,  # [rows, parts] float64, written: the part's largest x + noise
    where,  # [rows, parts] int64, written: the first token that has it
    vocab,
    COUNTERS: tl.constexpr,  # of Philox, per part; each gives the noise of eight tokens
):
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    counter = part * COUNTERS + tl.arange(0, COUNTERS)
    zero = tl.zeros((COUNTERS,), tl.uint64)
    multiplier_0 = zero + MULTIPLIER_0
    multiplier_1 = zero + MULTIPLIER_1
    key_0 = zero + tl.load(seeds + row).to(tl.uint64)
    key_1 = zero + tl.load(positions + row).to(tl.uint64)
    a, b, c, d = zero + counter.to(tl.uint64) + 1, zero, zero, zero
    for _ in tl.static_range(PHILOX_ROUNDS):
        next_a = tl.umulhi(c, multiplier_1) ^ b ^ key_0
        next_c = tl.umulhi(a, multiplier_0) ^ d ^ key_1
        b, d = c * multiplier_1, a * multiplier_0
        a, c = next_a, next_c
        key_0 = key_0 + WEYL_0
        key_1 = key_1 + WEYL_1
    value = tl.full((COUNTERS,), NOTHING, tl.float64)
    token = counter.to(tl.int64) * 8
    for place in tl.static_range(8):
        if place // 2 == 0:
            word = a
        elif place // 2 == 1:
            word = b
        elif place // 2 == 2:
            word = c
        else:
            word = d
        half = ((word >> (32 * (place % 2))) & 0xFFFFFFFF).to(tl.float64)
        noise = -tl.log(-tl.log((half + 0.5) * 2.3283064365386963e-10))
        at = counter.to(tl.int64) * 8 + place
        logit = tl.load(x + row * vocab + at, mask=at < vocab, other=NOTHING)
        score = logit.to(tl.float64) + noise
        token = tl.where(score > value, at, token)
        value = tl.maximum(score, value)
    highest = tl.max(value, 0)
    # Of equals the first, as everywhere.
    first = tl.min(tl.where(value == highest, token, 0x7FFFFFFFFFFFFFFF), 0)
    parts = tl.num_programs(1)
    tl.store(best + row * parts + part, highest)
    tl.store(where + row * parts + part, first)
