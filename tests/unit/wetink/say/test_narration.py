"""Whatever the commits, the voice's marks and the moment of the interruption: what was heard is a
beginning of the committed text, in whole words, and what the server is told is just that.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol import units
from protocol.events import OffsetUnit
from wetink.say.narration import Narration, Place
from wetink.say.voice import Sound

TEXT = st.text(st.sampled_from("Ab. ?\n。é👩"), max_size=40)


def sound(frames: int, upto: int) -> Sound:
    return Sound(bytes(2 * frames), upto)


def test_words_are_heard_once_their_sound_was() -> None:
    narration = Narration()
    narration.commit(0, 0, "Dr. Smith paid. ")
    sentence = narration.next()
    assert sentence is not None
    for piece in (sound(10, 4), sound(5, 10), sound(5, 16)):
        narration.play(sentence, piece)
    assert narration.hear(9) == ""
    assert narration.place is None
    assert narration.hear(15) == "Dr. Smith "
    assert (narration.heard, narration.place) == ("Dr. Smith ", Place(0, 10))
    assert narration.hear(20) == "paid. "
    assert (narration.heard, narration.place) == ("Dr. Smith paid. ", Place(0, 16))


def test_mark_inside_a_word_is_no_place_to_stop_at() -> None:
    narration = Narration()
    narration.commit(0, 0, "In 1984 it. ")
    sentence = narration.next()
    assert sentence is not None
    narration.play(sentence, sound(1, 3))
    narration.play(sentence, sound(1, 5))
    assert narration.hear(2) == "In "


def test_nothing_is_left_to_say_after_an_interruption() -> None:
    narration = Narration()
    narration.commit(0, 0, "One. Two. ")
    sentence = narration.next()
    assert sentence is not None
    narration.play(sentence, sound(4, 5))
    narration.interrupt()
    narration.commit(0, 10, "Three. ")
    narration.end()
    assert narration.over
    assert narration.next() is None
    assert narration.hear(4) == "One. "  # was under way


@given(st.data())
def test_what_was_heard_is_a_beginning_of_the_text_in_whole_words(data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(OffsetUnit))
    commits = data.draw(st.lists(TEXT, max_size=5))
    interrupted_after = data.draw(st.integers(0, 12))
    narration = Narration("en", unit)
    at = frames = heard_frames = 0
    told: list[str] = []
    said: list[str] = []
    steps = 0
    for text in [*commits, None]:
        if text is None:
            narration.end()
        else:
            narration.commit(0, at, text)
            at += units.length(text, unit)
        while (sentence := narration.next()) is not None:
            said.append(sentence.text)
            length = len(sentence.text)
            marks = data.draw(st.lists(st.integers(0, length), max_size=4))
            for upto in [*marks, length]:
                piece = sound(data.draw(st.integers(0, 9)), upto)
                narration.play(sentence, piece)
                frames += piece.frames
                heard_frames = data.draw(st.integers(heard_frames, frames))
                told.append(narration.hear(heard_frames))
                steps += 1
                if steps == interrupted_after:
                    narration.interrupt()
    committed = "".join(commits)
    heard = narration.heard
    assert heard == "".join(told)
    assert committed.startswith(heard)
    assert "".join(said).startswith(heard)
    following = committed[len(heard) : len(heard) + 1]
    assert (
        not heard
        or not following
        or heard[-1].isspace()
        or heard[-1] in ".?。"
        or following == "\n"
    )
    place = narration.place
    assert (0 if place is None else place.at) == units.length(heard, unit)
    if not interrupted_after or steps < interrupted_after:
        assert narration.over
        narration.hear(frames)
        assert narration.heard == committed
