"""Tokens per second through the whole gateway against transformers.generate, side by side.

    .venv/bin/python -m benchmarks.throughput [--repeats 5] [--max-tokens 128] [--json FILE]

Both serve the embedded model in bfloat16, greedy, same prompts, same threads, in alternating
rounds of one run; medians and the ratio of medians are printed. Wetink's side is `wetink serve`,
read over SSE with policy hold: HTTP, ledger, policy and framing are all in the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

from benchmarks.prompts import CHAT, CODE, EDIT
from engine.loading.checkpoint import no_progress
from engine.loading.pull import pull

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 8471
READY_TIMEOUT_S = 300.0


class Round(NamedTuple):
    tokens: int
    seconds: float
    drafted: int = 0
    accepted: int = 0

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


class Case(NamedTuple):
    name: str
    prompts: tuple[str, ...]
    extra: dict[str, Any]
    """Request fields of Wetink's side only."""


OFF = {"draft": {"length": 0}}
CASES = (
    Case("chat, 1 stream", CHAT[:1], {}),
    Case("chat, 1 stream, no speculation", CHAT[:1], OFF),
    Case("chat, 8 streams", CHAT, {}),
    Case("chat, 8 streams, no speculation", CHAT, OFF),
    Case("edit, 1 stream, with prediction", (EDIT,), {"prediction": CODE}),
    Case("edit, 1 stream, no speculation", (EDIT,), OFF),
)


@contextmanager
def gateway(threads: int) -> Iterator[str]:
    """`wetink serve` on loopback; yields its URL once it is ready."""
    command = [str(Path(sys.executable).with_name("wetink")), "serve", "--port", str(PORT)]
    process = subprocess.Popen(
        [*command, "--threads", str(threads)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    url = f"http://127.0.0.1:{PORT}"
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"wetink serve did not start: {process.communicate()[1].decode()}")
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


@contextmanager
def peer(threads: int) -> Iterator[subprocess.Popen[str]]:
    """The transformers process, loaded."""
    folder = str(pull(no_progress))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.transformers_peer", folder, str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "the peer did not start"
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def ask_peer(process: subprocess.Popen[str], prompts: tuple[str, ...], max_tokens: int) -> Round:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"prompts": prompts, "max_tokens": max_tokens}) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    return Round(answer["tokens"], answer["seconds"])


async def ask_gateway(url: str, case: Case, max_tokens: int) -> Round:
    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        begin = time.perf_counter()
        usages = await asyncio.gather(
            *(_one_stream(client, prompt, case.extra, max_tokens) for prompt in case.prompts)
        )
        seconds = time.perf_counter() - begin

    def total(key: str) -> int:
        return sum(usage[key] for usage in usages)

    return Round(
        total("completion_tokens"), seconds, total("drafted_tokens"), total("accepted_tokens")
    )


async def _one_stream(
    client: httpx.AsyncClient, prompt: str, extra: dict[str, Any], max_tokens: int
) -> dict[str, int]:
    """Usage of one finished stream. Raises SystemExit when it does not finish."""
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "policy": "hold",
        **extra,
    }
    accept = {"accept": "text/event-stream"}
    async with client.stream("POST", "/v1/streams", json=body, headers=accept) as response:
        if response.status_code != 200:
            raise SystemExit((await response.aread()).decode())
        async for line in response.aiter_lines():
            if line.startswith('data: {"type":"finish"'):
                return json.loads(line[len("data: ") :])["usage"]
    raise SystemExit("a stream ended without finish")


def measure(url: str, process: subprocess.Popen[str], case: Case, options: Any) -> dict[str, Any]:
    ours: list[Round] = []
    theirs: list[Round] = []
    for number in range(options.repeats + 1):
        mine = asyncio.run(ask_gateway(url, case, options.max_tokens))
        other = ask_peer(process, case.prompts, options.max_tokens)
        if number:  # the first round warms both up
            ours.append(mine)
            theirs.append(other)
    our_rate = statistics.median(r.rate for r in ours)
    their_rate = statistics.median(r.rate for r in theirs)
    drafted, accepted = sum(r.drafted for r in ours), sum(r.accepted for r in ours)
    return {
        "case": case.name,
        "wetink_tok_s": round(our_rate, 1),
        "transformers_tok_s": round(their_rate, 1),
        "ratio": round(our_rate / their_rate, 2),
        "wetink_range": [round(f(r.rate for r in ours), 1) for f in (min, max)],
        "transformers_range": [round(f(r.rate for r in theirs), 1) for f in (min, max)],
        "acceptance": round(accepted / drafted, 2) if drafted else None,
        "tokens": [ours[-1].tokens, theirs[-1].tokens],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", help="run cases whose name contains this")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    with gateway(options.threads) as url, peer(options.threads) as process:
        for case in CASES:
            if options.only and options.only not in case.name:
                continue
            result = measure(url, process, case, options)
            results.append(result)
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
