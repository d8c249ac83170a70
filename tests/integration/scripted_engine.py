"""An engine process without a model: speaks the engine's frames, says what its prompt scripts.

Run as a program in place of `engine.worker`. The setting `model` chooses how it starts, the first
word of a prompt what a stream does; the rest of the prompt is its text, one token per character,
the token's id being the code point.

    model   "fatal": says Fatal and ends; "exit": ends without connecting;
            "garbage": sends data that is not a frame; "deaf": does not end when its gateway is gone
            "hidden": does not connect; "mute": connects and says nothing
            "talkative": writes a line to its log, and one as a library would
    say     commits the text in three verifications, each after a draft whose end is wrong
    stall   commits the first half, drafts the rest and waits; continued by a restarted engine, it
            goes on to the end
    pace    commits the pause before verification: its own, or as it was told last
    echo    commits the frame it was started with, as JSON
    wait    commits nothing, until it is cancelled; then all of its text, if drafts were wanted
    leave   as stall, but closes the socket instead, and does not end
    hang    as stall, but then nothing of the process runs any more: it answers no ping
    loop    as stall, but then says to every ping that it has been at one step for an hour
    inch    commits four characters at its start and with each ping
    bomb    ends the process as kill -9 would with the next ping
    crash   ends the process as kill -9 would
    refuse  is rejected
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import msgspec

from engine import frames
from engine.logs import log_to_gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 1234
LOAD = frames.Load(
    running=3, waiting=2, kv_blocks_used=1, steps=9, sentinel_checks=5, sentinel_mismatches=1
)
"""What pings are answered with."""
EXIT_STATUS = 3
CACHED_AT_FIRST, CACHED_LATER = 2, 7
"""Prompt tokens found in the cache, by streams that begin here and by those that are continued."""


def pieces(text: str, count: int) -> list[str]:
    size = max(1, -(-len(text) // count))
    return [text[i : i + size] for i in range(0, len(text), size)]


def tokens(text: str, confidence: float | None = None) -> list[frames.Token]:
    return [frames.Token(ord(c), 1, None, confidence) for c in text]


def counted(before: frames.TokenCounts, length: int) -> frames.TokenCounts:
    """One step more, which drafted two tokens; all were accepted of which there is text."""
    return msgspec.structs.replace(
        before,
        drafted=before.drafted + 2,
        accepted=before.accepted + min(2, length),
        steps=before.steps + 1,
    )


class ScriptedEngine:
    def __init__(self, sock: socket.socket, verify_delay_ms: float) -> None:
        self._socket = sock
        self._decoder = msgspec.msgpack.Decoder(frames.ToEngine)
        self._waiting: dict[str, frames.Start] = {}
        self._wants: dict[str, bool] = {}
        self._counts: dict[str, frames.TokenCounts] = {}
        self._inching: dict[str, frames.Start] = {}
        self._busy_s = 0.0
        self._verify_delay_ms = verify_delay_ms

    def send(self, frame: frames.FromEngine) -> None:
        data = msgspec.msgpack.encode(frame)
        self._socket.sendall(len(data).to_bytes(frames.LENGTH_PREFIX_BYTES, "big") + data)

    def received(self) -> Iterator[frames.ToEngine]:
        with self._socket.makefile("rb") as file:
            while prefix := file.read(frames.LENGTH_PREFIX_BYTES):
                yield self._decoder.decode(file.read(int.from_bytes(prefix, "big")))

    def serve(self) -> None:
        self.send(frames.Loading("reading the script", 0.5))
        self.send(frames.Ready("scripted", 128, 1000, "none", ["none"], 1, 16, max_sequences=64))
        for frame in self.received():
            match frame:
                case frames.Start():
                    self.start(frame)
                case frames.Cancel():
                    waiting = self._waiting.pop(frame.stream, None)
                    if waiting is not None:
                        self.end_waiting(waiting)
                case frames.WantDrafts():
                    self._wants[frame.stream] = frame.wanted
                case frames.SlowVerification():
                    self._verify_delay_ms = frame.delay_ms
                case frames.Ping():
                    self.send(frames.Pong(self._busy_s, LOAD))
                    for inching in list(self._inching.values()):
                        self.inch(inching)

    def start(self, start: frames.Start) -> None:
        word, _, text = (start.prompt or "").partition(" ")
        done = "".join(map(chr, start.committed))
        assert text.startswith(done)
        assert len(done) == start.committed_chars
        # Continued without its seed, a stream would say something else.
        assert not done or start.sampling.seed == SEED
        if word == "refuse":
            self.send(frames.Rejected(start.stream, "context_exceeded", "too long", "prompt"))
            return
        if word == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        seed = SEED if start.sampling.seed is None else start.sampling.seed
        self.send(frames.Accepted(start.stream, len(start.prompt or ""), seed))
        cached = CACHED_LATER if done else CACHED_AT_FIRST
        self._counts[start.stream] = msgspec.structs.replace(start.counts, cached_prompt=cached)
        rest = text[len(done) :]
        if word == "wait":
            self._waiting[start.stream] = start
            self._wants[start.stream] = start.want_drafts
        elif word == "echo":
            self.verify(start.stream, msgspec.json.encode(msgspec.structs.asdict(start)).decode())
            self.finish(start, "stop", 0)
        elif word == "pace":
            self.verify(start.stream, f"{self._verify_delay_ms:g}")
            self.finish(start, "stop", 0)
        elif word in ("inch", "bomb"):
            self._inching[start.stream] = start
            if word == "inch":
                self.inch(start)
        elif word in ("stall", "leave", "hang", "loop") and not done:
            half = rest[: len(rest) // 2]
            self.verify(start.stream, half)
            self.draft(start.stream, rest[len(half) :])
            if word == "leave":
                self._socket.shutdown(socket.SHUT_RDWR)
                signal.pause()
            elif word == "hang":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif word == "loop":
                self._busy_s = 3600.0
        else:
            for piece in pieces(rest, 3):
                self.draft(start.stream, piece[:1] + "?")
                self.verify(start.stream, piece, "draft_rejected")
            self.finish(start, "stop", len(text))

    def inch(self, start: frames.Start) -> None:
        """Four characters more; a bomb goes off."""
        word, _, text = (start.prompt or "").partition(" ")
        if word == "bomb":
            os.kill(os.getpid(), signal.SIGKILL)
        done = start.committed_chars
        piece = text[done : done + 4]
        self.verify(start.stream, piece)
        committed = [*start.committed, *map(ord, piece)]
        self._inching[start.stream] = msgspec.structs.replace(
            start, committed=committed, committed_chars=len(committed)
        )
        if len(committed) == len(text):
            del self._inching[start.stream]
            self.finish(start, "stop", len(text))

    def end_waiting(self, start: frames.Start) -> None:
        _, _, text = (start.prompt or "").partition(" ")
        if self._wants[start.stream]:
            self.verify(start.stream, text)
        self.finish(start, "cancelled", len(text))

    def draft(self, stream: str, tail: str) -> None:
        self.send(frames.Step([(stream, frames.Drafted(tail, tokens(tail, 0.5)))]))

    def verify(self, stream: str, text: str, cause: str | None = None) -> None:
        self._counts[stream] = counts = counted(self._counts[stream], len(text))
        event = frames.Verified(text, "", cause, tokens(text), counts)
        self.send(frames.Step([(stream, event)]))

    def finish(self, start: frames.Start, reason: str, completion: int) -> None:
        counts = msgspec.structs.replace(
            self._counts.pop(start.stream), prompt=len(start.prompt or ""), completion=completion
        )
        self.send(frames.Step([(start.stream, frames.Finished(reason, counts))]))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--config", required=True)
    arguments = parser.parse_args()
    config = msgspec.json.decode(arguments.config)
    model = config.get("model")
    if model == "exit":
        return EXIT_STATUS
    if model == "talkative":
        log_to_gateway()
        logging.getLogger("engine.worker").error("as an engine says it")
        os.write(sys.stderr.fileno(), b"as a library says it\n")
    if model == "hidden":
        signal.pause()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(arguments.socket)
        engine = ScriptedEngine(sock, config.get("verify_delay_ms", 0.0))
        if model == "fatal":
            engine.send(frames.Fatal("invalid_config", "dtype: no such thing"))
            return EXIT_STATUS
        if model == "mute":
            signal.pause()
        if model == "garbage":
            sock.sendall(b"\x00\x00\x00\x01\xc1")
        engine.serve()
    if model == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
