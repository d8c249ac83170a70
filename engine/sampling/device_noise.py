"""The noise of noise.py as tensor code, for any device: the same 32-bit words, bit for bit.

numpy's stream keyed by (seed, position) is Philox 4x64 with 10 rounds (Salmon et al. 2011), its
counter counting from 1; a counter gives four 64-bit words, each two of ours, the low half first.
Signed 64-bit integers wrap around, so they do for unsigned ones wherever nothing is compared.
"""

from __future__ import annotations

import torch

MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10
WORDS = 8
"""Of 32 bits, per counter."""
LOW = 0xFFFFFFFF


def words(seeds: torch.Tensor, positions: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` words of the streams keyed by seeds and positions [rows] int64.

    [rows, count] int64, each in 0 … 2³² - 1.
    """
    blocks = -(-count // WORDS)
    counter = torch.arange(1, blocks + 1, device=seeds.device)
    zero = torch.zeros((len(seeds), blocks), dtype=torch.int64, device=seeds.device)
    state = [zero + counter, zero, zero, zero]
    keys = [seeds.unsqueeze(1), positions.unsqueeze(1)]
    for number in range(ROUNDS):
        if number:
            keys = [key + signed(step) for key, step in zip(keys, WEYL, strict=True)]
        low0, high0 = state[0] * signed(MULTIPLIERS[0]), _high(state[0], MULTIPLIERS[0])
        low1, high1 = state[2] * signed(MULTIPLIERS[1]), _high(state[2], MULTIPLIERS[1])
        state = [high1 ^ state[1] ^ keys[0], low1, high0 ^ state[3] ^ keys[1], low0]
    halves = [half for word in state for half in (word & LOW, word >> 32 & LOW)]
    return torch.stack(halves, 2).view(len(seeds), -1).narrow(1, 0, count)


def scores(x: torch.Tensor, seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """x + g, of which the largest is chosen. x [rows, vocab] float32 -> float64."""
    uniform = (words(seeds, positions, x.shape[1]).double() + 0.5) * 2.0**-32
    return x - torch.log(-torch.log(uniform))


def signed(value: int) -> int:
    """The signed 64-bit number with the same bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _high(a: torch.Tensor, b: int) -> torch.Tensor:
    """Upper 64 bits of the unsigned product, from products of halves."""
    a_low, a_high = a & LOW, a >> 32 & LOW
    b_low, b_high = b & LOW, b >> 32
    low, cross, other = a_low * b_low, a_low * b_high, a_high * b_low
    middle = (low >> 32 & LOW) + (cross & LOW) + (other & LOW)
    return a_high * b_high + (cross >> 32 & LOW) + (other >> 32 & LOW) + (middle >> 32)
