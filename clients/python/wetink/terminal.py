"""`wetink stream` and `wetink attach`: read one generation in a terminal."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO, assert_never, get_args

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
from protocol.requests import GenerationRequest
from wetink.client import TransportName, attach, stream
from wetink.errors import ConnectionLost, RequestRefused, Unreachable
from wetink.painter import Painter, Size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wetink.streams import Stream

DEFAULT_URL = "http://127.0.0.1:8000"
STRUCK_S = 0.12
"""How long text that was taken back stays where it stood: long enough to be noticed."""
DEFAULT_MAX_TOKENS = GenerationRequest(prompt="").max_tokens
LOST = "connection lost, resuming…"
KEY_VARIABLE = "WETINK_KEY"
"""Where a key is looked for that is not on the command line, which others could see."""
CANCEL_S = 3.0
"""How long after Ctrl-C the server's `finish` is waited for."""

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_PIPE = 0, 1, 2, 130, 141
_TRANSPORTS: tuple[TransportName, ...] = get_args(TransportName)


def main(argv: Sequence[str]) -> int:
    """Runs `wetink stream ARGV`; returns the exit status."""
    options = _stream_parser().parse_args(argv)
    try:
        fields = _request_fields(options)
    except (OSError, UnicodeDecodeError) as error:
        return _complain(str(error), EXIT_USAGE)
    return _run(options, partial(stream, options.url, **fields))


def attach_main(argv: Sequence[str]) -> int:
    """Runs `wetink attach ARGV`; returns the exit status."""
    options = _attach_parser().parse_args(argv)
    return _run(
        options,
        partial(attach, options.url, options.stream, policy=options.policy, cursor=options.cursor),
    )


def _run(options: argparse.Namespace, begin: Callable[..., Stream]) -> int:
    """`begin` takes what both ways in have in common."""
    _speak_utf8(sys.stdout)
    _speak_utf8(sys.stderr)
    try:
        return asyncio.run(_Run(options).read(begin))
    except Unreachable as error:
        return _complain(
            f"no gateway answers at {options.url} ({error}); start one with: wetink serve",
            EXIT_FAILED,
        )
    except RequestRefused as error:
        hint = f"; give one with --key or {KEY_VARIABLE}" if _lacks_key(error, options) else ""
        return _complain(f"{error}{hint}", EXIT_USAGE)
    except WetinkError as error:
        return _complain(str(error), EXIT_FAILED)
    except BrokenPipeError:
        # The interpreter would flush stdout once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE


def _lacks_key(refused: RequestRefused, options: argparse.Namespace) -> bool:
    return refused.code == "unauthorized" and _key(options) is None


def _key(options: argparse.Namespace) -> str | None:
    return options.key or os.environ.get(KEY_VARIABLE)


def _stream_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wetink stream",
        description="Generate text and show what is committed and what is only drafted.",
        epilog="In the closing line: TTFV: time to the first visible text; TTC: time to the first "
        "committed text; NE: normalised erasure, the code points taken back per code point of the "
        "final text.",
    )
    add = parser.add_argument
    add("prompt", help="what to say to the model; - reads it from standard input")
    _add_reading(parser)
    add(
        "--completion",
        action="store_true",
        help="continue the prompt as it stands instead of answering it as a chat message",
    )
    add("--system", metavar="TEXT", help="system message before the prompt")
    request = parser.add_argument_group("request")
    add = request.add_argument
    add("--model", help="default: the one the gateway serves")
    add("--max-tokens", type=int, metavar="N", help=f"default: {DEFAULT_MAX_TOKENS}")
    add(
        "--temperature",
        type=float,
        metavar="T",
        help="0: always the likeliest; default: the model's own",
    )
    add("--top-p", type=float, metavar="P", help="default: the model's own")
    add("--top-k", type=int, metavar="K", help="default: the model's own")
    add("--seed", type=int, metavar="N", help="same seed, same text; default: a random one")
    add("--stop", action="append", metavar="TEXT", help="end before this text; may be repeated")
    add(
        "--drafter",
        choices=["ngram", "suffix", "head", "combined", "model"],
        help="default: the gateway's",
    )
    add("--draft-length", type=int, metavar="N", help="most drafted tokens per step; 0: none")
    add("--prediction", type=Path, metavar="FILE", help="text the drafter may copy from")
    return parser


def _attach_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wetink attach",
        description="Read a stream that somebody else started, or that was left before its end. "
        "Ctrl-C ends the reading; the generation goes on.",
    )
    parser.add_argument("stream", metavar="ID", help="the stream's id, as its `open` event says it")
    _add_reading(parser)
    parser.add_argument("--cursor", help="go on behind this place; default: from the beginning")
    return parser


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """Where to read, and how it shall look."""
    add = parser.add_argument
    add("--url", default=DEFAULT_URL, help="the gateway (default: %(default)s)")
    add("--key", help=f"for a gateway that needs one (default: the variable {KEY_VARIABLE})")
    add("--transport", choices=_TRANSPORTS, default="sse", help="default: %(default)s")
    add(
        "--policy",
        default="chat",
        help="hold, retract, retract:0.05 (at most so much of the text is taken back),"
        " chunk:sentence (or another unit), or a profile (default: %(default)s)",
    )
    add("--json", action="store_true", help="print the events, one per line")


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
        self._stream: Stream | None = None

    async def read(self, begin: Callable[..., Stream]) -> int:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt, task)
        screen = _screen(self._options)
        summary = Summary(time.monotonic())
        failed = False
        try:
            async with begin(
                transport=self._options.transport,
                key=_key(self._options),
                on_interruption=screen.interrupted,
            ) as story:
                self._stream = story
                await self._show(story, screen, summary)
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
        except WetinkError:
            failed = True  # the reason is all there is to say
            raise
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            try:
                screen.close()
            finally:
                if summary.opened and not failed:
                    _say(_wrapped(summary.fields(time.monotonic())))
        return EXIT_INTERRUPTED if self._interrupted else EXIT_OK

    async def _show(self, stream: Stream, screen: Screen, summary: Summary) -> None:
        try:
            async for event in stream:
                summary.add(event, time.monotonic())
                screen.show(event, stream.view.tail)
        except BrokenPipeError:
            with contextlib.suppress(ConnectionLost):
                await stream.cancel()
            raise

    def _interrupt(self, task: asyncio.Task[Any]) -> None:
        """First Ctrl-C: cancel on the server what was started here and read on to its `finish`.
        Second: leave.
        """
        if self._interrupted or self._stream is None or not self._stream.started_here:
            self._interrupted = True
            task.cancel()
            return
        self._interrupted = True
        self._cancelling = asyncio.create_task(self._cancel(self._stream))
        asyncio.get_running_loop().call_later(CANCEL_S, task.cancel)

    async def _cancel(self, stream: Stream) -> None:
        try:
            await stream.cancel()
        except WetinkError as error:
            _say(f"wetink: {error}")


class Screen(Protocol):
    def show(self, event: ServerEvent, tail: str) -> None:
        """`tail`: the tail after `event`."""
        ...

    def interrupted(self) -> None:
        """The connection is gone; an `open` follows if it comes back."""
        ...

    def close(self) -> None: ...


def _screen(options: argparse.Namespace) -> Screen:
    if options.json:
        return JSONLines(sys.stdout)
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveScreen(sys.stdout)
    return CommittedText(sys.stdout)


class _Plain:
    """Says on stderr what is not of the stream."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lost = False

    def interrupted(self) -> None:
        if not self._lost:
            _say(f"wetink: {LOST}")
        self._lost = True

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _notice(self, event: ServerEvent) -> None:
        if self._lost and isinstance(event, Open):
            self._lost = False
            _say("wetink: resumed")


class JSONLines(_Plain):
    """Every event as it came, one per line."""

    def show(self, event: ServerEvent, tail: str) -> None:
        self._notice(event)
        self._write(encode_json(event).decode() + "\n")

    def close(self) -> None:
        pass


class CommittedText(_Plain):
    """For pipes and files: the committed text and nothing else; its last line is ended."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._last = "\n"

    def show(self, event: ServerEvent, tail: str) -> None:
        self._notice(event)
        if isinstance(event, Commit) and event.text:
            self._write(event.text)
            self._last = event.text[-1]

    def close(self) -> None:
        if self._last != "\n":
            self._write("\n")


class LiveScreen:
    """For terminals: committed text plain, the tail dim, and what was taken back struck through,
    for a moment, where it stood. What replaces it waits behind that moment; events do not.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._painter = Painter(self._write, self._size, in_color="NO_COLOR" not in os.environ)
        self._tail = ""
        self._owed = ""
        """Committed text that waits until the struck text is gone."""
        self._moment: asyncio.TimerHandle | None = None

    def show(self, event: ServerEvent, tail: str) -> None:
        match event:
            case Commit():
                text = event.text
                if event.retract is not None:
                    text = self._strike(event.retract.n, text)
                self._owed += text
            case Retract():
                self._strike(event.n)
            case Part():
                self._owed += f"\n[{event.kind}{f' {event.name}' if event.name else ''}]\n"
            case Open() | Tentative() | Finish() | Error() | Heartbeat():
                pass
            case _:
                assert_never(event)
        self._tail = tail
        if self._moment is None:
            self._paint()

    def interrupted(self) -> None:
        self._paint(f" [{LOST}]")

    def close(self) -> None:
        self._tail = ""
        self._paint()
        self._painter.close()

    def _strike(self, n: int, text: str = "") -> str:
        """`n` code points are gone from the end of the tail. Returns what of `text`, committed in
        the same breath, comes in their place.
        """
        if self._moment is not None:
            self._paint()
        kept = self._tail[: len(self._tail) - n]
        struck = self._tail[len(kept) :]
        self._painter.update(text[: len(kept)], kept[len(text) :], struck)
        self._moment = asyncio.get_running_loop().call_later(STRUCK_S, self._paint)
        return text[len(kept) :]

    def _paint(self, notice: str = "") -> None:
        """Everything as it is now; the moment for what was struck is over."""
        if self._moment is not None:
            self._moment.cancel()
            self._moment = None
        committed, self._owed = self._owed, ""
        self._painter.update(committed, self._tail, notice=notice)

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

    def fields(self, now: float) -> list[str]:
        elapsed = (self._ended_at or now) - self._started_at
        if self._finish is None:
            return [f"no closing statistics after {elapsed:.2f} s"]
        usage, stats = self._finish.usage, self._finish.stats
        tokens = usage.completion_tokens
        return [
            f"{tokens} tokens in {elapsed:.2f} s ({tokens / max(elapsed, 1e-3):.1f} tokens/s)",
            f"acceptance {_percent(stats.acceptance_rate)}",
            f"TTFV {_milliseconds(stats.ttfv_ms)}",
            f"TTC {_milliseconds(stats.ttc_ms)}",
            f"NE {stats.normalized_erasure:.3f}",
            f"{stats.retractions} retraction{'' if stats.retractions == 1 else 's'}",
            self._finish.reason,
        ]


def _wrapped(fields: Sequence[str]) -> str:
    """In one line, on a narrow terminal in several, none cut in the middle of a field."""
    columns = os.get_terminal_size(sys.stderr.fileno()).columns if sys.stderr.isatty() else 0
    lines = [fields[0]]
    for field in fields[1:]:
        longer = f"{lines[-1]} · {field}"
        if columns and len(longer) > columns:
            lines.append(field)
        else:
            lines[-1] = longer
    return "\n".join(lines)


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
