"""Time to the first audio, and words that had to be unsaid: four ways to speak one answer.

    make bench-voice [ARGS="--url http://127.0.0.1:8000 --prompt …"]

Without a URL a gateway of its own plays the recorded trace `talk`. The ways take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.engine import machine
from benchmarks.voice import listening
from benchmarks.voice.listening import Heard, whole_sentences, whole_words
from gateway.backends.scripted import BUILT_IN_TRACES
from wetink.say import EspeakVoice

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

PAGE = Path("docs/voice.md")
TRACE = BUILT_IN_TRACES / "talk.jsonl"

HEAD = """\
| the voice gets | first audio, ms | gaps, ms | words of the answer | words to unsay | \
of these already heard |"""


def main() -> int:
    options = _parser().parse_args()
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": options.prompt}]}
    if options.url is None:
        with _served(options.speed) as url:
            table = asyncio.run(_measure(url, options.rounds, fields))
    else:
        fields |= {"seed": options.seed, "max_tokens": options.max_tokens}
        if options.drafter is not None:
            fields["draft"] = {"drafter": options.drafter}
        table = asyncio.run(_measure(options.url, options.rounds, fields))
    sys.stdout.write(table)
    if options.section is not None:
        _put(options.section, table)
    return 0


async def _measure(url: str, rounds: int, fields: dict[str, Any]) -> str:
    voice = EspeakVoice("en")
    list(voice.speak("The first sentence of a process takes longer."))
    begin = listening.asking(url, **fields)
    ways: dict[str, Callable[[], Awaitable[Heard]]] = {
        "committed sentences (`wetink say`)": partial(
            listening.committed, begin, "chunk:sentence", voice
        ),
        "committed clauses (`--unit clause`)": partial(
            listening.committed, begin, "chunk:clause", voice
        ),
        "the whole text first": partial(listening.whole, begin, voice),
        "tentative text, sentence by sentence": partial(
            listening.tentative, begin, voice, whole_sentences
        ),
        "tentative text, word by word": partial(listening.tentative, begin, voice, whole_words),
    }
    heard: dict[str, list[Heard]] = {name: [] for name in ways}
    await listening.whole(begin, voice)  # the first connection of a gateway takes longer
    for _ in range(rounds):
        for name, way in ways.items():
            heard[name].append(await way())
            sys.stderr.write(f"{name}: {heard[name][-1]}\n")
    return _table(heard)


def _table(heard: dict[str, list[Heard]]) -> str:
    here = machine.describe()
    rounds = len(next(iter(heard.values())))
    lines = [
        f"{rounds} rounds in turns, median (range), on {here.processor}, Python {here.python}.",
        "",
        HEAD,
        "|---|---|---|---|---|---|",
    ]
    for name, ones in heard.items():
        first = [one.first_audio_s * 1000 for one in ones]
        lines.append(
            f"| {name} | {statistics.median(first):.0f} ({min(first):.0f}–{max(first):.0f}) "
            f"| {statistics.median(one.gaps_s * 1000 for one in ones):.0f} "
            f"| {ones[0].words} | {_count(one.foreign for one in ones)} "
            f"| {_count(one.foreign_heard for one in ones)} |"
        )
    return "\n".join(lines) + "\n"


def _count(counts: Iterator[int]) -> str:
    return f"{statistics.median(counts):g}"


def _put(section: str, table: str) -> None:
    begin, end = f"<!-- {section}: begin -->\n", f"<!-- {section}: end -->\n"
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{PAGE} has no section {section!r}")
    PAGE.write_text(before + begin + table + end + after, encoding="utf-8")


@contextmanager
def _served(speed: float) -> Iterator[str]:
    program = "import sys; from gateway.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "serve", "--port", "0", "--trace", str(TRACE)]
    environment = {**os.environ, "WETINK_BACKEND_SPEED": str(speed)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as gateway:
        assert gateway.stdout is not None
        try:
            address = None
            while address is None:
                line = gateway.stdout.readline()
                if not line:
                    raise SystemExit("the gateway ended before it served")
                address = re.search(r" at (http://\S+)", line)
            yield address[1]
        finally:
            gateway.terminate()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-voice", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5)
    add("--url", help="a gateway that runs (default: one of our own that plays a trace)")
    add("--speed", type=float, default=1.0, help="of the trace (default: as recorded)")
    add("--prompt", default="Tell me about glaciers.")
    add("--seed", type=int, default=1, help="at --url")
    add(
        "--drafter",
        help="at --url: one that does not learn, as `head`; else the second answer is all known",
    )
    add("--max-tokens", type=int, default=160, help="at --url")
    add("--section", help="of docs/voice.md, to put the table into: trace, slower, model")
    return parser


if __name__ == "__main__":
    sys.exit(main())
