from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.tickets import Ticket, Tickets
from protocol.errors import RequestError
from protocol.events import OffsetUnit
from protocol.requests import Chunk, PolicySpec

SECRET = bytes(range(32))


class Wall:
    now = 1000.5

    def __call__(self) -> float:
        return self.now


def ticket(expires_at: int = 1061, policy: PolicySpec | None = None) -> Ticket:
    unit = OffsetUnit.UTF16
    return Ticket(owner="k", stream="s", policy=policy, offsets=unit, expires_at=expires_at)


def test_ticket_reads_back_until_it_expires() -> None:
    wall = Wall()
    tickets = Tickets(SECRET, wall)
    assert tickets.expiry(60.0) == 1061
    granted = ticket(policy=Chunk(unit="line", tail=True))
    text = tickets.sign(granted)
    assert tickets.read(text) == granted
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
    wall.now = 1060.9
    assert tickets.read(text) == granted
    wall.now = 1061.0
    with pytest.raises(RequestError, match="has expired"):
        tickets.read(text)


@given(st.data())
def test_ticket_that_was_changed_anywhere_is_none(data: st.DataObject) -> None:
    tickets = Tickets(SECRET, Wall())
    text = tickets.sign(ticket())
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda each: each != text[place]))
    with pytest.raises(RequestError, match="not a ticket of this gateway"):
        tickets.read(text[:place] + other + text[place + 1 :])


@given(st.text(max_size=100))
def test_text_that_is_no_ticket_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        Tickets(SECRET, Wall()).read(text)


def test_ticket_of_another_gateway_is_none() -> None:
    text = Tickets(SECRET[::-1], Wall()).sign(ticket())
    with pytest.raises(RequestError, match="not a ticket of this gateway"):
        Tickets(SECRET, Wall()).read(text)
    mine = Tickets(SECRET, Wall())
    for broken in (mine.sign(ticket()) + "a" * 10_000, "\ud800.\ud800", "é.é"):
        with pytest.raises(RequestError, match="not a ticket of this gateway"):
            mine.read(broken)


def test_ticket_of_another_version_is_told_apart_from_a_forged_one() -> None:
    import hmac

    granted = base64.urlsafe_b64encode(msgspec.msgpack.encode(["v2"])).rstrip(b"=")
    signature = base64.urlsafe_b64encode(hmac.digest(SECRET, granted, "sha256")).rstrip(b"=")
    with pytest.raises(RequestError, match="another version"):
        Tickets(SECRET, Wall()).read(f"{granted.decode()}.{signature.decode()}")
