"""The side of the plugin that takes time, on a thread of its own: tokens to text, text to frames.

The engine's loop only appends to a bounded queue and never waits. A queue that is full loses its
oldest entry: entries say what *is*, so the next one of the same request makes up for it.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
import zmq

from wetink_vllm.messages import VERSION, Frame, Piece, Update
from wetink_vllm.text import RequestText, TextLost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

logger = logging.getLogger("vllm.wetink")  # where vLLM's own handlers print it

QUEUE_ENTRIES = 4096
"""Steps of one request; a batch of 256 fills it in 16 steps of a publisher that does nothing."""
HEARTBEAT_S = 1.0
UNSENT_FRAMES = 1000
"""For each reader; the socket drops what comes after."""
CLOSE_MS = 200
"""How long the last frames may take to leave."""


class Generation(Protocol):
    """What is read of a request, on the publisher's thread. Its output only grows."""

    @property
    def prompt_token_ids(self) -> Sequence[int] | None: ...

    @property
    def output_token_ids(self) -> Sequence[int]: ...

    def is_finished(self) -> bool: ...


class State(NamedTuple):
    """A request as of one step. The state after it stands for it as well."""

    name: str
    """As its reader calls it."""
    generation: Generation
    verified: int
    """How many of its output tokens are verified and have text."""
    draft: tuple[int, ...]
    skip_special_tokens: bool
    confidences: tuple[float | None, ...]
    """Of `draft`."""
    drafted: int
    accepted: int
    steps: int


class _Followed:
    """A request whose text is being published."""

    def __init__(self, generation: Generation, text: RequestText) -> None:
        self.generation = generation
        self.text = text
        self.is_lost = False
        self.is_ending = False
        """It was found finished once; its last state may still be on its way."""


class Publisher:
    """Publishes on `endpoint` (ZeroMQ PUB, bound) until `close`."""

    def __init__(
        self,
        endpoint: str,
        tokenizer: Tokenizer,
        *,
        greedy_only: bool,
        queue_entries: int = QUEUE_ENTRIES,
    ) -> None:
        """Raises zmq.ZMQError when the endpoint cannot be bound."""
        self._tokenizer = tokenizer
        self._greedy_only = greedy_only
        self._queue: deque[State] = deque(maxlen=queue_entries)
        self._queue_entries = queue_entries
        self._followed: dict[str, _Followed] = {}
        self._engine = secrets.token_hex(8)
        self._seq = 0
        self._sweep_at = 0.0
        self._missed = 0
        self._encoder = msgspec.msgpack.Encoder()
        self._wake = threading.Event()
        self._closing = False
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, UNSENT_FRAMES)
        self._socket.setsockopt(zmq.LINGER, CLOSE_MS)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError:
            self._context.destroy()
            raise
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._thread = threading.Thread(target=self._run, name="wetink-publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, states: Sequence[State]) -> None:
        """From the engine's loop: returns at once, whatever the publisher does."""
        self._missed += max(0, len(self._queue) + len(states) - self._queue_entries)
        self._queue.extend(states)
        self._wake.set()

    def close(self) -> None:
        """Returns within `CLOSE_MS` and the time one frame takes."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()
        self._context.term()

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(HEARTBEAT_S)
            self._wake.clear()
            try:
                self.publish()
            except Exception:  # whatever it is, the engine goes on without us
                logger.exception("wetink: drafts are not published any more")
                return

    def publish(self) -> None:
        """One frame of what is in the queue."""
        latest: dict[str, State] = {}
        while self._queue:
            state = self._queue.popleft()
            latest[state.name] = state
        updates = [
            update for state in latest.values() if (update := self._update(state)) is not None
        ]
        self._forget_finished()
        self._seq += 1
        frame = Frame(
            v=VERSION,
            engine=self._engine,
            seq=self._seq,
            missed=self._missed,
            greedy_only=self._greedy_only,
            updates=updates,
        )
        self._socket.send(self._encoder.encode(frame), zmq.DONTWAIT)

    def _update(self, state: State) -> Update | None:
        followed = self._followed.get(state.name)
        if followed is None:
            generation = state.generation
            followed = self._followed[state.name] = _Followed(
                generation,
                RequestText(
                    self._tokenizer,
                    generation.prompt_token_ids,
                    skip_special_tokens=state.skip_special_tokens,
                ),
            )
        if followed.is_lost:
            return None
        text = followed.text
        at = text.length
        try:
            verified = text.verify(state.generation.output_token_ids[text.tokens : state.verified])
            draft = text.draft(state.draft)
        except TextLost as error:
            logger.warning("wetink: no more drafts of %s are published: %s", state.name, error)
            followed.is_lost = True
            return None
        return Update(
            request=state.name,
            at=at,
            text=verified,
            draft="".join(piece for _, piece in draft),
            pieces=[
                Piece(token, len(piece), confidence)
                for (token, piece), confidence in zip(draft, state.confidences, strict=True)
            ],
            drafted=state.drafted,
            accepted=state.accepted,
            steps=state.steps,
        )

    def _forget_finished(self) -> None:
        """Now and then. What is found finished twice has no state on its way any more."""
        now = time.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + HEARTBEAT_S
        for name in [name for name, one in self._followed.items() if one.is_ending]:
            del self._followed[name]
        for one in self._followed.values():
            one.is_ending = one.generation.is_finished()
