"""Texts a model wrote itself: tokens in one long row, and where each document's answer begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

LARGEST_SHORT = 1 << 16


class Document(NamedTuple):
    tokens: list[int]
    """Prompt, answer, and the token that ended it if one did."""
    start: int
    """Index of the answer's first token."""


@dataclass(frozen=True)
class Documents:
    """In the layout of the published `tokens.npz`."""

    tokens: NDArray[np.unsignedinteger]  # [all tokens]
    lengths: NDArray[np.int64]  # [documents]
    starts: NDArray[np.int64]  # [documents]

    def __iter__(self) -> Iterator[Document]:
        first = 0
        for length, start in zip(self.lengths.tolist(), self.starts.tolist(), strict=True):
            yield Document(self.tokens[first : first + length].tolist(), start)
            first += length

    @property
    def count(self) -> int:
        return self.lengths.shape[0]


def gather(documents: Iterable[Document]) -> Documents:
    kept = list(documents)
    tokens = np.array([token for document in kept for token in document.tokens], np.int64)
    short = not len(tokens) or tokens.max() < LARGEST_SHORT
    return Documents(
        tokens.astype(np.uint16 if short else np.uint32),
        np.array([len(document.tokens) for document in kept], np.int64),
        np.array([document.start for document in kept], np.int64),
    )


def save(documents: Documents, path: Path) -> None:
    """Appears whole or not at all."""
    scratch = path.with_name(f".{path.name}")
    with scratch.open("wb") as file:
        np.savez_compressed(
            file, tokens=documents.tokens, lengths=documents.lengths, starts=documents.starts
        )
    scratch.replace(path)


def load(path: Path) -> Documents:
    with np.load(path) as file:
        return Documents(
            file["tokens"], file["lengths"].astype(np.int64), file["starts"].astype(np.int64)
        )


def packed(documents: Documents, row: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Documents one behind another, in rows of equal length. Only the last row's rest is dropped.

    Returns tokens [rows, row], and for each token which document it is of, negative where it
    belongs to a prompt: document d's prompt is -d, its answer d, counted from 1.
    """
    count = len(documents.tokens) // row
    number = np.repeat(np.arange(1, documents.count + 1), documents.lengths)
    first = np.cumsum(documents.lengths) - documents.lengths
    place = np.arange(len(documents.tokens)) - np.repeat(first, documents.lengths)
    owner = np.where(place < np.repeat(documents.starts, documents.lengths), -number, number)
    cut = count * row
    tokens = documents.tokens[:cut].astype(np.int64).reshape(count, row)
    return tokens, owner[:cut].reshape(count, row)
