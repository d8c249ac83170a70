"""The engine: step() = schedule → draft → run → verify → postprocess, for all sequences at once."""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.config import MAX_VERIFY_DELAY_MS
from engine.drafting import OFF
from engine.errors import EngineRequestError, IntegrityError
from engine.frames import (
    Accepted,
    Drafted,
    EngineEvent,
    Failed,
    Finished,
    Load,
    Ready,
    Start,
    Step,
    TokenCounts,
    Verified,
)
from engine.loading.parts import Parts, load
from engine.model.batch import Span
from engine.sampling.alternatives import with_alternatives
from engine.sampling.sampler import Judged, Sampler, Verdict
from engine.scheduling.sequence import Sequence
from engine.sentinel import Sentinel
from engine.step_clock import StepClock
from engine.text.prompts import Encoded
from engine.text.stream import TextStream, VerifiedText

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.config import EngineConfig
    from engine.drafters.base import Proposal
    from engine.scheduling.scheduler import Scheduled

log = logging.getLogger(__name__)

SEED_BITS = 63


class _Live(NamedTuple):
    """What the engine keeps of a stream besides its sequence."""

    sequence: Sequence
    text: TextStream
    ends: frozenset[int]
    """Token ids that end it."""


class Engine:
    """Draft/verify decoding of many streams on one model. Used by one thread only."""

    def __init__(self, config: EngineConfig, progress: Callable[[str, float | None], None]) -> None:
        """Loads everything and measures the machine; `progress(phase, fraction)` is told about it.

        Raises CheckpointError or EngineConfigError when the model cannot be served as configured.
        """
        parts: Parts = load(config, progress)
        self._config = config
        self._name = parts.name
        self._prompts = parts.prompts
        self._defaults = parts.defaults
        self._eos = parts.eos_token_ids
        self._table = parts.table
        self._compiler = parts.grammars
        self._runner = parts.runner
        self._dtype = parts.dtype
        self._kernels = parts.kernels
        self._close = parts.close
        self._scheduler = parts.scheduler
        self._context = parts.context_length
        self._live: dict[str, _Live] = {}
        self._sequences, self._samplers, self._grammars = parts.live
        self._drafting = parts.drafting
        self._no_drafts: set[str] = set()
        """Streams nobody wants to see drafts of."""
        self._outbox: list[EngineEvent] = []
        """Endings that came between steps."""
        self._arrivals = 0
        self._steps = 0
        self._shelves = parts.shelves
        self._clock = StepClock(lambda rows: parts.verify_cost(rows) + self._drafting.pause_s)
        self.slow_verification(config.verify_delay_ms)
        self._sentinel = self._watch(parts) if config.mode == "exact" else None

    def info(self) -> Ready:
        blocks = self._scheduler.blocks
        return Ready(
            model=self._name,
            context_length=self._context,
            vocab_size=self._runner.model.shape.vocab,
            dtype=self._dtype,
            drafters=self._drafting.names,
            kv_blocks=blocks.num_blocks,
            block_size=blocks.block_size,
            default_drafter=self._drafting.default,
            kernels=self._kernels,
            max_sequences=self._config.max_sequences,
            chat_template=self._prompts.template,
            answer_opening=self._prompts.answer_opening(),
        )

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work or bool(self._outbox)

    def encode(self, start: Start) -> Encoded:
        """A request's text as tokens, for `add`. Raises EngineRequestError, naming the field.

        May run on another thread than the rest, one call at a time.
        """
        prediction = self._prompts.encode_prediction(start.prediction or "")
        asked = start.sampling.grammar
        grammar = None if asked is None else self._compiler.compile(asked)
        if start.messages is not None:
            chat = self._prompts.encode_chat(start.messages, start.tools, start.begun)
            return Encoded(chat, not start.begun, prediction, grammar)
        tokens = self._prompts.encode((start.prompt or "") + start.begun)
        if not tokens:
            raise EngineRequestError("invalid_value", "the prompt must not be empty", "prompt")
        return Encoded(tokens, not self._table.has_text(tokens), prediction, grammar)

    def add(self, start: Start, encoded: Encoded | None = None) -> Accepted:
        """Admit a stream, `encoded` as `encode` gave it (None: it is encoded here).

        Raises EngineRequestError, naming the field, when it cannot run.
        """
        if start.stream in self._live:
            raise EngineRequestError("internal", f"stream {start.stream} is already running")
        if len(self._live) >= self._config.max_sequences + self._config.max_waiting:
            raise EngineRequestError("overloaded", "the engine's waiting queue is full")
        encoded = encoded or self.encode(start)
        prompt = encoded.prompt
        field = "messages" if start.prompt is None else "prompt"
        self._check_tokens(dict.fromkeys(prompt), field)
        sampling = start.sampling.completed(self._defaults)
        if sampling.grammar is not None and sampling.ignore_eos:
            raise EngineRequestError(
                "invalid_value",
                "ignore_eos: not with a grammar, which says where it ends",
                "ignore_eos",
            )
        self._check_tokens(sampling.logit_bias, "logit_bias")
        self._check_tokens(dict.fromkeys(sampling.stop_token_ids), "stop_token_ids")
        room = self._context - len(prompt)
        if room < 1:
            raise EngineRequestError(
                "context_exceeded",
                f"the prompt has {len(prompt)} tokens; this model takes at most {self._context - 1}"
                " and a completion of at least one",
                field,
            )
        drafter = self._drafting.chosen(start.drafter)
        seed = sampling.seed if sampling.seed is not None else secrets.randbits(SEED_BITS)
        asked = self._config.draft_length if start.draft_length is None else start.draft_length
        self._arrivals += 1
        sequence = Sequence(
            start.stream,
            prompt,
            start.committed,
            sampling.limited(room),
            seed=seed,
            priority=start.priority,
            arrival=self._arrivals,
            max_draft=min(asked, self._config.draft_length) if drafter != OFF else 0,
            drafter=drafter,
            salt=start.salt,
        )
        sequence.drafted = start.counts.drafted
        sequence.accepted = start.counts.accepted
        sequence.steps = start.counts.steps
        text = TextStream(self._table, sampling.stop, at_start=encoded.at_start)
        if start.committed:
            text.resume(start.committed, start.committed_chars)
        if encoded.grammar is not None:
            encoded.grammar.advance(start.committed)
        self._enter(start, sequence, text, encoded)
        return Accepted(start.stream, len(prompt), seed)

    def cancel(self, stream: str) -> None:
        """End a stream now; its `Finished` comes with the next step. Idempotent."""
        live = self._live.get(stream)
        if live is not None:
            self._outbox += self._finish(live, "cancelled", live.text.finish("cancelled"))

    def want_drafts(self, stream: str, wanted: bool) -> None:
        if stream not in self._live:
            return
        if wanted:
            self._no_drafts.discard(stream)
        else:
            self._no_drafts.add(stream)

    def slow_verification(self, delay_ms: float) -> None:
        """From the next step on, pause so long before each verification (`verify_delay_ms`)."""
        self._drafting.pause_s = min(delay_ms, MAX_VERIFY_DELAY_MS) / 1000

    def step(self, emit: Callable[[Step], None]) -> None:
        """One draft/verify round; `emit` gets drafts before they are verified, then verdicts."""
        if self._outbox:
            events, self._outbox = self._outbox, []
            emit(Step(events))
        if not self._scheduler.has_work:
            return
        clock = self._clock
        clock.begin()
        plan = self._scheduler.schedule()
        if not plan:
            raise IntegrityError("there is work, but nothing could be scheduled")
        clock.mark("schedule")
        drafts = self._drafting.propose(plan)
        clock.mark("draft")
        shown = self._drafted_events(plan, drafts)
        if shown:
            emit(Step(shown))
        clock.mark("send")
        if self._drafting.pause_s:
            time.sleep(self._drafting.pause_s)
            clock.mark("demonstration")
        spans = [_span(item, d) for item, d in zip(plan, drafts, strict=True)]
        self._grammars.prepare(
            [
                (item.sequence.stream, draft.tokens)
                for item, draft in zip(plan, drafts, strict=True)
                if item.samples
            ]
        )
        logits = self._runner.run(spans)
        clock.mark("forward")
        verdicts = self._verify(plan, drafts, logits)
        clock.mark("verify")
        events = self._postprocess(plan, drafts, verdicts)
        clock.mark("postprocess")
        if events:
            emit(Step(events))
        clock.mark("send")
        self._steps += 1
        rows = sum(len(span.tokens) for span in spans)
        clock.end(rows, self._runner.last_parts)
        forward, judged = self._runner.shares(clock.seconds("forward"), clock.seconds("verify"))
        self._drafting.took(
            plan,
            rows,
            forward=forward,
            judged=judged,
            around=clock.seconds("schedule", "send", "postprocess"),
        )
        if self._sentinel is not None:
            self._sentinel.watch(spans, [item.sequence.tokens for item in plan], logits)

    def idle(self) -> None:
        """Without work, in exact mode: compute the last step again and compare."""
        if self._sentinel is not None:
            self._sentinel.idle()

    def load(self) -> Load:
        """May be called from another thread: it reads numbers and lengths, and stops nothing."""
        scheduler, sentinel = self._scheduler, self._sentinel
        return Load(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_blocks_used=scheduler.blocks.num_blocks - scheduler.blocks.free_blocks,
            steps=self._steps,
            preemptions=scheduler.preemptions,
            sentinel_checks=0 if sentinel is None else sentinel.checks,
            sentinel_mismatches=self.sentinel_mismatches,
        )

    @property
    def sentinel_mismatches(self) -> int:
        """Steps that gave other bits when computed again; 0 is what exact mode promises."""
        return 0 if self._sentinel is None else self._sentinel.mismatches

    def forget_streams(self) -> None:
        """Drafters copy nothing from streams so far any more. For measurements that repeat them."""
        self._shelves.clear()

    def check_integrity(self) -> None:
        """Raise IntegrityError unless blocks and sequences agree. For between any two steps."""
        self._scheduler.blocks.check_integrity(list(self._scheduler.sequences()))

    def close(self) -> None:
        """Let go of the model."""
        if self._sentinel is not None:
            self._sentinel.close()
        self._live.clear()
        self._drafting.close()
        self._grammars.close()
        self._close()

    def _watch(self, parts: Parts) -> Sentinel:
        blocks = parts.scheduler.blocks
        return Sentinel(
            parts.runner,
            first_block=blocks.num_blocks,
            block_size=blocks.block_size,
            setting=f"{parts.name}, {parts.dtype}, kernels {parts.kernels}, {self._config}",
        )

    def _check_tokens(self, tokens: dict[int, float] | dict[int, None], param: str) -> None:
        vocab = self._runner.model.shape.vocab
        for token in tokens:
            if not 0 <= token < vocab:
                raise EngineRequestError(
                    "invalid_value", f"token id {token} is not in 0 … {vocab - 1}", param
                )

    def _enter(self, start: Start, sequence: Sequence, text: TextStream, encoded: Encoded) -> None:
        sampling = sequence.sampling
        ends = frozenset(sampling.stop_token_ids)
        if not sampling.ignore_eos:
            ends |= self._eos
        live = _Live(sequence, text, ends)
        sampler = Sampler(sampling, sequence.seed, self._runner.model.shape.vocab)
        # What may fail is done by here: nothing of the stream is left behind if it does.
        self._live[start.stream] = live
        self._sequences[start.stream] = sequence
        self._samplers[start.stream] = sampler
        if encoded.grammar is not None:
            self._grammars.begin(start.stream, encoded.grammar)
        if not start.want_drafts:
            self._no_drafts.add(start.stream)
        self._drafting.begin(sequence, encoded.prediction)
        self._scheduler.add(sequence)
        if text.stopped:
            self._outbox += self._finish(live, "stop", text.finish())
        elif sequence.remaining < 1:
            self._outbox += self._finish(live, "length", text.finish())

    def _drafted_events(self, plan: list[Scheduled], drafts: list[Proposal]) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        for item, draft in zip(plan, drafts, strict=True):
            stream = item.sequence.stream
            if draft.tokens and stream not in self._no_drafts:
                tail, tokens = self._live[stream].text.draft(draft.tokens, draft.confidence)
                events.append((stream, Drafted(tail, tokens)))
        return events

    def _verify(
        self, plan: list[Scheduled], drafts: list[Proposal], logits: Any
    ) -> list[Verdict | None]:
        """One verdict per scheduled sequence; None for a prefill chunk that is not the last.

        logits: for each sequence that samples, a row per draft token and one more.
        """
        items = [
            Judged(
                self._samplers[item.sequence.stream],
                item.sequence.tokens,
                item.sequence.prompt_length,
                draft.tokens,
                self._grammars.masks(item.sequence.stream),
            )
            for item, draft in zip(plan, drafts, strict=True)
            if item.samples
        ]
        verdicts = iter(with_alternatives(logits, items, self._runner.judge(logits, items)))
        return [next(verdicts) if item.samples else None for item in plan]

    def _postprocess(
        self, plan: list[Scheduled], drafts: list[Proposal], verdicts: list[Verdict | None]
    ) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        broken = self._runner.broken
        for number, (item, draft, verdict) in enumerate(zip(plan, drafts, verdicts, strict=True)):
            sequence = item.sequence
            if number in broken or (verdict is not None and verdict.failed):
                fault = self._grammars.error(sequence.stream)
                why = f"its grammar: {fault}" if fault else "the model's output was not a number"
                events += self._fail(sequence.stream, f"{why}: it cannot go on")
                continue
            sequence.computed += item.rows
            if verdict is None:
                self._scheduler.blocks.register(sequence)
                continue
            try:
                events += self._advance(sequence, draft, verdict)
            except (IntegrityError, MemoryError):
                raise
            except Exception as error:
                # A fault met by one request is no reason to end the others.
                log.exception("a stream failed", extra={"stream": sequence.stream})
                events += self._fail(sequence.stream, f"the engine failed: {type(error).__name__}")
        return events

    def _advance(self, sequence: Sequence, draft: Proposal, verdict: Verdict) -> list[EngineEvent]:
        """Commit a verdict: tokens, text, blocks, and the end of the stream if this is it."""
        live = self._live[sequence.stream]
        kept, reason = _until_end(verdict.tokens, live.ends, sequence.remaining)
        logprobs = verdict.logprobs and verdict.logprobs[: len(kept)]
        verified = live.text.verify(kept, logprobs, verdict.alternatives)
        if verified.stopped:
            kept, reason = kept[: verified.consumed], "stop"
        accepted = min(verdict.accepted, len(kept))
        sequence.steps += 1
        sequence.drafted += len(draft.tokens)
        sequence.accepted += accepted
        sequence.tokens += kept
        self._grammars.advance(sequence.stream, kept)
        sequence.computed += accepted
        self._drafting.observe(sequence, draft, accepted)
        blocks = self._scheduler.blocks
        blocks.trim(sequence)
        blocks.register(sequence)
        events = _verified_events(sequence.stream, verified, _counts(sequence))
        if reason is not None:
            events += self._finish(live, reason, live.text.finish())
        return events

    def _fail(self, stream: str, message: str) -> list[EngineEvent]:
        """End one stream that cannot go on; the same request would fail again."""
        log.error("a stream is given up: %s", message, extra={"stream": stream})
        live = self._live.get(stream)
        if live is not None:
            self._let_go(live.sequence)
        return [(stream, Failed("internal", message))]

    def _let_go(self, sequence: Sequence) -> None:
        """Everything a stream held is given back."""
        stream = sequence.stream
        self._scheduler.remove(sequence)
        self._drafting.end(sequence)
        del self._live[stream], self._sequences[stream], self._samplers[stream]
        self._no_drafts.discard(stream)
        self._grammars.end(stream)

    def _finish(self, live: _Live, reason: str, rest: VerifiedText) -> list[EngineEvent]:
        """Last events of a stream; everything it held is given back."""
        sequence = live.sequence
        stream = sequence.stream
        self._let_go(sequence)
        counts = _counts(sequence)
        return [*_verified_events(stream, rest, counts), (stream, Finished(reason, counts))]


def _span(item: Scheduled, draft: Proposal) -> Span:
    sequence = item.sequence
    start = sequence.computed
    tokens = sequence.tokens[start : start + item.rows] + draft.tokens
    logits_from = item.rows - 1 if item.samples else len(tokens)
    return Span(tokens, start, sequence.block_table, logits_from)


def _until_end(
    tokens: list[int], ends: frozenset[int], remaining: int
) -> tuple[list[int], str | None]:
    """Tokens that count, and why the stream ends after them, if it does."""
    for place, token in enumerate(tokens):
        if token in ends:
            return tokens[:place], "stop"
        if place + 1 == remaining:
            return tokens[: place + 1], "length"
    return tokens, None


def _counts(sequence: Sequence) -> TokenCounts:
    return TokenCounts(
        prompt=sequence.prompt_length,
        cached_prompt=sequence.cached_prompt,
        completion=sequence.completion_length,
        drafted=sequence.drafted,
        accepted=sequence.accepted,
        steps=sequence.steps,
    )


def _verified_events(stream: str, verified: VerifiedText, counts: TokenCounts) -> list[EngineEvent]:
    """Nothing, where nothing was committed and no tail changed."""
    text, tail, cause, tokens, *_ = verified
    if not (text or tail or cause or tokens):
        return []
    return [(stream, Verified(text, tail, cause, tokens, counts))]
