from __future__ import annotations

from typing import TYPE_CHECKING

from engine.training.documents import Document, gather, load, packed, save

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [Document([5, 6, 7], 1), Document([8, 9, 10, 11], 2), Document([12, 13], 1)]


def test_documents_are_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "texts.npz"
    save(gather(TEXTS), path)
    assert list(load(path)) == TEXTS
    assert [found.name for found in tmp_path.iterdir()] == ["texts.npz"]


def test_tokens_beyond_two_bytes_are_kept(tmp_path: Path) -> None:
    assert list(gather([Document([1, 70_000], 1)])) == [Document([1, 70_000], 1)]


def test_packed_rows_say_whose_each_token_is() -> None:
    tokens, owner = packed(gather(TEXTS), 4)
    assert tokens.tolist() == [[5, 6, 7, 8], [9, 10, 11, 12]]
    assert owner.tolist() == [[-1, 1, 1, -2], [-2, 2, 2, -3]]
