"""`wetink stream`: reads one generation in a terminal."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO, assert_never

from protocol.codec import encode_json
from protocol.errors import WetinkError
from protocol.events import (
    Commit,
    Error,
    Finish,
    Heartbeat,
    Open,
    Part,
    Retract,
    ServerEvent,
    Tentative,
)
from wetink.client import TransportName, stream
from wetink.errors import ConnectionLost, RequestRefused, Unreachable
from wetink.painter import Painter, Size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wetink.subscription import Subscription

DEFAULT_URL = "http://127.0.0.1:8000"
STRUCK_S = 0.25
"""How long text that was taken back stays visible: long enough to be noticed."""
CANCEL_S = 3.0
"""How long after Ctrl-C the server's `finish` is waited for."""

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_PIPE = 0, 1, 2, 130, 141
_TRANSPORTS: dict[str, TransportName] = {"sse": "sse", "ws": "websocket"}


def main(argv: Sequence[str]) -> int:
    """Runs `wetink stream ARGV`; returns the exit status."""
    options = _parser().parse_args(argv)
    _speak_utf8(sys.stdout)
    _speak_utf8(sys.stderr)
    try:
        fields = _request_fields(options)
    except (OSError, UnicodeDecodeError) as error:
        return _complain(str(error), EXIT_USAGE)
    try:
        return asyncio.run(_Run(options).read(fields))
    except Unreachable as error:
        return _complain(
            f"no gateway answers at {options.url} ({error}); start one with: wetink serve",
            EXIT_FAILED,
        )
    except RequestRefused as error:
        return _complain(str(error), EXIT_USAGE)
    except WetinkError as error:
        return _complain(str(error), EXIT_FAILED)
    except BrokenPipeError:
        # The interpreter would flush stdout once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wetink stream",
        description="Generate text and show what is committed and what is only drafted.",
    )
    add = parser.add_argument
    add("prompt", help="what to say to the model; - reads it from standard input")
    add("--url", default=DEFAULT_URL, help="the gateway (default: %(default)s)")
    add("--transport", choices=list(_TRANSPORTS), default="sse")
    add(
        "--policy",
        default="retract",
        help="hold, retract, chunk:sentence (or another unit), or a profile (default: %(default)s)",
    )
    add(
        "--completion",
        action="store_true",
        help="continue the prompt as it stands instead of answering it as a chat message",
    )
    add("--system", metavar="TEXT", help="system message before the prompt")
    add("--json", action="store_true", help="print the events, one per line")
    request = parser.add_argument_group("request")
    add = request.add_argument
    add("--model")
    add("--max-tokens", type=int, metavar="N")
    add("--temperature", type=float, metavar="T")
    add("--top-p", type=float, metavar="P")
    add("--top-k", type=int, metavar="K")
    add("--seed", type=int, metavar="N")
    add("--stop", action="append", metavar="TEXT", help="end before this text; may be repeated")
    add("--drafter", choices=["ngram", "model"])
    add("--draft-length", type=int, metavar="N", help="most drafted tokens per step; 0: none")
    add("--prediction", type=Path, metavar="FILE", help="text the drafter may copy from")
    return parser


def _request_fields(options: argparse.Namespace) -> dict[str, Any]:
    """Only what was given: the server's defaults stay the server's."""
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    fields: dict[str, Any] = {"policy": options.policy}
    if options.completion:
        fields["prompt"] = prompt
    else:
        system = [] if options.system is None else [{"role": "system", "content": options.system}]
        fields["messages"] = [*system, {"role": "user", "content": prompt}]
    for name in ("model", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop"):
        fields[name] = getattr(options, name)
    draft = {"drafter": options.drafter, "length": options.draft_length}
    if any(value is not None for value in draft.values()):
        fields["draft"] = {name: value for name, value in draft.items() if value is not None}
    if options.prediction is not None:
        fields["prediction"] = options.prediction.read_text(encoding="utf-8")
    return fields


class _Run:
    """One call of the command: reads the stream, answers Ctrl-C, sums up."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._interrupted = False
        self._cancelling: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None

    async def read(self, fields: dict[str, Any]) -> int:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt, task)
        screen = _screen(self._options)
        summary = Summary(time.monotonic())
        try:
            async with stream(
                self._options.url, transport=_TRANSPORTS[self._options.transport], **fields
            ) as subscription:
                self._subscription = subscription
                await self._show(subscription, screen, summary)
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            screen.close()
            if summary.opened:
                _say(summary.line(time.monotonic()))
        return EXIT_INTERRUPTED if self._interrupted else EXIT_OK

    async def _show(self, subscription: Subscription, screen: Screen, summary: Summary) -> None:
        try:
            async for event in subscription:
                summary.add(event, time.monotonic())
                screen.show(event, subscription.view.tail)
        except BrokenPipeError:
            with contextlib.suppress(ConnectionLost):
                await subscription.cancel()
            raise

    def _interrupt(self, task: asyncio.Task[Any]) -> None:
        """First Ctrl-C: cancel on the server and read on to its `finish`. Second: leave."""
        if self._interrupted or self._subscription is None:
            self._interrupted = True
            task.cancel()
            return
        self._interrupted = True
        self._cancelling = asyncio.create_task(self._cancel(self._subscription))
        asyncio.get_running_loop().call_later(CANCEL_S, task.cancel)

    async def _cancel(self, subscription: Subscription) -> None:
        try:
            await subscription.cancel()
        except WetinkError as error:
            _say(f"wetink: {error}")


class Screen(Protocol):
    def show(self, event: ServerEvent, tail: str) -> None:
        """`tail`: the tail after `event`."""
        ...

    def close(self) -> None: ...


def _screen(options: argparse.Namespace) -> Screen:
    if options.json:
        return JSONLines(sys.stdout)
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveScreen(sys.stdout)
    return CommittedText(sys.stdout)


class JSONLines:
    """Every event as it came, one per line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, event: ServerEvent, tail: str) -> None:
        self._out.write(encode_json(event).decode() + "\n")
        self._out.flush()

    def close(self) -> None:
        pass


class CommittedText:
    """For pipes and files: the committed text, byte for byte, and nothing else."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, event: ServerEvent, tail: str) -> None:
        if isinstance(event, Commit):
            self._out.write(event.text)
            self._out.flush()

    def close(self) -> None:
        pass


class LiveScreen:
    """For terminals: committed text plain, the tail dim, what was taken back struck through."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._painter = Painter(self._write, self._size)
        self._tail = ""
        self._struck = ""
        self._timer: asyncio.TimerHandle | None = None

    def show(self, event: ServerEvent, tail: str) -> None:
        committed = ""
        match event:
            case Commit():
                committed = event.text
                if event.retract is not None:
                    self._strike(event.retract.n)
            case Retract():
                self._strike(event.n)
            case Part():
                committed = f"\n[{event.kind}{f' {event.name}' if event.name else ''}]\n"
            case Open() | Tentative() | Finish() | Error() | Heartbeat():
                pass
            case _:
                assert_never(event)
        self._tail = tail
        self._painter.update(committed, tail, self._struck)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._painter.close()

    def _strike(self, n: int) -> None:
        """`n` code points are gone from the end of the tail: shown behind it for a moment."""
        self._struck = self._tail[len(self._tail) - n :]
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(STRUCK_S, self._unstrike)

    def _unstrike(self) -> None:
        self._struck = ""
        self._painter.unstrike()

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _size(self) -> Size:
        columns, lines = os.get_terminal_size(self._out.fileno())
        return Size(columns or 80, lines or 24)


class Summary:
    """What the command says at the end. Speed by this clock, the rest as the server counted."""

    def __init__(self, started_at: float) -> None:
        self.opened = False
        self._started_at = started_at
        self._ended_at: float | None = None
        self._finish: Finish | None = None

    def add(self, event: ServerEvent, now: float) -> None:
        self.opened = True
        if isinstance(event, Finish):
            self._finish = event
            self._ended_at = now

    def line(self, now: float) -> str:
        elapsed = (self._ended_at or now) - self._started_at
        if self._finish is None:
            return f"no closing statistics after {elapsed:.2f} s"
        usage, stats = self._finish.usage, self._finish.stats
        tokens = usage.completion_tokens
        fields = [
            f"{tokens} tokens in {elapsed:.2f} s ({tokens / max(elapsed, 1e-3):.1f} tokens/s)",
            f"acceptance {_percent(stats.acceptance_rate)}",
            f"TTFV {_milliseconds(stats.ttfv_ms)}",
            f"TTC {_milliseconds(stats.ttfc_ms)}",
            f"NE {stats.normalized_erasure:.3f}",
            f"{stats.retractions} retraction{'' if stats.retractions == 1 else 's'}",
            self._finish.reason,
        ]
        return " · ".join(fields)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _milliseconds(time_ms: float | None) -> str:
    return "-" if time_ms is None else f"{time_ms:.0f} ms"


def _complain(message: str, status: int) -> int:
    _say(f"wetink: {message}")
    return status


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _speak_utf8(out: TextIO) -> None:
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(encoding="utf-8", errors="replace")
