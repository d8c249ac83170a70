from __future__ import annotations

import pytest

from gateway.config import BUILT_IN_PROFILES
from gateway.policies import SpecPolicy, resolve_policy
from protocol.errors import ErrorCode, PolicyError, RequestError
from protocol.ledger import Ledger
from protocol.policy import Told, View
from protocol.requests import Chunk, Hold, PolicySpec, StreamRetract

NOTHING = Told(0, 0, 0, 0)


def resolve(wanted: PolicySpec | str | None) -> PolicySpec:
    return resolve_policy(wanted, BUILT_IN_PROFILES, "chat")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, StreamRetract(budget=0.05)),
        ("retract:0.05", StreamRetract(budget=0.05)),
        ("hold", Hold()),
        ("retract", StreamRetract()),
        ("retract:40", StreamRetract(max_tail=40)),
        ("chunk", Chunk()),
        ("chunk:word", Chunk(unit="word")),
        ("ide", Chunk(unit="line", tail=True)),
        ("tts", Chunk(unit="sentence")),
        ("api", Hold()),
        ('{"kind":"chunk","max_delay_ms":5}', Chunk(max_delay_ms=5)),
        (Hold(grapheme_safe=True), Hold(grapheme_safe=True)),
    ],
)
def test_client_names_a_policy_in_any_form(
    wanted: PolicySpec | str | None, expected: PolicySpec
) -> None:
    assert resolve(wanted) == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nope",
        "hold:1",
        "retract:0",
        "retract:-1",
        "retract:x",
        "retract:0.0",
        "retract:1.5",
        "chunk:page",
        "HOLD",
    ],
)
def test_client_is_told_what_is_allowed_for_an_unknown_policy(name: str) -> None:
    with pytest.raises(RequestError) as refused:
        resolve(name)
    assert refused.value.code is ErrorCode.INVALID_VALUE
    assert refused.value.param == "policy"
    for allowed in ("hold", "retract", "chunk", "sentence", "paragraph", "chat", "tts"):
        assert allowed in refused.value.message


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        (Chunk(locale="!!"), "policy.locale"),
        ('{"kind":"chunk","locale":"x-"}', "policy.locale"),
        ('{"kind":"chunk","unit":"page"}', "policy.unit"),
        ('{"kind":"nope"}', "policy.kind"),
        ('{"kind":', "policy"),
        ('{"kind":"hold","kind":"chunk"}', "policy.kind"),
    ],
)
def test_client_is_told_which_field_of_a_policy_is_wrong(
    wanted: PolicySpec | str, param: str
) -> None:
    with pytest.raises(RequestError) as refused:
        resolve(wanted)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("spec", "wants"),
    [
        (Hold(), False),
        (StreamRetract(), True),
        (Chunk(unit="line"), False),
        (Chunk(unit="line", tail=True), True),
    ],
)
def test_policy_wants_drafts_only_if_it_can_show_them(spec: PolicySpec, wants: bool) -> None:
    assert SpecPolicy(spec).wants_drafts is wants


def test_policy_is_described_with_its_defaults() -> None:
    assert SpecPolicy(Chunk(unit="line")).described == {
        "kind": "chunk",
        "unit": "line",
        "tail": False,
        "locale": "en",
        "grapheme_safe": False,
    }


@pytest.mark.parametrize("spec", [StreamRetract(), Chunk(unit="line", tail=True)])
def test_policy_holds_the_arguments_of_a_tool_call(spec: PolicySpec) -> None:
    ledger, policy = Ledger(), SpecPolicy(spec)
    ledger.begin_part("tool_call", "search")
    ledger.verify('{"q":')
    ledger.draft('"x"}')
    assert policy.view(ledger.current, 0.0, NOTHING) == View(5, 5)


def test_policy_begins_anew_with_each_part() -> None:
    ledger, policy = Ledger(), SpecPolicy(Chunk(unit="line"))
    ledger.verify("one\ntwo")
    assert policy.view(ledger.current, 0.0, NOTHING).committed == 4
    ledger.begin_part("text")
    ledger.verify("a\n")
    assert policy.view(ledger.current, 0.0, NOTHING).committed == 2


@pytest.mark.parametrize(
    "spec", [Hold(grapheme_safe=True), Chunk(unit="token", grapheme_safe=True)]
)
def test_policy_is_grapheme_safe_when_asked(spec: PolicySpec) -> None:
    ledger, policy = Ledger(), SpecPolicy(spec)
    ledger.verify("ab")
    assert policy.view(ledger.current, 0.0, NOTHING) == View(1, 1)


class Panic(BaseException):
    """As a library in Rust panics: no Exception."""


@pytest.mark.parametrize("failure", [Panic, ValueError])
def test_policy_that_fails_says_so_in_one_way(
    monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    def finder(_locale: str) -> object:
        def find(_text: str) -> int:
            raise failure("poison")

        return find

    monkeypatch.setattr("gateway.policies.chunk.FINDERS", {"sentence": finder})
    ledger = Ledger()
    ledger.verify("some text")
    with pytest.raises(PolicyError, match="chunk"):
        SpecPolicy(Chunk()).view(ledger.current, 0.0, NOTHING)


def test_policy_lets_the_process_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def finder(_locale: str) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("gateway.policies.chunk.FINDERS", {"sentence": finder})
    with pytest.raises(KeyboardInterrupt):
        SpecPolicy(Chunk()).view(Ledger().current, 0.0, NOTHING)
