"""The bytes of an upstream's event stream, as the events of a backend. No I/O.

Its text is committed text: an upstream takes nothing back.
"""

from __future__ import annotations

import codecs
from typing import Any

import msgspec

from gateway.backends.base import BackendEvent, Finished, PartBegins, TokenCounts, Verified
from gateway.backends.openai.errors import cut_message, detail_in
from gateway.parts.scanning import ValueScanner
from protocol.codec import MALFORMED
from protocol.events import FinishReason, PartKind, Token
from protocol.sse import SSEParser

MAX_EVENT_BYTES = 4 * 1024 * 1024
DONE = "[DONE]"
_FAILURES = frozenset({"error", "abort", "cancelled"})
"""Reasons for which a text ends without being whole."""
_REASONS = {"function_call": FinishReason.TOOL_CALLS.value}


class Breach(Exception):
    """The upstream sent what is no answer."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int = 0
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Scored(msgspec.Struct):
    """A token of a chat's `logprobs.content`."""

    token: str = ""
    logprob: float | None = None
    bytes: list[int] | None = None
    id: int | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Scored] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _AnswerDetails(msgspec.Struct):
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _AnswerDetails | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Chunk)


class Answer:
    """One answer of `/v1/chat/completions` or `/v1/completions`, as it comes in.

    What it is fed gives events; text that came together is one event. It is whole once an event
    `Finished` has come of it: of `feed`, or of `end`.
    """

    def __init__(self) -> None:
        self.failure: str | None = None
        """What was wrong with it; nothing comes of it afterwards."""
        self.is_final = False
        """Whether asking again would only meet the failure again."""
        self.tokens = 0
        """Of its text so far; counted in pieces where it names none."""
        self._parser = SSEParser(MAX_EVENT_BYTES)
        self._kind = PartKind.TEXT
        self._call: int | None = None
        self._arguments = ValueScanner()
        """Of the present call."""
        self._is_whole_call = False
        self._reason: str | None = None
        self._usage: _Usage | None = None
        self._finished = False
        self._text: list[str] = []
        """Of the present part, not yet an event."""
        self._marks: list[Token] | None = []
        """Of that text; None where they do not cover it."""
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        """Of tokens' bytes: a character may take several tokens."""

    @property
    def counts(self) -> TokenCounts:
        """As it tells them; before that, what was counted here."""
        usage = self._usage
        if usage is None:
            return TokenCounts(completion=self.tokens)
        prompt, answer = usage.prompt_tokens_details, usage.completion_tokens_details
        accepted = (answer and answer.accepted_prediction_tokens) or 0
        rejected = (answer and answer.rejected_prediction_tokens) or 0
        return TokenCounts(
            prompt=usage.prompt_tokens or 0,
            cached_prompt=(prompt and prompt.cached_tokens) or 0,
            completion=self.tokens if usage.completion_tokens is None else usage.completion_tokens,
            drafted=accepted + rejected,
            accepted=accepted,
            reasoning=(answer and answer.reasoning_tokens) or 0,
        )

    def feed(self, data: bytes) -> list[BackendEvent]:
        """What `data` brings. Never raises: what cannot be an answer sets `failure`."""
        events: list[BackendEvent] = []
        if self.failure is not None or self._finished:
            return events
        try:
            for found in self._parser.feed(data):
                if found.data == DONE:
                    self._done(events)
                    return events
                self._chunk(found.data, events)
            if self._parser.failure is not None:
                raise Breach(self._parser.failure.message)
        except Breach as breach:
            self.failure = str(breach)
        self._flush(events)
        return events

    def end(self) -> list[BackendEvent]:
        """Nothing more will come of it, for whatever reason. Gives `Finished` where its text is
        whole, else nothing and says in `failure` why.
        """
        events: list[BackendEvent] = []
        if self.failure is None and not self._finished:
            if self._reason is None:
                self.failure = "its answer broke off"
            else:
                self._finish(events)
        return events

    def _done(self, events: list[BackendEvent]) -> None:
        self._flush(events)
        if self._reason is None:
            self.failure = "its answer ended without a reason"
        else:
            self._finish(events)

    def _finish(self, events: list[BackendEvent]) -> None:
        assert self._reason is not None
        self._finished = True
        reason = _REASONS.get(self._reason, self._reason)
        # Some say "stop" behind a call that had to be made.
        if reason == FinishReason.STOP and self._is_whole_call:
            reason = FinishReason.TOOL_CALLS.value
        events.append(Finished(reason, self.counts))

    def _chunk(self, data: str, events: list[BackendEvent]) -> None:
        try:
            chunk = _decoder.decode(data)
        except MALFORMED as error:
            raise Breach(f"it sent what is no chunk of an answer: {error}") from None
        if chunk.error is not None:
            self._refused(chunk.error)
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices:
            if choice.index == 0:
                self._choice(choice, events)

    def _refused(self, raw: object) -> None:
        detail = detail_in({"error": raw})
        code = detail.code
        self.is_final = isinstance(code, int) and 400 <= code < 500 and code not in (408, 429)
        raise Breach(f"it failed in the middle: {cut_message(detail.message)}")

    def _choice(self, choice: _Choice, events: list[BackendEvent]) -> None:
        if self._reason is not None and _says_something(choice):
            raise Breach("it went on after its end")
        text = choice.text
        if choice.delta is not None:
            text = self._delta(choice.delta, events)
        if text or choice.logprobs is not None:
            self._say(text or "", choice)
        if choice.finish_reason is not None:
            if choice.finish_reason in _FAILURES:
                raise Breach(f"it gave up ({choice.finish_reason})")
            self._reason = choice.finish_reason

    def _delta(self, delta: _Delta, events: list[BackendEvent]) -> str | None:
        """Reasoning and calls become parts; gives the text that is the answer's own."""
        if reasoning := delta.reasoning_content or delta.reasoning:
            self._begin(PartKind.REASONING, None, events)
            self._append(reasoning)
        text = delta.content or delta.refusal
        if text:
            self._begin(PartKind.TEXT, None, events)
        for call in delta.tool_calls or ():
            if text:
                raise Breach("it sent text and a tool call in one piece")
            self._called(call, events)
        return text

    def _called(self, call: _Call, events: list[BackendEvent]) -> None:
        function = call.function or _Function()
        if self._kind != PartKind.TOOL_CALL or call.index != self._call:
            if self._call is not None and call.index <= self._call:
                raise Breach("it went back to an earlier tool call")
            if not function.name:
                raise Breach("it sent a tool call without a name")
            self._flush(events)
            self._kind, self._call = PartKind.TOOL_CALL, call.index
            self._arguments, self._is_whole_call = ValueScanner(), False
            events.append(PartBegins(PartKind.TOOL_CALL, function.name))
        if function.arguments:
            self._append(function.arguments)
            ended = self._arguments.feed(function.arguments) is not None
            self._is_whole_call = self._is_whole_call or ended

    def _begin(self, kind: PartKind, name: str | None, events: list[BackendEvent]) -> None:
        if kind != self._kind:
            self._flush(events)
            self._kind = kind
            events.append(PartBegins(kind, name))

    def _say(self, text: str, choice: _Choice) -> None:
        marks = self._tokens(choice)
        if text:
            self._text.append(text)
        if marks is None:
            self.tokens += bool(text)
            self._marks = None
            return
        self.tokens += len(marks)
        if self._marks is not None:
            self._marks += marks

    def _append(self, text: str) -> None:
        self._text.append(text)
        self._marks = None
        self.tokens += 1

    def _tokens(self, choice: _Choice) -> list[Token] | None:
        """None where it does not say which they are."""
        scored = choice.logprobs and choice.logprobs.content
        if not scored:
            return None
        ids = choice.token_ids
        if ids is not None and len(ids) != len(scored):
            ids = None
        marks: list[Token] = []
        for number, each in enumerate(scored):
            id_ = each.id if ids is None else ids[number]
            if id_ is None or id_ < 0:
                return None
            marks.append(Token(id_, self._length(each), each.logprob))
        return marks

    def _length(self, scored: _Scored) -> int:
        """Code points that a token completes."""
        if scored.bytes is None:
            return len(scored.token)
        try:
            return len(self._characters.decode(bytes(scored.bytes)))
        except ValueError:
            raise Breach("a token has a byte that is none") from None

    def _flush(self, events: list[BackendEvent]) -> None:
        if not self._text:
            return
        text = self._text[0] if len(self._text) == 1 else "".join(self._text)
        self._text.clear()
        marks, self._marks = self._marks, []
        covers = marks and sum(token.n for token in marks) == len(text)
        events.append(Verified(text, tokens=marks if marks and covers else []))


def _says_something(choice: _Choice) -> bool:
    delta = choice.delta
    return bool(choice.text) or (
        delta is not None
        and bool(delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls)
    )
