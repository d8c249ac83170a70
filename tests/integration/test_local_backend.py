"""The local backend over real processes: a scripted engine, and the real one on a tiny model."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from gateway.backends.base import BackendEvent, Drafted, EngineLoad, Failed, Finished, Verified
from gateway.backends.local import LocalBackend, process
from gateway.backends.local.backend import WORKER as REAL_WORKER
from gateway.config import EngineConfig, SupervisionConfig
from gateway.errors import BackendError
from protocol.errors import ErrorCode, RequestError
from protocol.ledger import Ledger
from protocol.requests import Draft, GenerationRequest, Message, Regex
from tests.integration import scripted_engine
from tests.unit.engine.checkpoints import write_tiny_llama

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

WORKER = (sys.executable, "-m", "tests.integration.scripted_engine")
TEXT = "Wet ink dries, ☕ and stays."
SAMPLING_FIELDS = (
    *("max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "stop_token_ids"),
    *("ignore_eos", "frequency_penalty", "presence_penalty", "repetition_penalty"),
)
QUICK = SupervisionConfig(answer_s=0.4, step_s=5.0, start_s=5.0, cancel_s=0.2, restart_delay_s=0.0)


class Reader:
    """A sink that keeps a ledger, as a stream does, and lets tests wait for what it saw."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.events: list[BackendEvent] = []
        self._changed = asyncio.Event()

    def __call__(self, event: BackendEvent) -> None:
        match event:
            case Verified():
                self.ledger.verify(event.text, event.tail, event.tokens, event.cause)
            case Drafted():
                self.ledger.draft(event.tail, event.tokens, event.cause)
            case _:
                pass
        self.events.append(event)
        self._changed.set()

    async def until(self, seen: Callable[[BackendEvent], bool]) -> BackendEvent:
        while True:
            for event in self.events:
                if seen(event):
                    return event
            self._changed.clear()
            await self._changed.wait()

    async def ended(self) -> BackendEvent:
        return await self.until(lambda event: isinstance(event, Finished | Failed))

    @property
    def text(self) -> str:
        return self.ledger.current.committed_text()

    @property
    def restarts_seen(self) -> int:
        return sum(isinstance(e, Drafted) and e.cause == "engine_restart" for e in self.events)


def drafted(event: BackendEvent) -> bool:
    return isinstance(event, Drafted) and bool(event.tail)


@asynccontextmanager
async def running(
    model: str | None = None,
    *,
    config: EngineConfig | None = None,
    worker: tuple[str, ...] = WORKER,
    progress: list[str] | None = None,
    limits: SupervisionConfig = QUICK,
) -> AsyncGenerator[LocalBackend]:
    backend = LocalBackend(
        config or EngineConfig(model=model),
        limits,
        on_progress=None if progress is None else lambda phase, _: progress.append(phase),
        worker=worker,
    )
    try:
        await backend.start()
        yield backend
    finally:
        await backend.stop()


def ask(prompt: str, **fields: object) -> GenerationRequest:
    return GenerationRequest(prompt=prompt, model="scripted", **fields)  # type: ignore[arg-type]


async def until(is_so: Callable[[], bool]) -> None:
    """Of what a backend tells nobody."""
    while not is_so():  # noqa: ASYNC110
        await asyncio.sleep(0)


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_backend_says_what_it_does_and_what_it_serves_when_started() -> None:
    progress: list[str] = []
    async with running(progress=progress) as backend:
        assert backend.ready
        (model,) = backend.models()
    assert progress == ["reading the script"]
    assert (model.id, model.context_length, model.drafters) == ("scripted", 128, ["none"])
    assert model.default_drafter == "none"
    assert not backend.ready


async def test_backend_passes_on_what_its_engine_says_of_its_load() -> None:
    async with running() as backend:
        assert backend.load().engine is not None  # before the first answer: nothing to do
        await until(lambda: backend.load().running > 0)
        load, said = backend.load(), scripted_engine.LOAD
        assert (load.running, load.waiting) == (said.running, said.waiting)
        assert load.engine == EngineLoad(
            kv_blocks=1,
            kv_blocks_used=said.kv_blocks_used,
            steps=said.steps,
            preemptions=said.preemptions,
            sentinel_checks=said.sentinel_checks,
            sentinel_mismatches=said.sentinel_mismatches,
        )
        assert load.engine_restarts == 0
        assert backend.engine_pid is not None
        os.kill(backend.engine_pid, signal.SIGKILL)
        await until(lambda: not backend.ready)
        assert backend.load().engine is None
        assert backend.load().running == 0
        await until(lambda: backend.ready)
        assert backend.load().engine_restarts == 1


async def test_backend_passes_on_what_its_engine_logs(caplog: pytest.LogCaptureFixture) -> None:
    async with running(model="talkative"):
        pass
    assert ("engine.worker", logging.ERROR, "as an engine says it") in caplog.record_tuples
    assert ("wetink.engine", logging.WARNING, "as a library says it") in caplog.record_tuples


async def test_backend_delivers_a_stream_in_order() -> None:
    async with running() as backend:
        reader = Reader()
        admission = await backend.generate("a", ask(f"say {TEXT}"), reader)
        end = await reader.ended()
    assert (admission.prompt_tokens, admission.seed) == (len(TEXT) + 4, scripted_engine.SEED)
    assert reader.text == TEXT
    assert isinstance(end, Finished)
    assert (end.reason, end.counts.completion) == ("stop", len(TEXT))
    kinds = [type(event) for event in reader.events]
    assert kinds == [Drafted, Verified] * 3 + [Finished]


async def test_backend_passes_on_everything_a_request_says() -> None:
    request = ask(
        "echo",
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        seed=5,
        stop=["a"],
        stop_token_ids=[3],
        ignore_eos=True,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        repetition_penalty=1.1,
        logit_bias={"7": -1.0},
        prediction="guess",
        priority=2,
        draft=Draft(drafter="ngram", length=3),
        include=["logprobs"],
        grammar=Regex(pattern="[ab]+"),
    )
    async with running() as backend:
        reader = Reader()
        await backend.generate("a", request, reader, tenant="k")
        await reader.ended()
    start = json.loads(reader.text)
    assert start["sampling"] == {
        **{name: getattr(request, name) for name in SAMPLING_FIELDS},
        "logit_bias": {"7": -1.0},
        "logprobs": True,
        "top_logprobs": 0,
        "grammar": {"kind": "regex", "text": "[ab]+"},
    }
    del start["sampling"]
    assert start == {
        "stream": "a",
        "prompt": "echo",
        "messages": None,
        "drafter": "ngram",
        "draft_length": 3,
        "prediction": "guess",
        "priority": 2,
        "want_drafts": False,
        "committed": [],
        "committed_chars": 0,
        "begun": "",
        "tools": [],
        "counts": {},
        "salt": base64.b64encode(b"k").decode(),
    }


@pytest.mark.parametrize("key", ["x", "9" * 20, "9" * 5000])
async def test_backend_refuses_a_logit_bias_for_what_is_no_token_id(key: str) -> None:
    async with running() as backend:
        with pytest.raises(RequestError, match="not a token id") as caught:
            await backend.generate("a", ask("say", logit_bias={key: 1.0}), Reader())
    assert caught.value.param == "logit_bias"


@pytest.mark.parametrize(
    ("param", "value"), [("max_tokens", 2**64), ("top_k", 2**64), ("stop_token_ids", [1, 2**64])]
)
async def test_backend_refuses_a_number_its_engine_could_not_be_sent(
    param: str, value: object
) -> None:
    async with running() as backend:
        with pytest.raises(RequestError) as caught:
            await backend.generate("a", ask("say", **{param: value}), Reader())
    assert (caught.value.code, caught.value.param) == (ErrorCode.INVALID_VALUE, param)


async def test_backend_tells_the_engine_whether_drafts_are_wanted_even_after_a_restart() -> None:
    async with running() as backend:
        told, untold = Reader(), Reader()
        stalled = Reader()
        await backend.generate("a", ask(f"wait {TEXT}"), told)
        await backend.generate("b", ask(f"wait {TEXT}"), untold)
        await backend.generate("c", ask(f"stall {TEXT}"), stalled)
        backend.want_drafts("a", True)
        backend.want_drafts("b", True)
        backend.want_drafts("b", False)
        await stalled.until(drafted)
        assert backend.engine_pid is not None
        os.kill(backend.engine_pid, signal.SIGKILL)
        await stalled.ended()
        backend.cancel("a")
        backend.cancel("b")
        await told.ended()
        await untold.ended()
    assert (told.text, untold.text) == (TEXT, "")


async def test_backend_raises_request_error_when_the_engine_rejects() -> None:
    async with running() as backend:
        reader = Reader()
        with pytest.raises(RequestError, match="too long") as caught:
            await backend.generate("a", ask("refuse"), reader)
    assert (caught.value.code, caught.value.param) == (ErrorCode.CONTEXT_EXCEEDED, "prompt")
    assert reader.events == []


async def test_backend_continues_streams_with_one_retraction_when_the_engine_is_killed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "wetink.engine")
    async with running() as backend:
        first, second, idle = Reader(), Reader(), Reader()
        await backend.generate("a", ask(f"stall {TEXT}"), first)
        await backend.generate("b", ask(f"stall {TEXT * 2}"), second)
        await backend.generate("c", ask("wait"), idle)
        await first.until(drafted)
        await second.until(drafted)
        killed = backend.engine_pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        ends = [await first.ended(), await second.ended()]
        assert backend.engine_pid != killed
        backend.cancel("c")
        ends.append(await idle.ended())
    assert [end.reason for end in ends if isinstance(end, Finished)] == [
        "stop",
        "stop",
        "cancelled",
    ]
    assert (first.text, second.text) == (TEXT, TEXT * 2)
    assert (first.restarts_seen, second.restarts_seen, idle.restarts_seen) == (1, 1, 0)
    runs = "scripted runs in none with torch kernels"
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.INFO] == [
        runs,
        "the engine is back",
        runs,
        "3 streams continued",
    ]


async def test_backend_keeps_its_pace_when_its_engine_is_killed() -> None:
    async def pace(backend: LocalBackend, stream: str) -> str:
        reader = Reader()
        await backend.generate(stream, ask("pace"), reader)
        await reader.ended()
        return reader.text

    config = EngineConfig(verify_delay_ms=250.0)
    async with running(config=config) as backend:
        assert (backend.verify_delay_ms, await pace(backend, "a")) == (250.0, "250")
        backend.slow_verification(400.0)
        assert (backend.verify_delay_ms, await pace(backend, "b")) == (400.0, "400")
        reader, before = Reader(), backend.engine_pid
        await backend.generate("c", ask("stall " + TEXT), reader, want_drafts=True)
        await reader.until(drafted)
        backend.kill_engine()
        assert not backend.ready
        await reader.ended()
        assert (reader.text, reader.restarts_seen) == (TEXT, 1)
        assert backend.engine_pid != before
        assert await pace(backend, "d") == "400"


async def test_backend_counts_on_when_the_engine_is_killed() -> None:
    """Two tokens are drafted in each step: one step before the kill, three after it."""
    async with running() as backend:
        reader = Reader()
        await backend.generate("a", ask(f"stall {TEXT}"), reader)
        await reader.until(drafted)
        assert backend.engine_pid is not None
        os.kill(backend.engine_pid, signal.SIGKILL)
        finished = await reader.ended()
    assert isinstance(finished, Finished)
    counts = finished.counts
    assert (counts.steps, counts.drafted, counts.accepted) == (4, 8, 8)
    assert counts.completion == len(TEXT)


async def test_backend_reports_the_counts_of_a_stream_cancelled_while_no_engine_runs() -> None:
    async with running() as backend:
        reader = Reader()
        await backend.generate("a", ask(f"stall {TEXT}"), reader)
        await reader.until(drafted)
        backend.cancel("a")  # a stalled stream does not answer
        assert backend.engine_pid is not None
        os.kill(backend.engine_pid, signal.SIGKILL)
        finished = await reader.ended()
    assert isinstance(finished, Finished)
    counts = finished.counts
    assert (counts.steps, counts.drafted, counts.accepted) == (1, 2, 2)
    assert counts.completion == len(reader.text)


async def test_backend_ends_a_stream_as_cancelled_when_the_engine_dies_before_it_says_so() -> None:
    async with running() as backend:
        reader = Reader()
        await backend.generate("a", ask(f"stall {TEXT}"), reader)
        await reader.until(drafted)
        # A stalled stream does not answer a cancel.
        backend.cancel("a")
        assert backend.engine_pid is not None
        os.kill(backend.engine_pid, signal.SIGKILL)
        end = await reader.ended()
    assert isinstance(end, Finished)
    assert (end.reason, end.counts.completion) == ("cancelled", len(TEXT) // 2)
    assert reader.text == TEXT[: len(TEXT) // 2]


async def test_backend_gives_up_the_stream_that_engines_die_of_and_serves_the_others() -> None:
    async with running() as backend:
        with pytest.raises(
            BackendError, match="the engine ends whenever it works on this"
        ) as caught:
            await backend.generate("a", ask("crash"), Reader())
        assert caught.value.code is ErrorCode.ENGINE_FAILED
        while not backend.ready:  # noqa: ASYNC110 - polled, as /readyz is
            await asyncio.sleep(0.01)
        other = Reader()
        await backend.generate("b", ask(f"say {TEXT}"), other)
        await other.ended()
    assert other.text == TEXT


LONG_TEXT = TEXT * 3
"""More than a suspect has to commit for its proof."""


@pytest.mark.parametrize("poison_first", [True, False])
async def test_backend_gives_only_the_poison_up_when_streams_share_an_engine_with_it(
    poison_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as backend:
        poison, innocent = Reader(), [Reader() for _ in range(4)]
        if poison_first:
            await backend.generate("poison", ask("bomb"), poison)
        for number, reader in enumerate(innocent):
            await backend.generate(f"s{number}", ask(f"inch {LONG_TEXT}"), reader)
        if not poison_first:
            await backend.generate("poison", ask("bomb"), poison)
        end = await poison.ended()
        assert isinstance(end, Failed)
        assert (end.code, end.retryable) == (ErrorCode.ENGINE_FAILED, False)
        for reader in innocent:
            assert isinstance(await reader.ended(), Finished)
            assert reader.text == LONG_TEXT
    assert "the engine keeps ending: trying 5 streams one at a time" in caplog.messages


async def test_backend_lets_a_new_stream_wait_while_suspects_are_tried() -> None:
    async with running() as backend:
        poison, innocent, late = Reader(), Reader(), Reader()
        await backend.generate("poison", ask("bomb"), poison)
        await backend.generate("s", ask(f"inch {LONG_TEXT}"), innocent)
        engines = {backend.engine_pid}
        while len(engines - {None}) < 3 or not backend.ready:
            engines.add(backend.engine_pid)
            await asyncio.sleep(0.005)
        await backend.generate("late", ask(f"say {TEXT}"), late)
        assert isinstance(poison.events[-1], Failed) or isinstance(await poison.ended(), Failed)
        await late.ended()
        await innocent.ended()
    assert (late.text, innocent.text) == (TEXT, LONG_TEXT)


@pytest.mark.parametrize("word", ["hang", "loop"])
async def test_backend_continues_streams_when_the_engine_hangs(
    word: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as backend:
        reader = Reader()
        hung = backend.engine_pid
        await backend.generate("a", ask(f"{word} {TEXT}"), reader)
        end = await reader.ended()
        assert backend.engine_pid != hung
    assert isinstance(end, Finished)
    assert (reader.text, reader.restarts_seen) == (TEXT, 1)
    why = {"hang": "no answer for 0.4 s", "loop": "one step has taken more than 5 s"}[word]
    assert f"the engine ended: it hung ({why}) and was killed" in caplog.messages
    assert hung is not None
    assert not exists(hung)


async def test_backend_ends_a_cancelled_stream_in_time_whatever_the_engine_does() -> None:
    patient = msgspec.structs.replace(QUICK, answer_s=600.0)
    async with running(limits=patient) as backend:
        reader = Reader()
        await backend.generate("a", ask(f"hang {TEXT}"), reader)
        await reader.until(drafted)
        pid = backend.engine_pid
        assert pid is not None
        backend.cancel("a")
        end = await reader.ended()
        assert backend.engine_pid == pid, "the engine still hangs"
        os.kill(pid, signal.SIGKILL)
    assert isinstance(end, Finished)
    assert (end.reason, end.counts.completion) == ("cancelled", len(TEXT) // 2)
    assert not exists(pid)


@pytest.mark.parametrize(
    ("model", "start_s", "message"),
    [
        ("hidden", 0.2, "did not connect within 0.2 s"),
        # A busy machine takes its time to start the process that then says nothing.
        ("mute", 2.0, "no progress for 2 s while starting"),
    ],
)
async def test_backend_does_not_wait_for_ever_for_an_engine_to_start(
    model: str, start_s: float, message: str
) -> None:
    with pytest.raises(BackendError, match=message):
        async with running(model, limits=msgspec.structs.replace(QUICK, start_s=start_s)):
            pass


async def test_backend_restarts_the_engine_when_its_own_supervision_fails() -> None:
    loads: list[str] = []

    def complain(phase: str, fraction: float | None) -> None:
        loads.append(phase)
        if len(loads) == 2:
            raise BrokenPipeError("nobody reads the progress")

    backend = LocalBackend(EngineConfig(), QUICK, on_progress=complain, worker=WORKER)
    await backend.start()
    reader = Reader()
    await backend.generate("a", ask(f"stall {TEXT}"), reader)
    await reader.until(drafted)
    assert backend.engine_pid is not None
    os.kill(backend.engine_pid, signal.SIGKILL)
    assert isinstance(await reader.ended(), Finished)
    assert reader.text == TEXT
    assert len(loads) == 3
    await backend.stop()


async def test_stream_whose_sink_raises_ends_alone(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(event: BackendEvent) -> None:
        raise ValueError("cannot be taken")

    async with running() as backend:
        reader = Reader()
        await backend.generate("a", ask(f"stall {TEXT}"), reader)
        await backend.generate("b", ask(f"stall {TEXT}"), refuse)
        await reader.until(drafted)
        assert backend.engine_pid is not None
        os.kill(backend.engine_pid, signal.SIGKILL)
        assert isinstance(await reader.ended(), Finished)
    assert reader.text == TEXT
    assert caplog.messages.count("a stream's events could not be delivered") == 1


async def test_stream_reports_the_prompt_tokens_its_first_engine_had_cached() -> None:
    async with running() as backend:
        reader = Reader()
        await backend.generate("a", ask(f"stall {TEXT}"), reader)
        await reader.until(drafted)
        assert backend.engine_pid is not None
        os.kill(backend.engine_pid, signal.SIGKILL)
        finished = await reader.ended()
    assert isinstance(finished, Finished)
    assert finished.counts.cached_prompt == scripted_engine.CACHED_AT_FIRST


async def test_backend_gives_all_streams_up_when_engines_keep_dying() -> None:
    seldom = msgspec.structs.replace(QUICK, max_restarts=1)
    async with running(limits=seldom) as backend:
        stalled = Reader()
        await backend.generate("a", ask(f"stall {TEXT}"), stalled)
        with pytest.raises(BackendError, match="keeps failing") as caught:
            await backend.generate("b", ask("crash"), Reader())
        assert caught.value.code is ErrorCode.ENGINE_FAILED
        assert not backend.ready
        with pytest.raises(BackendError) as refused:
            await backend.generate("c", ask(f"say {TEXT}"), Reader())
        assert refused.value.retryable


async def test_backend_does_not_start_when_the_engine_cannot() -> None:
    for model, message in (
        ("fatal", "dtype: no such thing"),
        ("exit", f"status {scripted_engine.EXIT_STATUS}"),
        ("garbage", "invalid"),
    ):
        with pytest.raises(BackendError, match=f"(?i){message}"):
            async with running(model):
                pass


async def test_backend_does_not_start_when_the_program_is_missing() -> None:
    with pytest.raises(BackendError, match="cannot be run"):
        async with running(worker=("/nonexistent/engine",)):
            pass


async def test_backend_ends_its_process_and_its_streams_when_stopped() -> None:
    async with running() as backend:
        reader = Reader()
        await backend.generate("a", ask("wait"), reader)
        pid = backend.engine_pid
        assert pid is not None
    end = await reader.ended()
    assert isinstance(end, Failed)
    assert (end.code, end.retryable) == (ErrorCode.SHUTTING_DOWN, True)
    assert not exists(pid)


async def test_backend_kills_an_engine_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "EXIT_GRACE_S", 0.1)
    async with running("deaf") as backend:
        pid = backend.engine_pid
        assert pid is not None
    assert not exists(pid)


async def test_backend_leaves_no_process_when_stopped_while_an_engine_is_being_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "EXIT_GRACE_S", 0.2)
    async with running() as backend:
        reader = Reader()
        pid = backend.engine_pid
        assert pid is not None
        await backend.generate("a", ask(f"leave {TEXT}"), reader)
        await reader.until(lambda event: isinstance(event, Drafted) and event.cause is not None)
    assert not exists(pid)


async def test_backend_leaves_no_process_when_its_start_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spawned: list[int] = []
    run = asyncio.create_subprocess_exec

    async def record(*command: str, **options: int) -> asyncio.subprocess.Process:
        process = await run(*command, **options)  # type: ignore[arg-type]
        spawned.append(process.pid)
        giving_up.set()
        return process

    giving_up = asyncio.Event()
    monkeypatch.setattr(asyncio, "create_subprocess_exec", record)
    never_connects = (sys.executable, "-c", "import signal; signal.pause()")
    backend = LocalBackend(EngineConfig(), worker=never_connects)
    starting = asyncio.create_task(backend.start())
    await giving_up.wait()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await backend.stop()
    (pid,) = spawned
    assert not exists(pid)


async def test_backend_forgets_a_stream_whose_caller_went_away_before_admission() -> None:
    async with running() as backend:
        reader = Reader()
        waiting = asyncio.create_task(backend.generate("a", ask("wait"), reader))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        other = Reader()
        await backend.generate("b", ask(f"say {TEXT}"), other)
        await other.ended()
    assert reader.events == []
    assert other.text == TEXT


@pytest.mark.slow
async def test_streams_of_the_real_engine_say_the_same_when_it_is_killed_midway(
    tmp_path: Path,
) -> None:
    """A random model writes any bytes, so code points break across tokens all the time."""
    write_tiny_llama(tmp_path / "tiny", context=512)
    config = EngineConfig(
        model=str(tmp_path / "tiny"), dtype="float32", threads=1, drafter="ngram", kv_memory_mib=16
    )
    messages = [Message("user", "wet ink ☕")]
    requests = [
        GenerationRequest(
            messages=messages, max_tokens=240, seed=seed, temperature=0.8, ignore_eos=True
        )
        for seed in range(2)
    ]

    async def generate(backend: LocalBackend, *, kill: bool) -> list[Reader]:
        readers = [Reader() for _ in requests]
        for number, (request, reader) in enumerate(zip(requests, readers, strict=True)):
            await backend.generate(f"{kill}{number}", request, reader)
            backend.want_drafts(f"{kill}{number}", True)
        if kill:
            await readers[-1].until(lambda event: isinstance(event, Verified))
            assert backend.engine_pid is not None
            os.kill(backend.engine_pid, signal.SIGKILL)
        for reader in readers:
            assert isinstance(await reader.ended(), Finished)
        return readers

    async with running(config=config, worker=REAL_WORKER, limits=SupervisionConfig()) as backend:
        first = backend.engine_pid
        undisturbed = await generate(backend, kill=False)
        assert backend.engine_pid == first
        disturbed = await generate(backend, kill=True)
        assert backend.engine_pid != first
    assert [reader.text for reader in disturbed] == [reader.text for reader in undisturbed]
    assert all(reader.restarts_seen <= 1 for reader in disturbed)
    assert len({reader.text for reader in disturbed}) == len(requests)
