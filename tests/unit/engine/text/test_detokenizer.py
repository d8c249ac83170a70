# pyright: reportUnknownMemberType=false
from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders

from engine.loading.checkpoint import no_progress
from engine.loading.pull import pull
from engine.text.detokenizer import Detokenizer, TokenTable, UnsupportedTokenizerError
from tests.unit.engine.checkpoints import byte_level_tokenizer, id_of, sentencepiece_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

SENTENCEPIECE = sentencepiece_tokenizer()
SENTENCEPIECE_TABLE = TokenTable(SENTENCEPIECE)
BYTE_LEVEL = byte_level_tokenizer()
BYTE_LEVEL_TABLE = TokenTable(BYTE_LEVEL)
TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["👩‍👩‍👧 日本語", "e\u0301 ليل", " Hi there!"])
)


@pytest.fixture(scope="module")
def smollm2() -> Tokenizer:
    return Tokenizer.from_file(str(pull(no_progress) / "tokenizer.json"))


@pytest.fixture(scope="module")
def smollm2_table(smollm2: Tokenizer) -> TokenTable:
    return TokenTable(smollm2)


def by_bytes(table: TokenTable, tokens: Sequence[int]) -> str:
    return b"".join(map(table.token_bytes, tokens)).decode("utf-8", "replace")


def in_groups(
    detokenizer: Detokenizer, tokens: Sequence[int], cuts: Sequence[int], drafts: Sequence[int]
) -> str:
    """Commit group by group; before each, look at drafts that will be rolled back."""
    text = ""
    start = 0
    for cut in [*sorted(cut % (len(tokens) + 1) for cut in cuts), len(tokens)]:
        group = tokens[start:cut]
        peeked = detokenizer.peek([*group, *drafts])
        pieces = detokenizer.commit(group)
        assert peeked[: len(group)] == pieces
        assert len(peeked) == len(group) + len(drafts)
        text += "".join(pieces)
        start = cut
    return text + detokenizer.finish()


CUTS = st.lists(st.integers(0, 100), max_size=6)


@given(st.data(), CUTS)
def test_detokenizer_gives_the_whole_decoding_of_smollm2_tokens(
    smollm2: Tokenizer, smollm2_table: TokenTable, data: st.DataObject, cuts: list[int]
) -> None:
    ids = st.integers(0, smollm2.get_vocab_size() - 1)
    tokens = data.draw(
        st.one_of(st.lists(ids, max_size=30), TEXTS.map(lambda t: smollm2.encode(t).ids))
    )
    drafts = data.draw(st.lists(ids, max_size=4))
    text = in_groups(Detokenizer(smollm2_table), tokens, cuts, drafts)
    assert text == smollm2.decode(tokens) == by_bytes(smollm2_table, tokens)


@given(
    st.one_of(
        st.lists(st.integers(0, 300), max_size=30), TEXTS.map(lambda t: BYTE_LEVEL.encode(t).ids)
    ),
    CUTS,
    st.lists(st.integers(0, 260), max_size=4),
)
def test_detokenizer_gives_the_whole_decoding_of_single_bytes(
    tokens: list[int], cuts: list[int], drafts: list[int]
) -> None:
    text = in_groups(Detokenizer(BYTE_LEVEL_TABLE), tokens, cuts, drafts)
    assert text == by_bytes(BYTE_LEVEL_TABLE, tokens) == BYTE_LEVEL.decode(tokens)


@given(st.lists(st.integers(0, 266), max_size=20), CUTS, st.lists(st.integers(0, 266), max_size=4))
def test_detokenizer_gives_the_bytes_of_sentencepiece_tokens(
    tokens: list[int], cuts: list[int], drafts: list[int]
) -> None:
    text = in_groups(Detokenizer(SENTENCEPIECE_TABLE), tokens, cuts, drafts)
    assert text == by_bytes(SENTENCEPIECE_TABLE, tokens)


@given(st.lists(st.sampled_from(["▁", "▁Hi", "▁there", "!", "▁▁", "語", "a", "<|end|>"])))
def test_detokenizer_strips_leading_space_as_the_tokenizer_does(names: list[str]) -> None:
    tokens = [id_of(SENTENCEPIECE, name) for name in names]
    bos, word = id_of(SENTENCEPIECE, "<|bos|>"), id_of(SENTENCEPIECE, "▁Hi")
    for prompt in ([], [bos], [bos, word]):
        whole = SENTENCEPIECE.decode([*prompt, *tokens])
        at_start = not SENTENCEPIECE_TABLE.has_text(prompt)
        detokenizer = Detokenizer(SENTENCEPIECE_TABLE, at_start=at_start)
        assert "".join(detokenizer.commit(tokens)) == whole[len(SENTENCEPIECE.decode(prompt)) :]


def test_detokenizer_strips_as_many_spaces_as_the_decoder_says() -> None:
    tokenizer = sentencepiece_tokenizer()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=2)]
    )
    tokens = [id_of(tokenizer, name) for name in ("▁", "▁▁", "▁Hi", "▁there")]
    detokenizer = Detokenizer(TokenTable(tokenizer), at_start=True)
    assert detokenizer.commit(tokens) == ["", " ", " Hi", " there"]
    assert tokenizer.decode(tokens) == "  Hi there"


def test_detokenizer_holds_incomplete_bytes_until_they_complete() -> None:
    euro = BYTE_LEVEL.encode("€").ids
    detokenizer = Detokenizer(BYTE_LEVEL_TABLE)
    assert detokenizer.commit(euro[:2]) == ["", ""]
    assert detokenizer.incomplete == 2
    assert detokenizer.peek(euro[2:]) == ["€"]
    assert detokenizer.incomplete == 2
    assert detokenizer.commit(euro[2:]) == ["€"]
    assert (detokenizer.incomplete, detokenizer.finish()) == (0, "")


def test_detokenizer_replaces_incomplete_bytes_once_when_finished() -> None:
    detokenizer = Detokenizer(BYTE_LEVEL_TABLE)
    detokenizer.commit(BYTE_LEVEL.encode("☕").ids[:2])
    assert detokenizer.finish() == "\ufffd"
    assert detokenizer.finish() == ""


def test_table_gives_special_and_unknown_tokens_no_text() -> None:
    table = BYTE_LEVEL_TABLE
    assert table.special_ids == {0, 1}
    assert [table.token_bytes(token) for token in (0, 1, 99999)] == [b"", b"", b""]
    assert table.token_text(99999) == ""
    assert not table.has_text([0, 1])


def test_table_takes_added_tokens_literally() -> None:
    added = id_of(SENTENCEPIECE, "<tool é>")
    assert SENTENCEPIECE_TABLE.token_text(added) == "<tool é>"
    assert SENTENCEPIECE_TABLE.token_text(id_of(SENTENCEPIECE, "<0xZZ>")) == "<0xZZ>"
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens(["<a b>"])
    assert TokenTable(tokenizer).token_text(id_of(tokenizer, "<a b>")) == "<a b>"


@pytest.mark.parametrize(
    "decoder",
    [
        decoders.WordPiece(),
        decoders.Sequence([decoders.Fuse(), decoders.CTC()]),
        decoders.Sequence([decoders.Strip(content=" ", left=1), decoders.Fuse()]),
        decoders.Sequence([decoders.Replace("a", "b"), decoders.ByteLevel()]),
    ],
)
def test_table_refuses_decoders_it_cannot_run_token_by_token(decoder: decoders.Decoder) -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.decoder = decoder
    last = json.loads(tokenizer.to_str())["decoder"]
    named = last.get("decoders", [last])
    with pytest.raises(UnsupportedTokenizerError, match="|".join(d["type"] for d in named)):
        TokenTable(tokenizer)


def test_table_refuses_a_tokenizer_without_decoder() -> None:
    tokenizer = Tokenizer(byte_level_tokenizer().model)
    with pytest.raises(UnsupportedTokenizerError, match="no decoder"):
        TokenTable(tokenizer)
