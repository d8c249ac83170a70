"""Trials on paper, and against engines that end of some streams whatever else they do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.local.quarantine import (
    BLAMED_AFTER,
    CONVICTED_AFTER,
    PROOF_TOKENS,
    SUSPECT_AFTER,
    Quarantine,
)


def with_suspects(*streams: str) -> Quarantine:
    quarantine = Quarantine()
    for stream in streams:
        quarantine.begin(stream)
    for _ in range(SUSPECT_AFTER):
        quarantine.engine_ready()
        assert quarantine.engine_lost() is None
    return quarantine


def test_streams_all_go_on_at_once_after_the_first_end() -> None:
    quarantine = Quarantine()
    assert [quarantine.begin("a"), quarantine.begin("b")] == [["a"], ["b"]]
    assert quarantine.engine_lost() is None
    assert quarantine.engine_ready() == ["a", "b"]


def test_suspects_are_tried_one_by_one_and_all_others_wait() -> None:
    quarantine = with_suspects("a", "b")
    assert quarantine.engine_ready() == ["b"]
    assert quarantine.begin("new") == []
    assert quarantine.waits("new")
    assert quarantine.got_further("b", PROOF_TOKENS - 1) == []
    assert quarantine.got_further("b", PROOF_TOKENS) == ["a"]
    assert quarantine.end("a") == ["new"]
    assert quarantine.suspects == 0
    assert quarantine.begin("later") == ["later"]


def test_suspect_whose_trial_takes_long_does_not_keep_the_next_one_waiting() -> None:
    quarantine = with_suspects("a", "b")
    assert quarantine.engine_ready() == ["b"]
    assert quarantine.trial_is_long("b") == ["a"]
    assert quarantine.trial_is_long("b") == []


def test_stream_that_got_further_before_the_second_end_is_no_suspect() -> None:
    quarantine = Quarantine()
    quarantine.begin("a")
    quarantine.begin("b")
    quarantine.engine_lost()
    quarantine.engine_ready()
    quarantine.got_further("a", PROOF_TOKENS)
    quarantine.engine_lost()
    assert quarantine.suspects == 1
    assert quarantine.engine_ready() == ["b"]


def test_suspect_is_given_up_only_after_it_ended_an_engine_it_had_for_itself() -> None:
    quarantine = with_suspects("a", "b", "c")
    assert quarantine.engine_ready() == ["c"]
    assert quarantine.got_further("c", PROOF_TOKENS) == ["b"]
    assert quarantine.engine_lost() is None, "it may have been c"
    assert quarantine.engine_ready() == ["b"]
    assert quarantine.engine_lost() == "b"
    assert quarantine.suspects == 0
    assert quarantine.engine_ready() == ["a", "c"]


def test_suspect_blamed_twice_is_not_given_up_while_it_may_have_been_its_neighbour() -> None:
    quarantine = with_suspects("a", "b")
    for alone, joins in (("b", "a"), ("a", "b"), ("b", "a")):
        assert quarantine.engine_ready() == [alone]
        assert quarantine.trial_is_long(alone) == [joins]
        assert quarantine.engine_lost() is None


def test_stream_that_is_alone_anyway_is_given_up_after_the_third_end() -> None:
    quarantine = with_suspects("a")
    assert quarantine.engine_ready() == ["a"]
    assert quarantine.engine_lost() == "a"
    assert quarantine.engine_ready() == []


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_innocent_streams_all_finish_and_poison_is_given_up(data: st.DataObject) -> None:
    """A round is a step of the engine: every stream on it commits a token, unless one of them is
    poison and has come to the place where it works; then the engine ends.
    """
    lengths = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=12), "lengths")
    names = [f"s{number}" for number in range(len(lengths))]
    left = dict(zip(names, lengths, strict=True))
    places = st.dictionaries(st.sampled_from(names), st.integers(0, 40), max_size=3)
    poison = {
        name: place for name, place in data.draw(places, "poison").items() if place < left[name]
    }
    quarantine = Quarantine()
    committed = dict.fromkeys(names, 0)
    running = [name for each in names for name in quarantine.begin(each)]
    finished: set[str] = set()
    given_up: set[str] = set()
    ends = 0
    for _ in range(10_000):
        if len(finished | given_up) == len(names):
            break
        assert running, "nobody runs, and nobody would ever again"
        if any(poison.get(name) == committed[name] for name in running):
            ends += 1
            culprit = quarantine.engine_lost()
            given_up |= {culprit} if culprit is not None else set()
            running = quarantine.engine_ready()
            continue
        for name in list(running):
            committed[name] += 1
            joined = quarantine.got_further(name, committed[name])
            if committed[name] == left[name]:
                running.remove(name)
                finished.add(name)
                joined = [*joined, *quarantine.end(name)]
            running += joined
    assert given_up == set(poison)
    assert finished == set(names) - set(poison)
    assert ends <= len(poison) * (SUSPECT_AFTER + CONVICTED_AFTER + BLAMED_AFTER)
