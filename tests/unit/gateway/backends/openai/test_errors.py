from __future__ import annotations

import json

import pytest

from gateway.backends.openai.errors import UpstreamError, refused, retry_after_s
from gateway.errors import BackendError
from protocol.errors import ErrorCode, RequestError

NOW = 1_700_000_000.0


def body(message: str, **more: object) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


@pytest.mark.parametrize(
    ("status", "answer", "kind", "code"),
    [
        (400, body("bad top_k", param="top_k"), RequestError, ErrorCode.INVALID_VALUE),
        (400, body("x", code="context_length_exceeded"), RequestError, ErrorCode.CONTEXT_EXCEEDED),
        (
            400,
            body("x", type="exceed_context_size_error"),
            RequestError,
            ErrorCode.CONTEXT_EXCEEDED,
        ),
        (
            400,
            body("This model's maximum context length is 8 tokens"),
            RequestError,
            ErrorCode.CONTEXT_EXCEEDED,
        ),
        (401, body("Incorrect key sk-123"), BackendError, ErrorCode.ENGINE_UNAVAILABLE),
        (404, b"<html>", BackendError, ErrorCode.ENGINE_FAILED),
        (429, body("slow down"), UpstreamError, ErrorCode.RATE_LIMITED),
        (500, b'"oops"', UpstreamError, ErrorCode.ENGINE_FAILED),
        (502, b"\xff", UpstreamError, ErrorCode.ENGINE_UNAVAILABLE),
        (503, b'{"detail": "full"}', UpstreamError, ErrorCode.OVERLOADED),
        (302, b"", UpstreamError, ErrorCode.ENGINE_UNAVAILABLE),
    ],
)
def test_refusals_of_upstreams_have_our_names(
    status: int, answer: bytes, kind: type[Exception], code: ErrorCode
) -> None:
    error = refused("big", status, answer, None, NOW)
    assert type(error) is kind
    assert error.code is code
    assert "big" in error.message


def test_refusal_of_the_gateways_key_never_says_it() -> None:
    error = refused("big", 401, body("Incorrect API key provided: sk-123"), None, NOW)
    assert "sk-123" not in error.message


def test_upstreams_words_are_cut() -> None:
    error = refused("big", 500, body("no " * 1000), None, NOW)
    assert len(error.message) < 400


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("0.5", 0.5),
        ("-2", 0.0),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds


def test_busy_upstreams_say_when_to_come_back() -> None:
    error = refused("big", 429, body("slow down"), "7", NOW)
    assert isinstance(error, UpstreamError)
    told = error.told()
    assert isinstance(told, RequestError) and told.retry_after_s == 7.0
