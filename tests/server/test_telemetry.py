"""What an operator sees of a running gateway."""

from __future__ import annotations

import asyncio
import io
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from gateway.backends.base import Drafted, EngineLoad, Finished, Load, Verified
from gateway.config import LogConfig
from gateway.telemetry import logs
from tests.server.gateways import Served, hand_served, serving
from tests.unit.gateway.doubles import COUNTS, HandBackend

if TYPE_CHECKING:
    from collections.abc import Generator

CANARY, ANSWER = "a canary in the prompt", "a parrot in the answer"


class Log:
    """Lines of a JSON log, as a program would read them."""

    def __init__(self, output: io.StringIO) -> None:
        self._output = output

    @property
    def text(self) -> str:
        return self._output.getvalue()

    def lines(self, logger: str) -> list[dict[str, Any]]:
        found = [msgspec.json.decode(line) for line in self.text.splitlines()]
        return [line for line in found if line["logger"] == logger]


@pytest.fixture
def log() -> Generator[Log]:
    with logged(LogConfig(format="json", level="debug")) as written:
        yield written


@contextmanager
def logged(config: LogConfig) -> Generator[Log]:
    """The process's log, for as long as the context lasts."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {name: logging.getLogger(name).level for name in (None, *logs.OURS)}
    output = io.StringIO()
    logs.configure(config, output)
    try:
        yield Log(output)
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


async def scrape(served: Served) -> dict[tuple[str, ...], float]:
    """Samples by name and values of labels."""
    answer = await served.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def told_a_story(served: Served) -> str:
    """One answer with one retraction, read to its end."""
    stream = await served.start(prompt=CANARY)
    async with served.read(stream, policy="retract") as reader:
        await reader.next()
        served.clock.advance(0.04)
        served.backend.say(Drafted("a parrot said"))
        await reader.next()
        served.clock.advance(0.3)
        served.backend.say(Verified("a parrot", cause="draft_rejected"))
        await reader.next()
        served.clock.advance(2.0)
        served.backend.say(Verified(" in the answer"), Finished("stop"))
        await reader.to_end()
    return stream


async def test_operator_reads_times_and_erasure_of_an_answer(served: Served) -> None:
    await told_a_story(served)
    found = await scrape(served)
    visible = "wetink_time_to_first_visible_seconds"
    assert found[f"{visible}_bucket", "0.025", "retract"] == 0
    assert found[f"{visible}_bucket", "0.05", "retract"] == 1
    committed = "wetink_time_to_first_committed_seconds"
    assert found[f"{committed}_sum", "retract"] == pytest.approx(0.34)
    assert found["wetink_commit_gap_seconds_sum", "retract"] == pytest.approx(2.0)
    assert found["wetink_commit_gap_seconds_count", "retract"] == 1
    assert found["wetink_retractions_total", "draft_rejected", "retract"] == 1
    assert found["wetink_retractions_total", "engine_restart", "retract"] == 0
    assert found["wetink_erased_units_total", "retract"] == len(" said")
    assert found["wetink_committed_units_total", "retract"] == len(ANSWER)
    assert found["wetink_streams_ended_total", "stop"] == 1
    assert found["wetink_time_to_first_visible_seconds_count", "hold"] == 0


async def test_operator_sees_how_long_a_policy_withholds_text(served: Served) -> None:
    stream = await served.start()
    async with served.read(stream, policy="chunk:sentence") as reader:
        await reader.next()
        served.backend.say(Verified("One sentence"))
        assert (await served.all_owed_to(reader))[0].event.__class__.__name__ == "Heartbeat"
        served.clock.advance(5.0)
        served.backend.say(Verified(" ends. Another"))
        await reader.next()
        found = await scrape(served)
    # The heartbeat took 15 s of it.
    assert found["wetink_commit_lag_seconds_sum", "chunk"] == pytest.approx(20.0)


async def test_operator_sees_that_changes_were_merged(served: Served) -> None:
    stream = await served.start()
    async with served.read(stream, policy="hold") as reader:
        await reader.next()
        served.backend.say(Verified("a"), Verified("b"), Verified("c"))
        await reader.next()
        found = await scrape(served)
        assert found["wetink_attachments",] == 1
        assert found["wetink_changes_total", "hold"] == 3
        assert found["wetink_deliveries_total", "hold"] == 2  # `open` was the first


async def test_first_texts_of_later_readers_are_not_counted_as_waits(served: Served) -> None:
    stream = await told_a_story(served)
    served.clock.advance(60.0)
    async with served.read(stream, policy="retract") as reader:
        await reader.to_end()
    found = await scrape(served)
    assert found["wetink_time_to_first_visible_seconds_count", "retract"] == 1


async def test_operator_sees_engine_and_queue(served: Served) -> None:
    engine = EngineLoad(
        kv_blocks=100,
        kv_blocks_used=25,
        steps=7,
        preemptions=2,
        sentinel_checks=9,
        sentinel_mismatches=1,
    )
    served.backend.load_now = Load(running=4, waiting=6, engine=engine, engine_restarts=3)
    stream = await served.start()
    served.backend.say(Finished("stop"), stream=stream)
    served.clock.advance(10.0)
    found = await scrape(served)
    assert found["wetink_queue_streams",] == 6
    assert found["wetink_queue_growth_streams_per_second",] == pytest.approx(0.6)
    assert found["wetink_estimated_wait_seconds",] == pytest.approx(60.0)
    assert found["wetink_kv_blocks_used",] == 25
    assert found["wetink_engine_restarts_total",] == 3
    assert found["wetink_sentinel_mismatches_total",] == 1
    assert found["wetink_engine_up",] == found["wetink_ready",] == 1


async def test_operator_sees_an_engine_that_is_away(served: Served) -> None:
    served.backend.go_down()
    found = await scrape(served)
    assert found["wetink_ready",] == found["wetink_engine_up",] == 0


async def test_operator_sees_requests_by_route_and_refusals_by_code(served: Served) -> None:
    assert (await served.http.post("/v1/streams", json={"prompt": "x " * 200})).status_code == 400
    assert (await served.http.get("/v1/streams/none/events")).status_code == 404
    assert (await served.http.get("/a/place/that/is/none")).status_code == 404
    found = await scrape(served)
    requests = "wetink_http_requests_total"
    assert found[requests, "/v1/streams", "400", "POST"] == 1
    assert found[requests, "/v1/streams/{stream}/events", "404", "GET"] == 1
    assert found[requests, "404", "GET", "none"] == 1
    assert found["wetink_streams_refused_total", "context_exceeded"] == 1


async def test_operator_may_switch_metrics_off() -> None:
    async with serving(HandBackend(), telemetry__metrics=False) as (_, http):
        assert (await http.get("/metrics")).status_code == 404


async def test_request_keeps_the_id_it_came_with(served: Served, log: Log) -> None:
    headers = {"X-Request-ID": "page-7.1"}
    answer = await served.http.get("/healthz", headers=headers)
    assert answer.headers["x-request-id"] == "page-7.1"
    assert log.lines("wetink.access")[-1]["request"] == "page-7.1"


@pytest.mark.parametrize("offered", ["", 'a" b', "x" * 129, "ü"])
async def test_request_is_given_an_id_where_its_own_is_none(served: Served, offered: str) -> None:
    headers = [(b"X-Request-ID", offered.encode())]
    first, second = [await served.http.get("/healthz", headers=headers) for _ in range(2)]
    drawn = first.headers["x-request-id"]
    assert len(drawn) == 16
    assert drawn != second.headers["x-request-id"]


async def test_stream_is_logged_once_when_it_is_over(served: Served, log: Log) -> None:
    stream = await told_a_story(served)
    await served.http.get("/healthz")  # the server has seen the end of the stream by then
    lines = [each for each in log.lines("wetink.access") if each["route"].endswith("/events")]
    [line] = lines
    assert (line["method"], line["route"]) == ("GET", "/v1/streams/{stream}/events")
    assert line["status"] == 200
    assert line["bytes"] > len(ANSWER)
    assert line["stream"] == logs.fingerprint(stream)
    assert "cut" not in line


async def test_reader_that_leaves_is_logged_as_cut(served: Served, log: Log) -> None:
    stream = await served.start()
    async with served.read(stream) as reader:
        await reader.next()
    while not (found := [x for x in log.lines("wetink.access") if "events" in x["route"]]):
        await served.http.get("/healthz")
    assert found[0]["cut"] is True


async def test_websocket_is_logged_with_its_id_and_length(served: Served, log: Log) -> None:
    url = served.url.replace("http", "ws") + "/v1/ws"
    async with connect(url, additional_headers={"X-Request-ID": "socket-1"}) as socket:
        assert socket.response is not None
        assert socket.response.headers["X-Request-ID"] == "socket-1"
        await socket.send("{}")
        refused = await socket.recv()
    while not (found := [x for x in log.lines("wetink.access") if x["route"] == "/v1/ws"]):
        await served.http.get("/healthz")
    [line] = found
    assert (line["status"], line["request"]) == (101, "socket-1")
    assert line["bytes"] == len(refused)


async def test_failure_of_the_gateway_carries_the_id_of_its_request(
    served: Served, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> list[object]:
        raise ZeroDivisionError

    monkeypatch.setattr(served.backend, "models", broken)
    answer = await served.http.get("/v1/models", headers={"X-Request-ID": "unlucky"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "unlucky")
    [line] = log.lines("uvicorn.error")
    assert line["request"] == "unlucky"
    assert "ZeroDivisionError" in line["traceback"]
    assert log.lines("wetink.access")[-1]["status"] == 500


async def test_line_about_a_stream_names_the_request_that_started_it(
    served: Served, log: Log
) -> None:
    headers = {"X-Request-ID": "starter"}
    answer = await served.http.post("/v1/streams", json={"prompt": CANARY}, headers=headers)
    served.backend.say(Drafted("a"), Drafted("b"))  # without a cause: the ledger refuses it
    [line] = log.lines("wetink.streams")
    assert line["request"] == "starter"
    assert line["stream"] == logs.fingerprint(answer.json()["stream"])


async def test_ids_prompts_and_answers_are_not_logged(served: Served, log: Log) -> None:
    stream = await told_a_story(served)
    async with served.read(stream, cursor="1.0.0") as reader:
        assert reader.response.status_code == 410
    await served.http.get(f"/v1/streams/{stream}/nothing")
    assert "wetink.access" in log.text
    for private in (stream, CANARY, ANSWER, "parrot"):
        assert private not in log.text


async def test_ids_prompts_and_answers_are_logged_where_that_is_wanted() -> None:
    with logged(LogConfig(format="json", ids=True, texts=True)) as log:
        async with hand_served(log__ids=True, log__texts=True) as served:
            stream = await told_a_story(served)
            await served.http.get("/healthz")
        asked, answered = log.lines("wetink.texts")
        assert (asked["text"], answered["text"]) == (CANARY, ANSWER)
        assert asked["stream"] == answered["stream"] == stream
        assert f"/v1/streams/{stream}/events" in [x["path"] for x in log.lines("wetink.access")]


async def test_access_log_can_be_switched_off(log: Log) -> None:
    async with hand_served(log__access=False) as served:
        await served.http.get("/healthz")
    assert log.lines("wetink.access") == []


async def test_operator_sees_turns_and_who_is_given_less() -> None:
    overload: dict[str, Any] = {
        "overload__shorter_drafts_from_s": 1.0,
        "overload__fallback_from_s": 1.0,
        "overload__fallback_model": "other",
    }
    async with hand_served(**overload) as served:
        served.backend.most = 1
        first = await served.start()
        served.clock.advance(4.0)
        assert await degraded(served) == (0, 0)
        served.backend.say(Finished("stop", COUNTS), stream=first)
        second = await served.start()
        starting = [asyncio.create_task(served.start()) for _ in range(2)]
        while (seen := await scrape(served))["wetink_turns_waiting",] < 2:
            pass
        assert seen["wetink_turns_taken",] == 1
        assert seen["wetink_queue_streams",] == 2
        assert seen["wetink_turns_expected_wait_seconds",] == pytest.approx(12.0)
        served.backend.say(Finished("stop", COUNTS), stream=second)
        done, waiting = await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
        assert await degraded(served) == (1, 1)
        served.backend.say(Finished("stop", COUNTS), stream=done.pop().result())
        await waiting.pop()


async def degraded(served: Served) -> tuple[float, float]:
    """How many streams have been given shorter drafts, and the fallback model."""
    seen = await scrape(served)
    name = "wetink_streams_degraded_total"
    return seen[name, "shorter_drafts"], seen[name, "fallback_model"]
