from __future__ import annotations

from hypothesis import given

from gateway.backends.vllm import joiner as joiner_module
from gateway.backends.vllm.joiner import Joiner, Tail
from tests.unit.gateway.backends.vllm.telling import TEXTS, Telling, tellings, update


def test_joiner_shows_the_draft_behind_what_http_has_brought() -> None:
    joiner = Joiner()
    joiner.commit("The cat")
    joiner.hear(update(0, "The cat", " sat on"))
    assert joiner.tail.text == " sat on"
    joiner.commit(" sat")
    assert joiner.tail.text == " on"


def test_joiner_shows_verified_text_that_http_still_holds_back() -> None:
    joiner = Joiner()
    joiner.hear(update(0, "The cat", " sat"))
    assert joiner.tail.text == "The cat sat"
    joiner.commit("The")
    assert joiner.tail.text == " cat sat"


def test_joiner_drops_the_draft_that_http_contradicts_before_the_verdict_comes() -> None:
    joiner = Joiner()
    joiner.hear(update(0, "The", " cat sat"))
    joiner.commit("The cow")
    assert joiner.tail.text == ""
    assert joiner.is_believed
    joiner.hear(update(3, " cow", " moos"))
    assert joiner.tail.text == " moos"


def test_joiner_shows_nothing_beyond_a_gap_until_http_has_closed_it() -> None:
    joiner = Joiner()
    joiner.commit("ab")
    joiner.hear(update(0, "ab", "cd"))
    joiner.hear(update(4, "ef", "gh"))
    assert joiner.tail.text == ""
    joiner.hear(update(6, "gh", "ij"))
    joiner.commit("cd")
    assert joiner.tail.text == "efghij"


def test_joiner_keeps_verified_text_through_a_gap() -> None:
    joiner = Joiner()
    joiner.hear(update(0, "ab", "cd"))
    joiner.hear(update(4, "ef", "gh"))
    assert joiner.tail.text == "ab"


def test_joiner_stops_believing_when_the_two_tell_different_texts() -> None:
    joiner = Joiner()
    joiner.commit("answer")
    joiner.hear(update(0, "<think>", "hm"))
    assert not joiner.is_believed
    assert joiner.tail.text == ""
    joiner.hear(update(7, "hm", " well"))
    assert joiner.tail.text == ""


def test_joiner_stops_believing_when_the_text_begins_anew() -> None:
    joiner = Joiner()
    joiner.hear(update(0, "ab"))
    joiner.hear(update(0, "ab", "c"))
    assert not joiner.is_believed


def test_joiner_stops_believing_a_side_that_is_lost() -> None:
    joiner = Joiner()
    joiner.commit("x" * joiner_module.MOST_AHEAD)
    assert joiner.is_believed
    joiner.commit("x")
    assert not joiner.is_believed


def test_joiner_cuts_the_tail_at_a_stop_string() -> None:
    joiner = Joiner(["\n\n", "END"])
    joiner.hear(update(0, "one", " two END three\n\n"))
    assert joiner.tail == Tail("one two ")


def test_joiner_gives_the_tokens_that_a_draft_is_made_of() -> None:
    joiner = Joiner()
    joiner.hear(update(0, "a", "bcd"))
    joiner.commit("ab")
    assert [(token.id, token.n) for token in joiner.tail.tokens] == [(1, 1), (2, 1)]
    assert sum(token.n for token in joiner.tail.tokens) == len(joiner.tail.text)


@given(telling=tellings())
def test_joiner_believes_both_sides_of_one_text_in_every_order(telling: Telling) -> None:
    joiner = Joiner()
    telling.play(joiner.commit, joiner.hear)
    assert joiner.is_believed


@given(telling=tellings(losses=False))
def test_joiner_shows_the_last_draft_once_everything_is_heard(telling: Telling) -> None:
    joiner = Joiner()
    last = telling.updates[-1]
    telling.play(joiner.commit, joiner.hear)
    # HTTP has brought all that is verified, so the tail is the last draft.
    assert joiner.tail.text == last.draft


@given(telling=tellings())
def test_joiner_shows_what_is_verified_or_a_draft_of_an_update(telling: Telling) -> None:
    """Whatever was lost: a tail is the text's own, up to where one update's draft takes over."""
    joiner = Joiner()
    committed = 0
    heard: list[tuple[int, str]] = []

    def check() -> None:
        tail = joiner.tail.text
        behind = telling.text[committed:]
        fits = behind.startswith(tail) or any(
            committed + len(tail) == end + len(draft)
            and (telling.text[:end] + draft)[committed:] == tail
            for end, draft in heard
        )
        assert fits, (tail, behind, heard)

    def commit(text: str) -> None:
        nonlocal committed
        committed += len(text)
        joiner.commit(text)
        check()

    def hear(one: object) -> None:
        from gateway.backends.vllm.messages import Update

        assert isinstance(one, Update)
        heard.append((one.at + len(one.text), one.draft))
        joiner.hear(one)
        check()

    telling.play(commit, hear)


@given(text=TEXTS, other=TEXTS)
def test_joiner_never_shows_text_beyond_a_contradiction(text: str, other: str) -> None:
    joiner = Joiner()
    joiner.commit(text)
    joiner.hear(update(0, other, "draft"))
    same = text.startswith(other) or other.startswith(text)
    assert joiner.is_believed == same
    assert same or joiner.tail.text == ""
