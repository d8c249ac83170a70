"""Whether somebody with a watch can tell which prompts another key has sent (prefix cache).

In each pair of prompts of one length a coin decides which one the victim sends; then the attacker
sends both, in an order of another coin's, and takes the time of each. If nothing of the victim's
can be seen, the coin is independent of the times, whatever they are and however busy the machine
is: how often the victim's prompt was answered faster is binomial with chance 1/2, exactly.
"""

from __future__ import annotations

import random
import time
from math import comb
from typing import TYPE_CHECKING

import pytest

from gateway.access import Allowance
from gateway.access import keys as stored
from gateway.access.keys import Scope
from gateway.backends.local import LocalBackend
from gateway.config import EngineConfig, SupervisionConfig
from tests.server.gateways import serving
from tests.server.keyed import bearer

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

PAIRS = 24
ALARM = 20
"""So many faster ones of `PAIRS` say that the cache can be seen."""
WORDS = 220
"""Long enough for its prefill to be what an answer of one token takes."""
VOCABULARY = ("lamp", "river", "stone", "winter", "letter", "garden", "paper", "window", "silver")
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]


def chance_of_alarm(faster: float) -> float:
    """That an alarm is raised, where the victim's prompt is the faster one with chance `faster`."""
    return sum(
        comb(PAIRS, wins) * faster**wins * (1 - faster) ** (PAIRS - wins)
        for wins in range(ALARM, PAIRS + 1)
    )


def test_watch_raises_few_false_alarms_and_misses_little() -> None:
    assert chance_of_alarm(0.5) < 0.001
    assert chance_of_alarm(0.95) > 0.98


def prompt(draw: random.Random) -> str:
    """Different from every other from its first words on."""
    return " ".join(draw.choices(VOCABULARY, k=WORDS))


async def seconds(http: httpx.AsyncClient, key: str, text: str) -> float:
    """How long an answer of one token takes."""
    body = {"prompt": text, "max_tokens": 1, "temperature": 0, "policy": "hold"}
    headers = {**bearer(key), "Accept": "text/event-stream"}
    began = time.perf_counter()
    answer = await http.post("/v1/streams", json=body, headers=headers, timeout=60)
    assert '"finish"' in answer.text, answer.text
    return time.perf_counter() - began


async def wins(http: httpx.AsyncClient, victim: str, attacker: str, draw: random.Random) -> int:
    """Of how many pairs the attacker got the victim's prompt answered faster."""
    count = 0
    for _ in range(PAIRS):
        sent, unsent = prompt(draw), prompt(draw)
        await seconds(http, victim, sent)
        probes = [sent, unsent]
        draw.shuffle(probes)
        took = {probe: await seconds(http, attacker, probe) for probe in probes}
        count += took[sent] < took[unsent]
    return count


async def test_somebody_with_a_watch_cannot_tell_what_another_key_has_sent(tmp_path: Path) -> None:
    alice, alices = stored.draw("alice", Scope(), Allowance(), now=0)
    bob, bobs = stored.draw("bob", Scope(), Allowance(), now=0)
    file = tmp_path / "keys.json"
    stored.write(file, [alices, bobs])
    backend = LocalBackend(EngineConfig(drafter="none"), SupervisionConfig())
    draw = random.Random(20241101)
    async with serving(backend, access__keys_file=str(file)) as (_, http):
        while (await http.get("/readyz")).status_code != 200:
            pass
        await seconds(http, bob, prompt(draw))
        # What an attacker sees of a cache without a salt is what a holder sees of its own.
        own = await wins(http, alice, alice, draw)
        assert own >= ALARM, f"the watch is too weak: {own} of {PAIRS}"
        others = await wins(http, alice, bob, draw)
        assert others < ALARM, f"the victim's prompt was faster in {others} of {PAIRS} pairs"
