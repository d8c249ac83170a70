from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.ahead.calibration import Calibration
from gateway.backends.ahead.draft import Draft, Piece


def draft() -> Draft:
    made = Draft(Calibration(greedy=True))
    made.begin()
    return made


def add(to: Draft, *texts: str) -> bool:
    fits = True
    for text in texts:
        fits = to.add(Piece(7, text, 0.9))
    return fits


def test_draft_stands_when_upstream_cuts_text_elsewhere():
    made = draft()
    add(made, " un", "believ", "able")
    assert made.verify(" unbel")
    assert made.tail == "ievable"
    assert [token.n for token in made.tokens()] == [3, 4]


def test_draft_is_gone_when_upstream_says_otherwise():
    made = draft()
    add(made, " a", " lamp")
    assert not made.verify(" a ship")
    assert made.tail == ""
    assert (made.drafted, made.accepted) == (2, 1)


def test_draft_overtaken_by_upstream_is_aligned_when_it_comes():
    made = draft()
    assert made.verify(" the old")
    assert add(made, " the", " older", " man")
    assert made.tail == "er man"


def test_draft_overtaken_by_other_text_is_of_no_use():
    made = draft()
    made.verify(" the old")
    assert not add(made, " the", " new")
    assert made.tail == ""


def test_draft_begun_anew_does_not_wait_for_text_said_before():
    made = draft()
    made.verify("said before")
    made.begin()
    assert add(made, " and more")
    assert made.tail == " and more"


def test_calibration_learns_when_upstream_ends_before_draft():
    calibration = Calibration(greedy=True)
    before = calibration.chance(0.9)
    made = Draft(calibration)
    add(made, " more")
    made.end()
    assert made.tail == ""
    assert calibration.chance(0.9) < before


SCRIPT = st.lists(
    st.tuples(st.sampled_from(["draft", "verify", "begin"]), st.text("abé👩‍ ", max_size=3)),
    max_size=30,
)


@given(SCRIPT)
def test_draft_is_text_beyond_the_verified_for_any_order(script: list[tuple[str, str]]):
    """Against the whole texts: the tail is what the run has said beyond the verified text, as long
    as the two agree.
    """
    made = draft()
    said, drafted, alive = "", "", True
    for what, text in script:
        if what == "verify":
            said += text
            alive = made.verify(text) and alive
        elif what == "begin":
            made.begin()
            drafted, alive = said + made.tail, True
        elif alive:
            drafted += text
            alive = made.add(Piece(1, text, 0.5))
        agree = drafted.startswith(said) or said.startswith(drafted)
        assert agree or not alive or not made.tail
        assert made.tail == (drafted[len(said) :] if alive and agree else "")
        assert sum(token.n for token in made.tokens()) == len(made.tail)
        assert made.accepted <= made.drafted
