"""`wetink say`: hear an answer while it is generated."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from protocol.errors import WetinkError
from protocol.requests import Chunk
from wetink.client import stream
from wetink.errors import RequestRefused, Unreachable, VoiceUnavailable
from wetink.say.espeak import USUAL_WORDS_PER_MINUTE, EspeakVoice
from wetink.say.speaking import say
from wetink.say.wav import WavFile
from wetink.terminal import DEFAULT_MAX_TOKENS, DEFAULT_URL, KEY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wetink.streams import Stream

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str]) -> int:
    """Runs `wetink say ARGV`; returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        voice = EspeakVoice(options.voice, options.words_per_minute)
        begin = partial(stream, options.url, **_request_fields(options))
        with WavFile(options.wav, voice.rate, in_real_time=options.real_time) as wav:
            return asyncio.run(_run(options, begin, voice, wav))
    except Unreachable as error:
        return _complain(
            f"no gateway answers at {options.url} ({error}); start one with: wetink serve",
            EXIT_FAILED,
        )
    except (RequestRefused, VoiceUnavailable, OSError) as error:
        return _complain(str(error), EXIT_USAGE)
    except WetinkError as error:
        return _complain(str(error), EXIT_FAILED)


async def _run(
    options: argparse.Namespace, begin: Callable[..., Stream], voice: EspeakVoice, wav: WavFile
) -> int:
    interruption = anyio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interruption.set)
    try:
        async with begin(key=options.key or os.environ.get(KEY_VARIABLE)) as story:
            said = await say(
                story,
                voice,
                wav,
                interruption=interruption,
                locale=options.locale,
                on_heard=_show,
            )
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        sys.stdout.write("\n")
    return EXIT_INTERRUPTED if said.interrupted else EXIT_OK


def _show(words: str) -> None:
    sys.stdout.write(words)
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wetink say",
        description="Speak an answer while it is generated, sentence by sentence, committed text "
        "only, and print every word as it is heard. Ctrl-C stops the voice and the generation; "
        "what is printed, and what the file holds, is what was heard.",
    )
    add = parser.add_argument
    add("prompt", help="what to say to the model; - reads it from standard input")
    add("--wav", type=Path, metavar="FILE", required=True, help="where the speech goes")
    add(
        "--real-time",
        action="store_true",
        help="write the file as slowly as somebody would hear it",
    )
    add(
        "--voice", default="en", help="of espeak-ng: a language or a variant (default: %(default)s)"
    )
    add(
        "--words-per-minute",
        type=int,
        metavar="N",
        default=USUAL_WORDS_PER_MINUTE,
        help="default: %(default)s",
    )
    add("--url", default=DEFAULT_URL, help="the gateway (default: %(default)s)")
    add("--key", help=f"for a gateway that needs one (default: the variable {KEY_VARIABLE})")
    add(
        "--unit",
        choices=["sentence", "clause"],
        default="sentence",
        help="what the voice waits for (default: %(default)s)",
    )
    add(
        "--max-delay-ms",
        type=int,
        metavar="MS",
        help="say what there is of a sentence once its first word has waited so long",
    )
    add("--locale", default="en", help="language of the text (default: %(default)s)")
    add("--model", help="default: the one the gateway serves")
    add("--max-tokens", type=int, metavar="N", help=f"default: {DEFAULT_MAX_TOKENS}")
    add("--seed", type=int, metavar="N", help="same seed, same text; default: a random one")
    return parser


def _request_fields(options: argparse.Namespace) -> dict[str, Any]:
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    policy = Chunk(unit=options.unit, max_delay_ms=options.max_delay_ms, locale=options.locale)
    return {
        "messages": [{"role": "user", "content": prompt}],
        "policy": policy,
        "transport": "ws",  # only there can the server be told what was heard
        "model": options.model,
        "max_tokens": options.max_tokens,
        "seed": options.seed,
    }


def _complain(message: str, status: int) -> int:
    sys.stderr.write(f"wetink: {message}\n")
    return status
