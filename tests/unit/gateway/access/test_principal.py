from __future__ import annotations

import pytest

from gateway.access.accounts import Account, AddressAccount, Allowance
from gateway.access.keys import Scope
from gateway.access.principal import Holder, Principal
from gateway.access.tickets import Ticket
from gateway.config import BUILT_IN_PROFILES, LimitsConfig
from protocol.errors import RequestError
from protocol.events import OffsetUnit
from protocol.requests import Chunk, GenerationRequest, Hold, PolicySpec, StreamRetract
from tests.unit.gateway.doubles import FakeClock

EVERYTHING, UNBOUNDED = Scope(), Allowance()
CHAT = BUILT_IN_PROFILES["chat"]


def principal(
    scope: Scope = EVERYTHING, allowance: Allowance = UNBOUNDED, ticket: Ticket | None = None
) -> Principal:
    clock = FakeClock()
    holder = Holder("k", scope, Account("this key", allowance, clock.now))
    limits = LimitsConfig(requests_per_minute_per_address=2)
    return Principal(holder, AddressAccount(limits, clock.now), ticket)


def ticket(policy: PolicySpec, offsets: OffsetUnit | None = None) -> Ticket:
    return Ticket(owner="k", stream="s", policy=policy, offsets=offsets, expires_at=0)


@pytest.mark.parametrize(
    ("scope", "wanted", "given"),
    [
        (Scope(), None, CHAT),
        (Scope(), "retract", StreamRetract()),
        (Scope(), Hold(), Hold()),
        (Scope(profiles=["tts"]), None, BUILT_IN_PROFILES["tts"]),
        (Scope(profiles=["tts", "chat"]), None, CHAT),
        (Scope(profiles=["tts"]), "tts", BUILT_IN_PROFILES["tts"]),
        (Scope(profiles=["tts"]), "chat", None),
        (Scope(profiles=["tts"]), "hold", None),
        (Scope(profiles=["tts"]), Chunk(unit="sentence"), None),
        (Scope(profiles=["tts"]), '{"kind": "chunk"}', None),
        (Scope(policies=["hold"]), None, Hold()),
        (Scope(policies=["hold"]), "hold", Hold()),
        (Scope(policies=["hold"]), '{"kind": "hold"}', Hold()),
        (Scope(policies=["hold"]), "api", None),
        (Scope(policies=["chunk"]), "chunk:line", Chunk(unit="line")),
        (Scope(policies=["chunk"]), StreamRetract(), None),
        (Scope(policies=["hold"], profiles=["tts"]), None, BUILT_IN_PROFILES["tts"]),
        (Scope(policies=[], profiles=[]), None, None),
    ],
)
def test_key_reads_with_the_policies_of_its_scope(
    scope: Scope, wanted: PolicySpec | str | None, given: PolicySpec | None
) -> None:
    if given is not None:
        assert principal(scope).policy(wanted, BUILT_IN_PROFILES, "chat") == given
        return
    with pytest.raises(RequestError) as refused:
        principal(scope).policy(wanted, BUILT_IN_PROFILES, "chat")
    assert (refused.value.code, refused.value.param) == ("forbidden", "policy")


def test_ticket_reads_with_its_own_policy_and_no_other() -> None:
    reader = principal(ticket=ticket(StreamRetract()))
    for wanted in (None, "retract", StreamRetract()):
        assert reader.policy(wanted, BUILT_IN_PROFILES, "chat") == StreamRetract()
    for wanted in ("hold", "chat", StreamRetract(max_tail=3)):
        with pytest.raises(RequestError, match="this ticket is for the policy .*retract"):
            reader.policy(wanted, BUILT_IN_PROFILES, "chat")


def test_ticket_counts_in_its_own_unit_where_it_names_one() -> None:
    principal(ticket=ticket(Hold())).require_offsets(OffsetUnit.UTF8)
    bound = principal(ticket=ticket(Hold(), OffsetUnit.UTF16))
    bound.require_offsets(OffsetUnit.UTF16)
    with pytest.raises(RequestError, match="offsets=utf-16 only"):
        bound.require_offsets(OffsetUnit.UTF8)
    principal().require_offsets(OffsetUnit.UTF8)


@pytest.mark.parametrize(
    ("highest", "asked", "given"),
    [
        (0, 0, 0),
        (0, -5, -5),
        (0, 1, None),
        (10, 10, 10),
        (10, 11, None),
        (-5, 0, -5),
        (-5, 1, None),
    ],
)
def test_key_gets_the_priority_it_asks_for_up_to_its_highest(
    highest: int, asked: int, given: int | None
) -> None:
    request = GenerationRequest(prompt="x", priority=asked)
    if given is not None:
        assert principal(Scope(priority=highest)).priority(request) == given
        return
    with pytest.raises(RequestError, match=f"at most {highest} here") as refused:
        principal(Scope(priority=highest)).priority(request)
    assert (refused.value.code, refused.value.param) == ("forbidden", "priority")


def test_key_uses_the_models_of_its_scope() -> None:
    assert principal().may_use("m")
    assert principal(Scope(models=["m"])).may_use("m")
    assert not principal(Scope(models=["m"])).may_use("n")


def test_request_that_its_address_may_not_send_costs_its_key_nothing() -> None:
    party = principal(allowance=Allowance(requests_per_minute=3))
    for _ in range(2):
        party.count_request()
    for _ in range(5):
        with pytest.raises(RequestError, match="this address may send 2"):
            party.count_request()


def test_generation_claims_a_stream_and_its_tokens_of_key_and_address() -> None:
    party = principal(allowance=Allowance(streams=1, tokens_per_minute=100))
    claims = party.claims(GenerationRequest(prompt="x", max_tokens=70))
    assert len(claims) == 4
    for claim in claims:
        claim.take()
    with pytest.raises(RequestError, match="1 streams of this key"):
        claims[0].take()
    with pytest.raises(RequestError, match="100 tokens per minute"):
        claims[1].take()
