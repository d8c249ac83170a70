"""Paged KV blocks: who owns which block, and which full blocks can be reused as a prefix. No torch.

A block holds the keys and values of `block_size` consecutive tokens. Full blocks of committed
tokens are registered under a chained hash of everything up to their end; a freed block keeps its
contents and its hash until it is handed out again: blocks without a hash first (a rejected draft
leaves one in every other step; they must not push prefixes out), then the least recently used.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING

from engine.errors import IntegrityError

if TYPE_CHECKING:
    from engine.scheduling.sequence import Sequence

HASH_BYTES = 16


def block_hash(parent: bytes, tokens: list[int]) -> bytes:
    """Hash of one full block given its predecessor's (or the tenant salt for the first)."""
    return hashlib.blake2b(
        array("q", tokens).tobytes(), key=parent, digest_size=HASH_BYTES
    ).digest()


class BlockManager:
    """Hands out block numbers 0 … num_blocks-1; mutates the block tables of the sequences given."""

    def __init__(self, num_blocks: int, block_size: int, *, prefix_cache: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._prefix_cache = prefix_cache
        self._references = [0] * num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._hash_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def attach_prefix(self, sequence: Sequence) -> int:
        """Give a sequence without blocks the longest cached prefix of its tokens; returns its
        length.

        At least one token is left to compute: the last one's logits are needed.
        """
        if not self._prefix_cache or sequence.block_table:
            return 0
        usable = (len(sequence.tokens) - 1) // self.block_size
        for number in range(usable):
            block = self._block_of.get(self._hash(sequence, number))
            if block is None:
                break
            self._take(block)
            sequence.block_table.append(block)
        sequence.hashed_blocks = len(sequence.block_table)
        sequence.computed = sequence.hashed_blocks * self.block_size
        return sequence.computed

    def missing(self, sequence: Sequence, tokens: int) -> int:
        """How many more blocks it needs to hold `tokens` tokens."""
        return max(0, self.blocks_for(tokens) - len(sequence.block_table))

    def reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Extend the block table to `tokens` tokens; False (no change) when too few are free."""
        missing = self.missing(sequence, tokens)
        if missing > len(self._free):
            return False
        for _ in range(missing):
            block, _none = self._free.popitem(last=False)
            self._forget(block)
            self._references[block] = 1
            sequence.block_table.append(block)
        return True

    def trim(self, sequence: Sequence) -> None:
        """Free the blocks behind its last token: what a rejected draft leaves over."""
        keep = self.blocks_for(len(sequence.tokens))
        while len(sequence.block_table) > keep:
            self._release(sequence.block_table.pop())

    def register(self, sequence: Sequence) -> None:
        """Make newly filled blocks of committed, computed tokens findable as a prefix."""
        if not self._prefix_cache:
            return
        full = min(sequence.computed, len(sequence.tokens)) // self.block_size
        for number in range(sequence.hashed_blocks, full):
            digest = self._hash(sequence, number)
            block = sequence.block_table[number]
            if digest not in self._block_of and block not in self._hash_of:
                self._block_of[digest] = block
                self._hash_of[block] = digest
        sequence.hashed_blocks = max(sequence.hashed_blocks, full)

    def free(self, sequence: Sequence) -> None:
        """Take all its blocks back. The last ones become the oldest: prefixes outlive endings."""
        for block in reversed(sequence.block_table):
            self._release(block)
        sequence.block_table = []

    def check_integrity(self, sequences: list[Sequence]) -> None:
        """Raise IntegrityError unless every block is free or referenced exactly as often as it is
        used.
        """
        used = [0] * self.num_blocks
        for sequence in sequences:
            for block in sequence.block_table:
                used[block] += 1
            if len(sequence.block_table) * self.block_size < sequence.computed:
                raise IntegrityError(f"{sequence.stream}: fewer blocks than computed tokens")
            if len(set(sequence.block_table)) != len(sequence.block_table):
                raise IntegrityError(f"{sequence.stream}: a block stands twice in its table")
        for block, count in enumerate(used):
            if count != self._references[block]:
                raise IntegrityError(
                    f"block {block}: {self._references[block]} references, {count} used"
                )
            if (count == 0) != (block in self._free):
                raise IntegrityError(
                    f"block {block}: used {count} times, free: {block in self._free}"
                )
        for digest, block in self._block_of.items():
            if self._hash_of.get(block) != digest:
                raise IntegrityError(f"block {block}: hash tables disagree")
        if len(self._block_of) != len(self._hash_of):
            raise IntegrityError("hash tables differ in size")

    def _hash(self, sequence: Sequence, number: int) -> bytes:
        """Chained hash of block `number`, remembered on the sequence: its tokens never change."""
        while len(sequence.block_hashes) <= number:
            index = len(sequence.block_hashes)
            parent = sequence.block_hashes[-1] if index else sequence.salt
            start = index * self.block_size
            tokens = sequence.tokens[start : start + self.block_size]
            sequence.block_hashes.append(block_hash(parent, tokens))
        return sequence.block_hashes[number]

    def _take(self, block: int) -> None:
        if self._references[block] == 0:
            del self._free[block]
        self._references[block] += 1

    def _release(self, block: int) -> None:
        self._references[block] -= 1
        if self._references[block] == 0:
            self._free[block] = None
            if block not in self._hash_of:
                self._free.move_to_end(block, last=False)

    def _forget(self, block: int) -> None:
        digest = self._hash_of.pop(block, None)
        if digest is not None:
            del self._block_of[digest]
