"""The generations of one request, under way on one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.transports.openai.shapes import Piece, Scored
from protocol.errors import RequestError
from protocol.events import PartKind
from protocol.requests import Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.delivery import Attachment, Connection
    from gateway.service import Gateway
    from gateway.streams import Stream
    from gateway.transports.openai.requests import Wanted
    from protocol.events import Commit, Open, Part, ServerEvent
    from protocol.requests import GenerationRequest


class _Choice(NamedTuple):
    stream: Stream
    attachment: Attachment


class Choices:
    """One stream with one attachment per choice. None can be resumed, so none outlives it."""

    def __init__(self, gateway: Gateway, connection: Connection) -> None:
        self.connection = connection
        self._gateway = gateway
        self._choices: list[_Choice] = []

    @classmethod
    async def start(cls, gateway: Gateway, connection: Connection, wanted: Wanted) -> Choices:
        """Raises RequestError or BackendError when one of them cannot be; then none is."""
        choices = cls(gateway, connection)
        try:
            for request in wanted.choices:
                await choices._add(request)
        except BaseException:
            choices.end()
            raise
        return choices

    @property
    def ids(self) -> list[str]:
        """Of their streams."""
        return [choice.stream.id for choice in self._choices]

    @property
    def model(self) -> str:
        return self._choices[0].stream.model

    @property
    def pad(self) -> int | None:
        """Bytes that writes are filled up to; None: they are not."""
        return self._choices[0].attachment.pad

    async def told(self) -> AsyncIterator[list[tuple[int, ServerEvent]]]:
        """What each is owed, by index, until all have ended or the reader is gone."""
        numbers = {choice.attachment: n for n, choice in enumerate(self._choices)}
        while not all(attachment.closed for attachment in numbers):
            if not (woken := await self.connection.woken()):
                return
            told = [
                (number, event)
                for attachment, number in numbers.items()
                if attachment in woken
                for event in attachment.collect()
            ]
            if told:
                yield told

    def end(self) -> None:
        """Whatever still generates is cancelled, and nothing is kept. Idempotent."""
        for choice in self._choices:
            choice.attachment.leave()
            self._gateway.streams.discard(choice.stream)

    async def _add(self, request: GenerationRequest) -> None:
        gateway, connection = self._gateway, self.connection
        principal = connection.principal
        # `hold` is what OpenAI's interface means, whatever else a key is limited to.
        asked = request.policy
        policy = asked if isinstance(asked, Hold) else gateway.policy(asked, principal)
        stream = await gateway.generate(request, policy, principal, is_kept=False)
        try:
            attachment = stream.attach(
                policy, connection=connection, unit=request.offsets, include=request.include
            )
        except RequestError:
            gateway.streams.discard(stream)
            raise
        self._choices.append(_Choice(stream, attachment))


class Reading:
    """Follows one choice's events: which part its text belongs to, and which tokens it is made of.

    Bounded by one token's text.
    """

    def __init__(self, *, logprobs: bool) -> None:
        self._logprobs = logprobs
        self._kind = ""
        self._name: str | None = None
        self._calls = 0
        """Parts of calls so far."""
        self._unscored = ""
        """Committed text whose token is told with later text: a policy may cut within a token."""
        self._scored_to = 0
        """Code points of the part that told tokens are made of."""

    def begin(self, part: Open | Part) -> Piece:
        """The part's empty beginning."""
        self._kind, self._name = part.kind, part.name
        self._calls += part.kind == PartKind.TOOL_CALL
        self._unscored, self._scored_to = "", 0
        return self._piece("", None)

    def piece(self, commit: Commit) -> Piece:
        return self._piece(commit.text, self._scored(commit) if self._logprobs else None)

    def _piece(self, text: str, scored: list[Scored] | None) -> Piece:
        return Piece(self._kind, self._name, max(0, self._calls - 1), text, scored)

    def _scored(self, commit: Commit) -> list[Scored]:
        self._unscored += commit.text
        scored: list[Scored] = []
        for token in commit.tokens or ():
            text, self._unscored = self._unscored[: token.n], self._unscored[token.n :]
            if token.logprob is not None:
                scored.append(Scored(text, token.logprob, self._scored_to, token.top))
            self._scored_to += len(text)
        return scored
