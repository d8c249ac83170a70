# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# safetensors declares some of its types in part only.
"""What the engine promises about a stream's events, its ends and its errors."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from safetensors.torch import load_file, save_file

from engine.errors import EngineRequestError
from engine.frames import ChatMessage, Drafted, Failed, Finished, Start, Step, Verified
from engine.scheduling.sequence import Status
from engine.text.stream import TextStream
from tests import models
from tests.generation import Generation, engine_on, generate, request, scheduler_of, text_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from engine.engine import Engine

EOS = 1
PROMPT = "The ink is wet, the ink is dry; the ink is"
PROMPT_TOKENS = 16


@pytest.fixture(scope="module")
def shared(tiny: Path, near: Path) -> Engine:
    return engine_on(tiny, draft_model=str(near), max_sequences=2, max_waiting=2, drafter="none")


@pytest.fixture
def engine(shared: Engine) -> Generator[Engine]:
    """Two streams at once, two waiting, no drafts unless asked for. Left without work."""
    yield shared
    for sequence in list(scheduler_of(shared).sequences()):
        shared.cancel(sequence.stream)
    while shared.has_work:
        shared.step(lambda step: None)


def refused(engine: Engine, start: Start) -> EngineRequestError:
    with pytest.raises(EngineRequestError) as caught:
        engine.add(start)
    assert not engine.has_work
    return caught.value


@pytest.mark.parametrize(
    ("start", "code", "param", "words"),
    [
        (request("s", "ink " * 600), "context_exceeded", "prompt", "at most 511"),
        (
            request("s", [ChatMessage("user", "ink " * 600)]),
            "context_exceeded",
            "messages",
            "at most 511",
        ),
        (request("s", ""), "invalid_value", "prompt", "empty"),
        (
            request("s", "a", drafter="oracle"),
            "invalid_value",
            "draft.drafter",
            "model, ngram, suffix",
        ),
        (request("s", "a", logit_bias={320: 1.0}), "invalid_value", "logit_bias", "0 … 319"),
        (request("s", "a", logit_bias={-1: 1.0}), "invalid_value", "logit_bias", "-1"),
        (request("s", "a", stop_token_ids=[999]), "invalid_value", "stop_token_ids", "999"),
        (
            request("s", "a", committed=[70, 71], committed_chars=1),
            "invalid_value",
            "committed_chars",
            "code points",
        ),
    ],
)
def test_engine_refuses_a_request_naming_the_field(
    engine: Engine, start: Start, code: str, param: str, words: str
) -> None:
    error = refused(engine, start)
    assert (error.code, error.param) == (code, param)
    assert words in error.message


def test_engine_refuses_more_streams_than_may_wait(engine: Engine) -> None:
    generation = Generation(engine)
    generation.start(*[request(f"s{n}", PROMPT, max_tokens=3) for n in range(4)])
    with pytest.raises(EngineRequestError) as caught:
        engine.add(request("s4", PROMPT))
    assert caught.value.code == "overloaded"
    generation.run()
    assert generate(engine, request("s4", PROMPT, max_tokens=3))["s4"].reason == "length"


def test_engine_says_how_much_it_has_to_do(engine: Engine) -> None:
    before = engine.load()
    assert (before.running, before.waiting, before.kv_blocks_used) == (0, 0, 0)
    generation = Generation(engine)
    generation.start(*[request(f"s{n}", PROMPT, max_tokens=3) for n in range(3)])
    assert engine.load().waiting == 3
    engine.step(lambda step: None)
    load = engine.load()
    assert (load.running, load.waiting, load.steps) == (2, 1, before.steps + 1)
    assert load.kv_blocks_used == 2 * -(-PROMPT_TOKENS // engine.info().block_size)


def test_engine_refuses_a_stream_that_is_already_running(engine: Engine) -> None:
    generation = Generation(engine)
    generation.start(request("s", PROMPT, max_tokens=3))
    with pytest.raises(EngineRequestError, match="already running"):
        engine.add(request("s", PROMPT))
    assert generation.run()["s"].reason == "length"


def test_engine_gives_a_prompt_all_the_room_there_is(engine: Engine) -> None:
    """The longest prompt that leaves one token, and a completion cut to what is left."""
    start = request("s", "x" * 511, max_tokens=50, ignore_eos=True)
    accepted = engine.add(start)
    generation = Generation(engine)
    engine.cancel("s")
    engine.step(lambda step: None)
    length = accepted.prompt_tokens
    fitting = msgspec.structs.replace(start, prompt="x" * 500)
    counts = generate(engine, fitting)["s"].counts
    assert (length, counts.prompt, counts.completion) == (511, 500, 12)
    assert generation.steps == 0


def test_engine_draws_a_seed_and_says_which(engine: Engine) -> None:
    start = request("s", PROMPT, max_tokens=12, temperature=1.3, ignore_eos=True)
    generation = Generation(engine)
    generation.start()
    seeds: list[int] = []
    texts: list[str] = []
    for _ in range(3):
        seeds.append(engine.add(start).seed)
        engine.cancel("s")
        engine.step(lambda step: None)
        sampling = msgspec.structs.replace(start.sampling, seed=seeds[-1])
        texts.append(generate(engine, msgspec.structs.replace(start, sampling=sampling))["s"].text)
    assert len(set(seeds)) == len(set(texts)) == 3
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_draft_leaves_before_its_verification(engine: Engine) -> None:
    """By the time of the verdict the draft was already sent, in a step of its own."""
    engine.add(request("s", PROMPT, drafter="model", draft_length=4, max_tokens=12))
    sequence = next(scheduler_of(engine).sequences())
    order: list[tuple[str, int]] = []

    def emit(step: Step) -> None:
        kinds = {
            type(event).__name__ for _, event in step.events if not isinstance(event, Finished)
        }
        assert len(kinds) == 1
        order.append((kinds.pop(), len(sequence.tokens) - sequence.prompt_length))

    while engine.has_work:
        engine.step(emit)
    assert order[0] == ("Drafted", 0), "the first draft follows the prompt's prefill"
    for (kind, length), (after, later) in zip(order, order[1:], strict=False):
        if kind == "Drafted":
            assert (after, later > length) == ("Verified", True)


def test_engine_sends_no_drafts_to_nobody(engine: Engine) -> None:
    """Unwanted from the start, switched on and off again; the text is the same."""
    usual: dict[str, Any] = {"drafter": "model", "max_tokens": 40, "ignore_eos": True, "seed": 1}
    generation = Generation(engine)
    generation.start(
        request("wanted", PROMPT, **usual), request("not", PROMPT, want_drafts=False, **usual)
    )
    streams = generation.streams
    for _ in range(3):
        generation.step()
    assert streams["wanted"].drafts == 3
    assert streams["not"].drafts == 0
    engine.want_drafts("wanted", False)
    engine.want_drafts("not", True)
    engine.want_drafts("unknown", True)
    for _ in range(2):
        generation.step()
    assert streams["wanted"].drafts == 3
    assert streams["not"].drafts == 2
    assert streams["wanted"].text == streams["not"].text
    generation.run()
    assert streams["wanted"].text == streams["not"].text
    assert streams["not"].counts.drafted == streams["wanted"].counts.drafted > 0


def test_unwanted_draft_is_shown_to_nobody_later(engine: Engine) -> None:
    """Switched off while a draft is on screen: the verdict still explains it, once."""
    generation = Generation(engine)
    generation.start(request("s", PROMPT, drafter="model", max_tokens=40, ignore_eos=True))
    generation.step()
    engine.want_drafts("s", False)
    generation.run()
    assert generation.streams["s"].drafts == 1


@pytest.mark.parametrize("when", ["waiting", "prefilling", "running", "preempted", "drafted"])
def test_cancelled_stream_ends_in_any_state(tiny: Path, near: Path, when: str) -> None:
    engine = engine_on(
        tiny, draft_model=str(near), kv_blocks=6, max_step_tokens=16, prefix_cache=False
    )
    generation = Generation(engine)
    usual: dict[str, Any] = {"max_tokens": 60, "ignore_eos": True, "drafter": "model"}
    prompt = "x" * 40 if when == "prefilling" else "The ink"
    # Both need all blocks before either is done: slow, without luck in their drafts.
    if when == "preempted":
        usual["draft_length"] = 0
    generation.start(request("other", "The", **usual), request("s", prompt, **usual))
    (sequence,) = [s for s in scheduler_of(engine).sequences() if s.stream == "s"]

    def reached() -> bool:
        match when:
            case "waiting":
                return sequence.status is Status.WAITING
            case "prefilling":
                return 0 < sequence.computed < sequence.prompt_length
            case "running":
                return sequence.completion_length > 5
            case "drafted":
                return generation.streams["s"].drafts > 0
            case _:
                return sequence.status is Status.PREEMPTED

    while not reached():
        generation.step()
    before = generation.streams["s"].text
    engine.cancel("s")
    engine.cancel("s")
    engine.cancel("unknown")
    assert sequence.status is Status.FINISHED
    generation.step()
    assert generation.streams["s"].reason == "cancelled"
    assert generation.streams["s"].text.startswith(before), "what was committed stands"
    assert generation.run()["other"].reason == "length"
    assert scheduler_of(engine).blocks.free_blocks == 6


def test_stream_waiting_alone_is_cancelled_without_other_work(engine: Engine) -> None:
    generation = Generation(engine)
    generation.start(request("s", PROMPT))
    engine.cancel("s")
    assert engine.has_work
    generation.step()
    assert generation.streams["s"].reason == "cancelled"
    assert not engine.has_work


@pytest.mark.parametrize("drafter", ["none", "ngram", "model"])
@pytest.mark.parametrize("limit", [1, 2, 9])
def test_stream_ends_after_exactly_max_tokens(engine: Engine, drafter: str, limit: int) -> None:
    start = request("s", PROMPT, drafter=drafter, max_tokens=limit, ignore_eos=True)
    stream = generate(engine, start)["s"]
    assert (stream.reason, stream.counts.completion, len(stream.tokens)) == ("length", limit, limit)


def test_stream_ends_at_a_stop_token_without_saying_it(engine: Engine) -> None:
    usual: dict[str, Any] = {"max_tokens": 30, "ignore_eos": True, "drafter": "model", "seed": 2}
    whole = generate(engine, request("s", PROMPT, **usual))["s"]
    stop = whole.ids[12]
    first = whole.ids.index(stop)
    stream = generate(engine, request("s", PROMPT, stop_token_ids=[stop, 5], **usual))["s"]
    assert (stream.reason, stream.ids) == ("stop", whole.ids[:first])
    assert stream.counts.completion == first


@pytest.mark.parametrize("ignore", [True, False])
def test_stream_ends_at_the_models_end_unless_told_otherwise(engine: Engine, ignore: bool) -> None:
    certain = {EOS: 100.0}
    start = request("s", PROMPT, max_tokens=4, logit_bias=certain, ignore_eos=ignore)
    stream = generate(engine, start)["s"]
    assert (stream.reason, stream.counts.completion) == (("length", 4) if ignore else ("stop", 0))
    assert stream.text == "", "a special token has no text"


def test_stream_ends_before_a_stop_string(engine: Engine) -> None:
    usual: dict[str, Any] = {"max_tokens": 40, "ignore_eos": True, "drafter": "model", "seed": 3}
    whole = generate(engine, request("s", PROMPT, temperature=0.7, **usual))["s"].text
    stop = whole[20:23]
    start = request("s", PROMPT, temperature=0.7, stop=[stop, "never said"], **usual)
    stream = generate(engine, start)["s"]
    assert (stream.reason, stream.text) == ("stop", whole[: whole.index(stop)])


def test_continued_stream_that_was_complete_ends_at_once(engine: Engine) -> None:
    """Its engine died between the last token and the word that it was the last."""
    usual: dict[str, Any] = {"ignore_eos": True, "temperature": 0.0}
    whole = generate(engine, request("s", PROMPT, max_tokens=30, **usual))["s"]
    count = whole.cuts[-5]
    start = request(
        "s",
        PROMPT,
        max_tokens=count,
        committed=whole.ids[:count],
        committed_chars=sum(token.n for token in whole.tokens[:count]),
        **usual,
    )
    stream = generate(engine, start)["s"]
    assert (stream.text, stream.reason, stream.counts.completion) == ("", "length", count)


def test_continued_stream_counts_on_from_the_last_event_of_the_engine_before(
    engine: Engine,
) -> None:
    usual: dict[str, Any] = {
        "drafter": "model",
        "draft_length": 3,
        "max_tokens": 30,
        "ignore_eos": True,
        "temperature": 0.0,
    }
    verified: list[Verified] = []

    def emit(step: Step) -> None:
        verified.extend(event for _, event in step.events if isinstance(event, Verified))

    engine.add(request("s", PROMPT, **usual))
    while engine.has_work:
        engine.step(emit)
    before = verified[2]
    tokens = [token for event in verified[:3] for token in event.tokens]
    start = request(
        "s",
        PROMPT,
        committed=[token.id for token in tokens],
        committed_chars=sum(token.n for token in tokens),
        **usual,
    )
    told = msgspec.structs.replace(start, counts=before.counts)
    counts = generate(engine, start)["s"].counts
    counts_on = generate(engine, told)["s"].counts
    for name in ("drafted", "accepted", "steps"):
        own = getattr(counts, name)
        assert own > 0
        assert getattr(counts_on, name) == getattr(before.counts, name) + own
    assert counts_on.completion == counts.completion == 30


def test_counts_add_up(engine: Engine) -> None:
    start = request("s", PROMPT, drafter="model", draft_length=3, max_tokens=30, ignore_eos=True)
    counts = generate(engine, start)["s"].counts
    assert counts.prompt == PROMPT_TOKENS
    assert 0 < counts.accepted < counts.drafted <= 3 * counts.steps
    # Each step commits what it accepted and one token more; the last may be cut.
    assert counts.completion == 30
    assert counts.accepted + counts.steps - counts.completion in (0, 1)


def test_logprobs_come_only_when_asked_for(engine: Engine) -> None:
    usual: dict[str, Any] = {"max_tokens": 8, "ignore_eos": True, "temperature": 0.7, "seed": 1}
    without = generate(engine, request("s", PROMPT, **usual))["s"].tokens
    assert {token.logprob for token in without} == {None}
    tokens = generate(engine, request("s", PROMPT, logprobs=True, **usual))["s"].tokens
    assert [token.id for token in tokens] == [token.id for token in without]
    assert all(token.logprob is not None and token.logprob < 0 for token in tokens)


def test_alternatives_are_the_most_probable_tokens_whatever_is_drafted(engine: Engine) -> None:
    usual: dict[str, Any] = {
        "max_tokens": 24,
        "ignore_eos": True,
        "temperature": 1.5,
        "seed": 1,
        "stop": ["never said"],
        "logprobs": True,
        "top_logprobs": 3,
        "logit_bias": {5: -100.0},
    }
    alone = generate(engine, request("s", PROMPT, draft_length=0, **usual))["s"]
    copied = request("s", PROMPT, drafter="ngram", prediction=alone.text, **usual)
    drafted = generate(engine, copied)["s"]
    assert drafted.tokens == alone.tokens
    assert drafted.counts.accepted > 0
    among = 0
    for token in alone.tokens:
        top = token.top
        assert top is not None and len({each.id for each in top}) == 3
        chances = [each.logprob for each in top]
        assert chances == sorted(chances, reverse=True)
        assert sum(math.exp(chance) for chance in chances) <= 1.0 + 1e-6
        own = [each for each in top if each.id == token.id]
        assert [each.logprob for each in own] == [token.logprob] * len(own)
        # The last one also counts bytes that no code point came of.
        assert token is alone.tokens[-1] or all(len(each.text) == token.n for each in own)
        assert own or (token.logprob is not None and token.logprob <= chances[-1])
        among += bool(own)
    assert 0 < among < len(alone.tokens)


def test_chat_messages_are_the_template_around_them(engine: Engine) -> None:
    usual: dict[str, Any] = {"max_tokens": 12, "ignore_eos": True, "temperature": 0.0}
    chat = generate(engine, request("s", [ChatMessage("user", "Say one.")], **usual))["s"]
    raw = generate(engine, request("s", "<s>user: Say one.\n<s>assistant:", **usual))["s"]
    assert chat.ids == raw.ids


def test_cached_prompt_is_counted_in_whole_blocks(tiny: Path) -> None:
    engine = engine_on(tiny)
    prompt = "one two three " * 6
    first = generate(engine, request("s", prompt, max_tokens=2))["s"].counts
    second = generate(engine, request("s", prompt, max_tokens=2))["s"].counts
    assert first.cached_prompt == 0
    assert second.cached_prompt == (second.prompt - 1) // 16 * 16 > 0


def test_tenant_finds_nothing_of_another_in_the_prefix_cache(tiny: Path) -> None:
    engine = engine_on(tiny, max_step_tokens=16)

    def look(salt: bytes) -> tuple[int, int]:
        """Cached tokens, and steps to the end: what somebody with a watch could tell."""
        start = request("s", "one two three " * 6, max_tokens=2, salt=salt, drafter="none")
        engine.add(start)
        steps, finished = 0, Finished("")

        def emit(step: Step) -> None:
            nonlocal finished
            for _, event in step.events:
                finished = event if isinstance(event, Finished) else finished

        while engine.has_work:
            engine.step(emit)
            steps += 1
        return finished.counts.cached_prompt, steps

    fresh = look(b"alice")
    assert fresh[0] == 0
    assert look(b"bob") == look(b"") == fresh
    cached, steps = look(b"alice")
    assert cached > 0
    assert steps < fresh[1]


def test_confidences_of_a_draft_are_chances(engine: Engine) -> None:
    engine.add(request("s", PROMPT, drafter="model", max_tokens=20, ignore_eos=True))
    seen = 0

    def emit(step: Step) -> None:
        nonlocal seen
        for _, event in step.events:
            if isinstance(event, Drafted):
                seen += len(event.tokens)
                confidences = [token.confidence for token in event.tokens]
                assert all(c is not None and 0 < c <= 1 for c in confidences)
            elif isinstance(event, Verified):
                assert all(token.confidence is None for token in event.tokens)

    while engine.has_work:
        engine.step(emit)
    assert seen > 10


def test_closed_engine_has_let_go(tiny: Path) -> None:
    engine = engine_on(tiny)
    engine.add(request("s", PROMPT))
    engine.close()
    engine.cancel("s")
    with pytest.raises(EngineRequestError, match="not loaded"):
        engine.add(request("t", PROMPT, drafter="ngram"))


def failures(engine: Engine, *starts: Start) -> tuple[dict[str, Failed], dict[str, list[int]]]:
    """What failed, and the tokens of all streams, run to the end."""
    failed: dict[str, Failed] = {}
    tokens: dict[str, list[int]] = {start.stream: [] for start in starts}

    def take(step: Step) -> None:
        for stream, event in step.events:
            if isinstance(event, Failed):
                failed[stream] = event
            elif isinstance(event, Verified):
                tokens[stream] += [token.id for token in event.tokens]

    for start in starts:
        engine.add(start)
    while engine.has_work:
        engine.step(take)
        engine.check_integrity()
    return failed, tokens


@pytest.mark.parametrize("kernels", ["native", "torch"])
def test_engine_ends_a_request_whose_values_are_not_numbers_and_no_other(
    kernels: str, tmp_path: Path
) -> None:
    """One token of the vocabulary has an embedding of NaN; one prompt holds that token."""
    model = models.write(tmp_path / "model")
    path = model / "model.safetensors"
    tensors = load_file(path)
    sick = models.tokenizer().backend_tokenizer.encode("~").ids
    tensors["model.embed_tokens.weight"][sick] = float("nan")
    save_file(tensors, path, {"format": "pt"})
    engine = engine_on(model, kernels=kernels, dtype="float32")
    healthy = request("healthy", PROMPT, max_tokens=12, ignore_eos=True, seed=3)
    _, alone = failures(engine, healthy)
    failed, tokens = failures(engine, request("sick", PROMPT + "~", max_tokens=12), healthy)
    engine.close()
    assert {stream: event.code for stream, event in failed.items()} == {"sick": "internal"}
    assert tokens["healthy"] == alone["healthy"]
    assert len(tokens["healthy"]) == 12
    assert tokens["sick"] == []


def test_engine_ends_a_request_it_stumbles_over_and_no_other(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = TextStream.verify

    def stumble(self: TextStream, *arguments: Any) -> Any:
        if self is texts["sick"]:
            raise LookupError("planted")
        return verify(self, *arguments)

    texts: dict[str, TextStream] = {}
    failed: dict[str, Failed] = {}
    for name in ("sick", "healthy"):
        engine.add(request(name, PROMPT, max_tokens=12, ignore_eos=True))
        texts[name] = text_of(engine, name)
    monkeypatch.setattr(TextStream, "verify", stumble)
    ends: dict[str, str] = {}

    def take(step: Step) -> None:
        for stream, event in step.events:
            if isinstance(event, Failed):
                failed[stream] = event
            elif isinstance(event, Finished):
                ends[stream] = event.reason

    while engine.has_work:
        engine.step(take)
        engine.check_integrity()
    assert list(failed) == ["sick"]
    assert "LookupError" in failed["sick"].message
    assert ends == {"healthy": "length"}


def test_engine_pauses_between_drafts_and_verdict_when_a_demonstration_asks_for_it(
    tiny: Path, near: Path
) -> None:
    slow = engine_on(tiny, draft_model=str(near), verify_delay_ms=30.0)
    slow.add(request("s", PROMPT, drafter="model", max_tokens=8))
    told: list[tuple[float, object]] = []
    while slow.has_work:
        slow.step(lambda step: told.extend((time.perf_counter(), e) for _, e in step.events))
    pauses = [
        verdict - drafted
        for (drafted, draft), (verdict, _) in zip(told, told[1:], strict=False)
        if isinstance(draft, Drafted)
    ]
    assert pauses
    assert min(pauses) >= 0.03
