from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from gateway.backends.base import BackendEvent, Drafted, Finished, Verified
from gateway.backends.scripted import BUILT_IN_TRACES, ScriptedBackend, load_traces
from gateway.config import BackendConfig
from gateway.errors import ConfigError
from protocol.errors import ErrorCode, RequestError
from protocol.events import Usage
from protocol.ledger import Ledger
from protocol.requests import GenerationRequest

if TYPE_CHECKING:
    from pathlib import Path

STEPS = [
    {"after_ms": 1, "event": "drafted", "tail": "a b"},
    {"after_ms": 1, "event": "verified", "text": "a c", "cause": "draft_rejected"},
    {
        "event": "finished",
        "reason": "length",
        "counts": {"prompt": 99, "completion": 2, "drafted": 2, "accepted": 1, "steps": 1},
    },
]
SPEED = 1000.0


class Listener:
    def __init__(self) -> None:
        self.events: list[BackendEvent] = []
        self.ended = asyncio.Event()

    def __call__(self, event: BackendEvent) -> None:
        self.events.append(event)
        if isinstance(event, Finished):
            self.ended.set()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "list.json").write_text(json.dumps(STEPS))
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, STEPS)) + "\n")
    (tmp_path / "notes.txt").write_text("not a trace")
    return tmp_path


async def play(backend: ScriptedBackend, model: str, *, drafts: bool = True) -> list[BackendEvent]:
    listener = Listener()
    request = GenerationRequest(prompt="one two", model=model, seed=4)
    admission = await backend.generate("s", request, listener)
    assert (admission.prompt_tokens, admission.seed) == (2, 4)
    backend.want_drafts("s", drafts)
    await listener.ended.wait()
    return listener.events


@pytest.mark.parametrize("model", ["list", "lines"])
async def test_backend_plays_a_trace_in_either_form(folder: Path, model: str) -> None:
    backend = ScriptedBackend(load_traces(folder), speed=SPEED)
    await backend.start()
    assert [info.id for info in backend.models()] == ["lines", "list"]
    drafted, verified, finished = await play(backend, model)
    assert drafted == Drafted("a b")
    assert verified == Verified("a c", cause="draft_rejected")
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.counts.prompt, finished.counts.accepted) == ("length", 2, 1)


async def test_backend_leaves_drafts_out_that_nobody_wants(folder: Path) -> None:
    backend = ScriptedBackend(load_traces(folder / "list.json"), speed=SPEED)
    events = await play(backend, "list", drafts=False)
    assert [type(event) for event in events] == [Verified, Finished]


async def test_backend_repeats_a_trace_and_ends_once(folder: Path) -> None:
    backend = ScriptedBackend(load_traces(folder / "list.json"), speed=SPEED, repeat=3)
    events = await play(backend, "list")
    assert [type(event) for event in events] == [Drafted, Verified] * 3 + [Finished]
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.counts.drafted, last.counts.steps) == (6, 3)


async def test_backend_ends_a_trace_that_does_not_end_itself(tmp_path: Path) -> None:
    path = tmp_path / "open.json"
    path.write_text('[{"event":"verified","text":"x","tokens":[{"id":1,"n":1}]}]')
    backend = ScriptedBackend(load_traces(path))
    last = (await play(backend, "open"))[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.counts.completion) == ("stop", 1)


async def test_backend_says_nothing_of_drafts_that_no_reader_shows(folder: Path) -> None:
    backend = ScriptedBackend(load_traces(folder), speed=SPEED)
    events = await play(backend, "list", drafts=False)
    assert [type(event) for event in events] == [Verified, Finished]


async def test_backend_takes_back_what_was_shown_when_nobody_wants_drafts_any_more(
    tmp_path: Path,
) -> None:
    steps = [
        {"event": "drafted", "tail": "wet ink"},
        {"event": "drafted", "tail": "wet paint", "cause": "draft_rejected"},
        {"event": "verified", "text": "wet paint dries"},
        {"event": "finished", "reason": "stop"},
    ]
    path = tmp_path / "turn.json"
    path.write_text(json.dumps(steps))
    backend = ScriptedBackend(load_traces(path))
    ledger, ended = Ledger(), asyncio.Event()

    def take(event: BackendEvent) -> None:
        match event:
            case Drafted():
                ledger.draft(event.tail, event.tokens, event.cause)
                backend.want_drafts("s", False)
            case Verified():
                ledger.verify(event.text, event.tail, event.tokens, event.cause)
            case _:
                ended.set()

    request = GenerationRequest(prompt="x", model="turn")
    await backend.generate("s", request, take, want_drafts=True)
    async with asyncio.timeout(10):
        await ended.wait()
    assert (ledger.current.committed_text(), ledger.current.cause) == (
        "wet paint dries",
        "draft_rejected",
    )


async def test_backend_cancels_once_with_what_it_has_said(tmp_path: Path) -> None:
    path = tmp_path / "slow.json"
    path.write_text('[{"after_ms":100000,"event":"verified","text":"never"}]')
    backend = ScriptedBackend(load_traces(path))
    listener = Listener()
    await backend.generate("s", GenerationRequest(prompt="x", model="slow"), listener)
    backend.cancel("s")
    backend.cancel("s")
    backend.cancel("unknown")
    (finished,) = listener.events
    assert isinstance(finished, Finished)
    assert finished.reason == "cancelled"
    await backend.stop()


async def test_backend_says_nothing_after_it_was_stopped(tmp_path: Path) -> None:
    path = tmp_path / "slow.json"
    path.write_text('[{"after_ms":100000,"event":"verified","text":"never"}]')
    backend = ScriptedBackend(load_traces(path))
    await backend.start()
    listener = Listener()
    await backend.generate("s", GenerationRequest(prompt="x", model="slow"), listener)
    await backend.stop()
    assert not backend.ready
    assert listener.events == []


async def test_backend_refuses_a_prompt_longer_than_its_context(folder: Path) -> None:
    backend = ScriptedBackend(load_traces(folder))
    with pytest.raises(RequestError) as refused:
        await backend.generate("s", GenerationRequest(prompt="x " * 5000, model="list"), Listener())
    assert (refused.value.code, refused.value.param) == (ErrorCode.CONTEXT_EXCEEDED, "prompt")


@pytest.mark.parametrize(
    "content", ["{", '[{"event":"dance"}]', '[{"event":"verified"}]', '[{"after_ms":"soon"}]']
)
def test_operator_is_told_which_trace_is_broken(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"backend\.traces: .*bad\.json"):
        load_traces(path)


def test_operator_is_told_that_there_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"backend\.traces"):
        ScriptedBackend.from_config(BackendConfig(traces=str(tmp_path)))
    with pytest.raises(ConfigError, match="No such file"):
        ScriptedBackend.from_config(BackendConfig(traces=str(tmp_path / "none.json")))


@pytest.mark.parametrize("name", sorted(load_traces(BUILT_IN_TRACES)))
def test_built_in_trace_keeps_every_rule_of_the_ledger(name: str) -> None:
    ledger = Ledger()
    retracted = 0
    for step in load_traces(BUILT_IN_TRACES)[name]:
        match step.event:
            case Drafted(tail=tail, tokens=tokens, cause=cause):
                ledger.draft(tail, tokens, cause)
            case Verified(text=text, tail=tail, cause=cause, tokens=tokens):
                ledger.verify(text, tail, tokens, cause)
                retracted += cause is not None
            case Finished(reason=reason, counts=counts):
                ledger.finish(reason, Usage(completion_tokens=counts.completion))
            case _:
                pytest.fail(f"unexpected {step.event}")
    text = ledger.current.committed_text()
    assert ledger.ending is not None
    assert retracted > 5
    assert len(ledger.current.tokens(0, len(text))) > 50


def test_built_in_lighthouse_has_characters_of_every_width() -> None:
    steps = load_traces(BUILT_IN_TRACES)["lighthouse"]
    text = "".join(step.event.text for step in steps if isinstance(step.event, Verified))
    assert "👨\u200d👩\u200d👧\u200d👦" in text
    assert "灯台" in text
