from __future__ import annotations

import logging
import sys

import msgspec
import pytest

from gateway import request_ids
from gateway.config import LogConfig
from gateway.telemetry.logs import HumanFormatter, JsonFormatter, fingerprint


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("wetink.x", logging.WARNING, "x.py", 1, message, None, None)
    made.created = 1_700_000_000.25
    made.fields = fields
    return made


def test_people_read_one_line_with_quotes_where_they_are_needed() -> None:
    line = HumanFormatter(LogConfig()).format(record("two\nlines", n=3, s=0.5, text='a "b"', e=""))
    assert line == (
        '2023-11-14T22:13:20.250Z WARNING wetink.x: two\\nlines n=3 s=0.5 text="a \\"b\\"" e=""'
    )


def test_programs_read_an_object_per_line() -> None:
    line = JsonFormatter(LogConfig()).format(record("two\nlines", n=3))
    assert "\n" not in line
    assert msgspec.json.decode(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "wetink.x",
        "message": "two\nlines",
        "n": 3,
    }


@pytest.mark.parametrize(("ids", "shown"), [(False, fingerprint("secret")), (True, "secret")])
def test_log_names_a_stream_in_full_only_where_that_is_wanted(ids: bool, shown: str) -> None:
    line = JsonFormatter(LogConfig(ids=ids)).format(record("x", stream="secret"))
    assert msgspec.json.decode(line)["stream"] == shown


async def test_log_names_the_request_that_a_line_is_about_or_else_the_present_one() -> None:
    request_ids.begin({request_ids.HEADER: "present"})
    shown = [
        msgspec.json.decode(JsonFormatter(LogConfig()).format(line))["request"]
        for line in (record("x"), record("x", request="starter"), record("x", request=None))
    ]
    assert shown == ["present", "starter", "present"]


def test_log_keeps_tracebacks() -> None:
    made = record("broken")
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        made.exc_info = sys.exc_info()
    assert "by zero" in msgspec.json.decode(JsonFormatter(LogConfig()).format(made))["traceback"]
    assert HumanFormatter(LogConfig()).format(made).endswith("ZeroDivisionError: by zero")
