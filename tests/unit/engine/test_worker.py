"""The worker around an engine that counts: one step, one token, no model."""

from __future__ import annotations

import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import pytest

from engine import worker
from engine.config import EngineConfig, decode_config
from engine.errors import EngineConfigError, EngineRequestError, IntegrityError
from engine.frames import (
    LENGTH_PREFIX_BYTES,
    MAX_FRAME_BYTES,
    Accepted,
    Cancel,
    Drafted,
    Fatal,
    Finished,
    FromEngine,
    Load,
    Loading,
    Ping,
    Pong,
    Ready,
    Rejected,
    SlowVerification,
    Start,
    Step,
    ToEngine,
    Verified,
    WantDrafts,
)
from engine.loading.checkpoint import CheckpointError
from engine.sampling.params import SamplingParams
from engine.text.prompts import Encoded
from engine.worker import EXIT_CONFIG, EXIT_FAILED, EngineLike, Progress, serve

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

READY = Ready("counting", 64, 100, "none", ["none"], 4, 16)
_decoder = msgspec.msgpack.Decoder(FromEngine)
MakeEngine: TypeAlias = Callable[[EngineConfig, Progress], EngineLike]


class CountingEngine:
    """Each stream says `word` per step, `max_tokens` times; `on_step` may interfere."""

    def __init__(
        self,
        on_step: Callable[[], None] = lambda: None,
        word: str = "x",
        on_encode: Callable[[Start], None] = lambda start: None,
    ) -> None:
        self.word = word
        self.on_encode = on_encode
        self.left: dict[str, int] = {}
        self.wanted: dict[str, bool] = {}
        self.on_step = on_step
        self.closed = threading.Event()
        self.idled = threading.Event()

    def info(self) -> Ready:
        return READY

    @property
    def has_work(self) -> bool:
        return bool(self.left)

    def load(self) -> Load:
        return Load(running=len(self.left))

    def encode(self, start: Start) -> Encoded:
        self.on_encode(start)
        return Encoded([1], True, [])

    def add(self, start: Start, encoded: Encoded) -> Accepted:
        assert encoded.prompt == [1]
        if start.sampling.max_tokens > READY.context_length:
            raise EngineRequestError("context_exceeded", "too much", "max_tokens")
        self.left[start.stream] = start.sampling.max_tokens
        return Accepted(start.stream, 1, 7)

    def cancel(self, stream: str) -> None:
        self.left[stream] = 0

    def want_drafts(self, stream: str, wanted: bool) -> None:
        self.wanted[stream] = wanted

    def slow_verification(self, delay_ms: float) -> None:
        self.word = f"{delay_ms:g} "

    def step(self, emit: Callable[[Step], None]) -> None:
        self.on_step()
        for stream, left in list(self.left.items()):
            if self.wanted.get(stream):
                emit(Step([(stream, Drafted(self.word))]))
            if left:
                self.left[stream] -= 1
                emit(Step([(stream, Verified(self.word))]))
            else:
                del self.left[stream]
                emit(Step([(stream, Finished("length"))]))

    def idle(self) -> None:
        assert not self.has_work
        self.idled.set()

    def close(self) -> None:
        self.closed.set()


class Gateway:
    """The other end of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def send(self, frame: ToEngine) -> None:
        data = msgspec.msgpack.encode(frame)
        self.send_bytes(len(data).to_bytes(LENGTH_PREFIX_BYTES, "big") + data)

    def send_bytes(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> FromEngine:
        return _decoder.decode(self._read(int.from_bytes(self._read(LENGTH_PREFIX_BYTES), "big")))

    def hang_up(self, how: int = socket.SHUT_RDWR) -> None:
        self._socket.shutdown(how)

    def _read(self, size: int) -> bytes:
        return self._socket.recv(size, socket.MSG_WAITALL)


@contextmanager
def serving(
    make_engine: MakeEngine, config: str = "{}"
) -> Generator[tuple[Gateway, queue.SimpleQueue[int]]]:
    """A gateway, and where the worker's exit status will be."""
    status: queue.SimpleQueue[int] = queue.SimpleQueue()
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=lambda: status.put(serve(theirs, config, make_engine)))
    with ours, theirs:
        ours.settimeout(30)
        thread.start()
        gateway = Gateway(ours)
        try:
            yield gateway, status
        finally:
            gateway.hang_up()
            thread.join(30)


def counting(engine: CountingEngine) -> MakeEngine:
    return lambda config, progress: engine


def start(stream: str, max_tokens: int = 2) -> Start:
    return Start(
        stream=stream,
        prompt="p",
        messages=None,
        sampling=SamplingParams(max_tokens=max_tokens),
        drafter=None,
        draft_length=None,
        prediction=None,
        priority=0,
        want_drafts=False,
        committed=[],
        committed_chars=0,
    )


def test_worker_reports_loading_then_ready_then_each_step() -> None:
    def load(config: EngineConfig, progress: Progress) -> EngineLike:
        progress(f"loading {config.model}", 0.5)
        return CountingEngine()

    with serving(load, '{"model": "m"}') as (gateway, _):
        assert gateway.receive() == Loading("loading m", 0.5)
        assert gateway.receive() == READY
        gateway.send(start("a"))
        letter = Step([("a", Verified("x"))])
        end = Step([("a", Finished("length"))])
        assert [gateway.receive() for _ in range(4)] == [Accepted("a", 1, 7), letter, letter, end]


def test_worker_answers_a_bad_request_and_goes_on() -> None:
    with serving(counting(CountingEngine())) as (gateway, _):
        gateway.receive()
        gateway.send(start("a", max_tokens=65))
        assert gateway.receive() == Rejected("a", "context_exceeded", "too much", "max_tokens")
        gateway.send(start("b"))
        assert gateway.receive() == Accepted("b", 1, 7)


def test_worker_takes_frames_between_steps() -> None:
    stepping, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        stepping.set()
        assert go_on.wait(30)

    engine = CountingEngine(pause)
    with serving(counting(engine)) as (gateway, _):
        gateway.receive()
        gateway.send(start("a", max_tokens=50))
        gateway.receive()
        assert stepping.wait(30)
        gateway.send(WantDrafts("a", True))
        gateway.send(Cancel("a"))
        gateway.send(Ping())  # once it is answered, what was sent before it is there
        assert isinstance(gateway.receive(), Pong)
        go_on.set()
        seen = [gateway.receive()]
        while not isinstance(seen[-1], Step) or not isinstance(seen[-1].events[0][1], Finished):
            seen.append(gateway.receive())
    assert len(seen) < 50
    assert engine.wanted == {"a": True}


def test_worker_lets_an_engine_without_work_look_after_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "IDLE_S", 0.001)
    engine = CountingEngine()
    with serving(counting(engine)) as (gateway, _):
        gateway.receive()
        assert engine.idled.wait(30)
        gateway.send(start("a"))
        assert gateway.receive() == Accepted("a", 1, 7)
        for _ in range(3):
            gateway.receive()
        engine.idled.clear()
        assert engine.idled.wait(30)


def test_worker_tells_its_engine_how_slow_to_verify() -> None:
    with serving(counting(CountingEngine())) as (gateway, _):
        gateway.receive()
        gateway.send(SlowVerification(40.0))
        gateway.send(start("a"))
        assert gateway.receive() == Accepted("a", 1, 7)
        assert gateway.receive() == Step([("a", Verified("40 "))])


def test_worker_answers_a_ping_in_the_middle_of_a_step_and_says_how_long_it_has_taken() -> None:
    stepping, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        stepping.set()
        assert go_on.wait(30)

    with serving(counting(CountingEngine(pause))) as (gateway, _):
        gateway.receive()
        gateway.send(Ping())
        assert gateway.receive() == Pong(0.0)
        gateway.send(start("a", max_tokens=1))
        gateway.receive()
        assert stepping.wait(30)
        busy = [0.0]
        for _ in range(3):
            gateway.send(Ping())
            pong = gateway.receive()
            assert isinstance(pong, Pong)
            busy.append(pong.busy_s)
        go_on.set()
        gateway.receive()
        gateway.receive()
        pong = Pong(1.0)
        while pong != Pong(0.0):
            gateway.send(Ping())
            answer = gateway.receive()
            assert isinstance(answer, Pong)
            pong = answer
    assert busy == sorted(set(busy))


def test_worker_says_how_long_it_has_been_encoding_a_prompt() -> None:
    encoding, go_on = threading.Event(), threading.Event()

    def hold(start: Start) -> None:
        encoding.set()
        assert go_on.wait(30)

    with serving(counting(CountingEngine(on_encode=hold))) as (gateway, _):
        gateway.receive()
        gateway.send(start("a"))
        assert encoding.wait(30)
        gateway.send(Ping())
        pong = gateway.receive()
        go_on.set()
    assert isinstance(pong, Pong)
    assert pong.busy_s > 0.0


def test_worker_ends_instead_of_refusing_a_request_when_its_memory_is_used_up() -> None:
    def fail(start: Start) -> None:
        raise MemoryError

    with serving(counting(CountingEngine(on_encode=fail))) as (gateway, status):
        gateway.receive()
        gateway.send(start("a"))
        assert isinstance(gateway.receive(), Fatal)
        assert status.get(timeout=30) == EXIT_FAILED


def test_worker_goes_on_while_a_long_prompt_is_encoded() -> None:
    encoding, go_on = threading.Event(), threading.Event()

    def hold(start: Start) -> None:
        if start.stream == "long":
            encoding.set()
            assert go_on.wait(30)

    engine = CountingEngine(on_encode=hold)
    with serving(counting(engine)) as (gateway, _):
        gateway.receive()
        gateway.send(start("a", max_tokens=60))
        assert gateway.receive() == Accepted("a", 1, 7)
        gateway.send(start("long"))
        assert encoding.wait(30)
        seen = [gateway.receive()]
        while seen[-1] != Step([("a", Finished("length"))]):
            seen.append(gateway.receive())
        gateway.send(WantDrafts("long", True))
        gateway.send(Cancel("long"))
        gateway.send(Ping())
        assert isinstance(gateway.receive(), Pong)  # what was sent before has been received
        go_on.set()
        # What came meanwhile for its stream waited for it, and came in order.
        assert gateway.receive() == Accepted("long", 1, 7)
        assert gateway.receive() == Step([("long", Drafted("x"))])
        assert gateway.receive() == Step([("long", Finished("length"))])
    assert engine.wanted == {"long": True}


def test_worker_refuses_a_request_whose_prompt_cannot_be_encoded() -> None:
    def fail(start: Start) -> None:
        if start.stream == "long":
            raise EngineRequestError("context_exceeded", "too long", "prompt")
        if start.stream == "odd":
            raise LookupError("a fault of ours")

    with serving(counting(CountingEngine(on_encode=fail))) as (gateway, _):
        gateway.receive()
        gateway.send(start("long"))
        assert gateway.receive() == Rejected("long", "context_exceeded", "too long", "prompt")
        gateway.send(start("odd"))
        refused = gateway.receive()
        assert isinstance(refused, Rejected)
        assert (refused.stream, refused.code) == ("odd", "internal")
        assert "LookupError" in refused.message
        gateway.send(start("b"))
        assert gateway.receive() == Accepted("b", 1, 7)


def test_worker_ends_without_fault_when_its_gateway_is_gone() -> None:
    engine = CountingEngine()
    with serving(counting(engine)) as (gateway, status):
        gateway.receive()
        gateway.hang_up()
        assert status.get(timeout=30) == 0
    assert engine.closed.is_set()


def test_worker_ends_in_the_middle_of_work_when_its_gateway_is_gone() -> None:
    engine = CountingEngine()
    with serving(counting(engine)) as (gateway, status):
        gateway.receive()
        gateway.send(start("a", max_tokens=64))
        gateway.receive()
        engine.left["a"] = 10**9
        gateway.hang_up()
        assert status.get(timeout=30) == 0


def test_worker_stops_loading_when_its_gateway_is_gone() -> None:
    def load(config: EngineConfig, progress: Progress) -> EngineLike:
        while True:
            progress("loading for ever", None)

    with serving(load) as (gateway, status):
        gateway.receive()
        gateway.hang_up()
        assert status.get(timeout=30) == 0


@pytest.mark.parametrize(
    ("error", "fatal", "expected"),
    [
        (
            EngineConfigError("too much", "kv_blocks"),
            Fatal("invalid_config", "kv_blocks: too much"),
            EXIT_CONFIG,
        ),
        (
            CheckpointError("model_not_found", "no such"),
            Fatal("model_not_found", "no such"),
            EXIT_FAILED,
        ),
        (RuntimeError("boom"), Fatal("internal", "RuntimeError: boom"), EXIT_FAILED),
    ],
)
def test_worker_says_why_it_cannot_start(
    error: Exception, fatal: Fatal, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    def load(config: EngineConfig, progress: Progress) -> EngineLike:
        raise error

    with serving(load) as (gateway, status):
        assert gateway.receive() == fatal
        assert status.get(timeout=30) == expected
    # A traceback is for our faults; the operator's are told by the gateway.
    traceback = any(record.exc_info for record in caplog.records)
    assert traceback == isinstance(error, RuntimeError)


def test_worker_says_why_it_cannot_go_on() -> None:
    def fail() -> None:
        raise IntegrityError("a block is used twice")

    engine = CountingEngine(fail)
    with serving(counting(engine)) as (gateway, status):
        gateway.receive()
        gateway.send(start("a"))
        gateway.receive()
        assert gateway.receive() == Fatal("internal", "a block is used twice")
        assert status.get(timeout=30) == EXIT_FAILED
    assert engine.closed.is_set()


def test_worker_refuses_to_send_a_frame_over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MAX_FRAME_BYTES", 500)
    with serving(counting(CountingEngine(word="x" * 500))) as (gateway, status):
        gateway.receive()
        gateway.send(start("a"))
        gateway.receive()
        assert gateway.receive() == Fatal("internal", "an outgoing frame is over 500 bytes")
        assert status.get(timeout=30) == EXIT_FAILED


@pytest.mark.parametrize(
    "data",
    [
        (MAX_FRAME_BYTES + 1).to_bytes(LENGTH_PREFIX_BYTES, "big"),
        b"\x00\x00\x00\x01\xc1",
        b"\x00\x00",
    ],
)
def test_worker_ends_when_what_it_receives_is_no_frame(data: bytes) -> None:
    with serving(counting(CountingEngine())) as (gateway, status):
        gateway.receive()
        gateway.send_bytes(data)
        gateway.hang_up(socket.SHUT_WR)
        assert status.get(timeout=30) == 0


@pytest.mark.parametrize(
    ("text", "param", "message"),
    [
        (
            '{"dtype": "int3"}',
            "dtype",
            "'int3'; allowed: auto, bfloat16, float16, float32, int4, int8$",
        ),
        (
            '{"drafter": "x"}',
            "drafter",
            "'x'; allowed: combined, head, model, ngram, none, suffix$",
        ),
        ('{"block_size": 5}', "block_size", "5; allowed: 16, 32, 64$"),
        ('{"threads": 0}', "threads", "^Expected `int` >= 1$"),
        ('{"draft_length": 99}', "draft_length", "^Expected `int` <= 16$"),
        ('{"modle": "x"}', "config", "modle.*settings: model,"),
        ("{", "config", "settings: model,"),
    ],
)
def test_configuration_errors_name_the_setting_and_what_is_allowed(
    text: str, param: str, message: str
) -> None:
    with pytest.raises(EngineConfigError, match=message) as caught:
        decode_config(text)
    assert caught.value.param == param


def test_configuration_keeps_defaults_for_what_is_left_out() -> None:
    assert decode_config('{"model": "m"}') == EngineConfig(model="m")


def test_program_tells_a_bad_setting_over_the_socket_it_was_given(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        program = [sys.executable, "-m", "engine.worker"]
        process = subprocess.Popen([*program, "--socket", path, "--config", '{"dtype": 1}'])
        sock, _ = listener.accept()
        with sock:
            fatal = Gateway(sock).receive()
        assert process.wait(60) == EXIT_CONFIG
    assert isinstance(fatal, Fatal)
    assert fatal.code == "invalid_config"
