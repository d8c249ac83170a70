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
from typing import TYPE_CHECKING, Any, TextIO, get_args

from protocol.errors import WetinkError
from protocol.requests import GenerationRequest
from wetink.client import TransportName, attach, stream
from wetink.errors import ConnectionLost, RequestRefused, Unreachable
from wetink.screens import say, screen_for
from wetink.summary import Summary, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wetink.screens import Screen
    from wetink.streams import Stream

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_MAX_TOKENS = GenerationRequest(prompt="").max_tokens
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
        screen = screen_for(sys.stdout, as_json=self._options.json)
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
                    say(wrapped(summary.fields(time.monotonic())))
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
            say(f"wetink: {error}")


def _complain(message: str, status: int) -> int:
    say(f"wetink: {message}")
    return status


def _speak_utf8(out: TextIO) -> None:
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(encoding="utf-8", errors="replace")
