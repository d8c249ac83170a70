"""The same streams without `async`: an event loop in a thread of its own does the work.

    with wetink.sync.stream("localhost:8000", prompt="Once upon a time") as story:
        for text in story.committed():
            …

What is promised of `wetink.Stream` holds here too. Works where a loop already runs, as in a
notebook.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from protocol.events import PartKind
from wetink import client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import TracebackType

    from anyio.from_thread import BlockingPortal

    from protocol.events import Finish, ServerEvent, Stats, Usage
    from wetink import streams

__all__ = ["Stream", "attach", "stream"]
_T = TypeVar("_T")


def stream(url: str, **fields: Any) -> Stream:
    """As `wetink.stream`."""
    return Stream(lambda: client.stream(url, **fields))


def attach(url: str, stream_id: str, **options: Any) -> Stream:
    """As `wetink.attach`."""
    return Stream(lambda: client.attach(url, stream_id, **options))


class Stream:
    """A context manager that iterates over a stream's events. For one thread; `view` and `cancel`
    may be used from any other.
    """

    def __init__(self, make: Callable[[], streams.Stream]) -> None:
        self._make = make
        self._resources = contextlib.ExitStack()
        self._portal: BlockingPortal | None = None
        self._stream: streams.Stream | None = None

    @property
    def view(self) -> streams.StreamView:
        return self._inner.view

    @property
    def text(self) -> str:
        """Committed text and tail of the current part."""
        return self._inner.text

    @property
    def id(self) -> str:
        return self._inner.id

    @property
    def cursor(self) -> str | None:
        return self._inner.cursor

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def seed(self) -> int | None:
        return self._inner.seed

    @property
    def finish(self) -> Finish | None:
        return self._inner.finish

    @property
    def complete(self) -> bool:
        return self._inner.complete

    @property
    def usage(self) -> Usage | None:
        return self._inner.usage

    @property
    def stats(self) -> Stats | None:
        return self._inner.stats

    def cancel(self) -> None:
        """Ends the generation; reading on gives what was committed before, and `finish`."""
        self._wait(self._inner.cancel)

    def ack(self, at: int, part: int | None = None) -> bool:
        """Tells the server what was shown, spoken or accepted; as `wetink.Stream.ack`."""
        return self._wait(lambda: self._inner.ack(at, part))

    def committed(self, kind: str | None = PartKind.TEXT) -> Iterator[str]:
        """Final text as it comes, of the parts of one kind (None: of all). Never taken back."""
        texts = self._inner.committed(kind)
        while (text := self._wait(lambda: _next(texts))) is not None:
            yield text

    def __enter__(self) -> Self:
        self._portal = self._resources.enter_context(start_blocking_portal())
        try:
            self._wait(self._begin)
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._resources:
            self._wait(lambda: self._inner.__aexit__(kind, error, traceback))

    def __iter__(self) -> Iterator[ServerEvent]:
        while (event := self._wait(lambda: _next(self._inner))) is not None:
            yield event

    @property
    def _inner(self) -> streams.Stream:
        if self._stream is None:
            raise RuntimeError("the stream has not been opened: use `with`")
        return self._stream

    async def _begin(self) -> None:
        stream = self._make()
        await stream.__aenter__()
        self._stream = stream

    def _wait(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Runs `call` in the loop's thread. What ends the waiting, Ctrl-C say, ends the call."""
        assert self._portal is not None, "the stream has not been opened: use `with`"
        future = self._portal.start_task_soon(call)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


async def _next(items: AsyncIterator[_T]) -> _T | None:
    return await anext(items, None)
