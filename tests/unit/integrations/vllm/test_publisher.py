from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import zmq

from gateway.backends.vllm.messages import Frame, decode
from tests.unit.integrations.vllm.requests import NAME, Request, byte_tokenizer, tokens
from wetink_vllm.publisher import Publisher, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOKENIZER = byte_tokenizer()
PATIENCE_MS = 20_000


def state(request: Request, draft: str = "", verified: int | None = None) -> State:
    ids = tuple(tokens(draft))
    return State(
        name=NAME,
        generation=request,
        verified=len(request.output_token_ids) if verified is None else verified,
        draft=ids,
        skip_special_tokens=True,
        confidences=(None,) * len(ids),
        drafted=0,
        accepted=0,
        steps=0,
    )


@pytest.fixture
def reader() -> Iterator[Callable[[Publisher], zmq.Socket[bytes]]]:
    """Connects a gateway's side to a publisher."""
    context = zmq.Context()
    sockets: list[zmq.Socket[bytes]] = []

    def connect(publisher: Publisher) -> zmq.Socket[bytes]:
        socket = context.socket(zmq.SUB)
        sockets.append(socket)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.setsockopt(zmq.LINGER, 0)
        # Little is kept for one that does not read, however much memory the kernel would give.
        socket.setsockopt(zmq.RCVHWM, 100)
        socket.setsockopt(zmq.RCVBUF, 4096)
        socket.connect(publisher.endpoint)
        return socket

    yield connect
    for socket in sockets:
        socket.close()
    context.term()


def publish_until_heard(publisher: Publisher, socket: zmq.Socket[bytes]) -> Frame:
    """Empty frames until the subscription has arrived; the last of them."""
    while not socket.poll(20):
        publisher.publish()
    heard = decode(socket.recv())
    while socket.poll(20):
        heard = decode(socket.recv())
    return heard


def frame_of(socket: zmq.Socket[bytes]) -> Frame:
    assert socket.poll(PATIENCE_MS)
    return decode(socket.recv())


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """Its thread does not run: tests say when it publishes."""
    made = Publisher("tcp://127.0.0.1:*", TOKENIZER, greedy_only=True, queue_entries=4)
    yield made
    made.close()


def test_publisher_tells_text_and_draft_of_each_step(
    publisher: Publisher, reader: Callable[[Publisher], zmq.Socket[bytes]]
) -> None:
    socket, request = reader(publisher), Request()
    before = publish_until_heard(publisher, socket)
    assert before.greedy_only
    request.output_token_ids += tokens("aé")
    publisher.put([state(request, "bc")])
    publisher.publish()
    request.output_token_ids += tokens("bd")
    publisher.put([state(request)])
    publisher.publish()
    first, second = frame_of(socket), frame_of(socket)
    assert (first.seq, second.seq) == (before.seq + 1, before.seq + 2)
    (told,) = first.updates
    assert (told.request, told.at, told.text, told.draft) == (NAME, 0, "aé", "bc")
    assert [(piece.id, piece.n) for piece in told.pieces] == [(98, 1), (99, 1)]
    (told,) = second.updates
    assert (told.at, told.text, told.draft) == (2, "bd", "")


def test_publisher_loses_no_text_when_its_queue_overflows(
    publisher: Publisher, reader: Callable[[Publisher], zmq.Socket[bytes]]
) -> None:
    socket, request = reader(publisher), Request()
    publish_until_heard(publisher, socket)
    for letter in "abcdefgh":
        request.output_token_ids += tokens(letter)
        publisher.put([state(request, "x")])
    publisher.publish()
    frame = frame_of(socket)
    assert frame.missed == 4
    (told,) = frame.updates
    assert (told.at, told.text, told.draft) == (0, "abcdefgh", "x")


def test_publisher_never_waits_for_a_reader_that_does_not_read(
    publisher: Publisher, reader: Callable[[Publisher], zmq.Socket[bytes]]
) -> None:
    socket, request = reader(publisher), Request()
    publish_until_heard(publisher, socket)
    for _ in range(20_000):  # beyond what the sockets on both sides keep
        request.output_token_ids.append(97)
        publisher.put([state(request)])
        publisher.publish()
    heard = [frame_of(socket)]
    while socket.poll(100):
        heard.append(decode(socket.recv()))
    assert len(heard) < 20_000


def test_publisher_runs_on_a_thread_of_its_own(
    reader: Callable[[Publisher], zmq.Socket[bytes]],
) -> None:
    publisher = Publisher("tcp://127.0.0.1:*", TOKENIZER, greedy_only=False)
    publisher.start()
    try:
        socket, request = reader(publisher), Request()
        frame_of(socket)  # its heartbeat
        request.output_token_ids += tokens("a")
        publisher.put([state(request)])
        while not (frame := frame_of(socket)).updates:
            pass
        assert frame.updates[0].text == "a"
    finally:
        publisher.close()


def test_publisher_gives_up_a_request_whose_text_is_lost_and_goes_on_with_others(
    publisher: Publisher,
    reader: Callable[[Publisher], zmq.Socket[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from wetink_vllm.text import RequestText, TextLost

    socket, lost, other = reader(publisher), Request(), Request()
    publish_until_heard(publisher, socket)
    verify = RequestText.verify

    def fail(self: RequestText, ids: list[int]) -> str:
        if 33 in ids:
            raise TextLost("Invalid prefix encountered")
        return verify(self, ids)

    monkeypatch.setattr(RequestText, "verify", fail)
    lost.output_token_ids += [33]
    other.output_token_ids += tokens("b")
    name = NAME.replace("0", "f")
    publisher.put([state(lost), state(other)._replace(name=name)])
    publisher.publish()
    assert [told.request for told in frame_of(socket).updates] == [name]
