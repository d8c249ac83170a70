"""`wetink upstreams`: how the upstreams of a running gateway are."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

import httpx
import msgspec

from gateway.backends.base import UpstreamState
from gateway.config import KEY_VARIABLE
from protocol.codec import MALFORMED

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 10.0
EXIT_OK, EXIT_FAILED = 0, 1


class _Answer(msgspec.Struct):
    upstreams: list[UpstreamState]


def run(argv: Sequence[str]) -> int:
    """Prints a paragraph for each upstream; the exit status is 1 where none can be learnt of."""
    parser = argparse.ArgumentParser(
        prog="wetink upstreams", description="Show how the upstreams of a running gateway are."
    )
    parser.add_argument("--url", default=DEFAULT_URL, help=f"of the gateway ({DEFAULT_URL})")
    parser.add_argument("--key", help=f"if it needs one (default: the variable {KEY_VARIABLE})")
    options = parser.parse_args(argv)
    key = options.key or os.environ.get(KEY_VARIABLE)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        answer = httpx.get(f"{options.url}/v1/upstreams", headers=headers, timeout=TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _complain(f"no gateway answers at {options.url} ({error})")
    if answer.status_code != 200:
        return _complain(f"{options.url} answers with {answer.status_code}: {answer.text[:300]}")
    try:
        upstreams = msgspec.json.decode(answer.content, type=_Answer).upstreams
    except MALFORMED as error:
        return _complain(f"{options.url} is no gateway that knows upstreams: {error}")
    for upstream in upstreams:
        sys.stdout.write(shown(upstream))
    if not upstreams:
        sys.stdout.write("It has no upstreams.\n")
    return EXIT_OK


def shown(upstream: UpstreamState) -> str:
    models = ", ".join(upstream.models) or "models not known yet"
    order = f"priority {upstream.priority}, weight {upstream.weight:g}"
    lines = [f"{upstream.name} ({upstream.dialect}), {order}: {models}"]
    for server in upstream.servers:
        again = f", tried again in {server.tried_in_s:g} s" if server.tried_in_s else ""
        failed = sum(server.failures.values())
        lines.append(
            f"  {server.condition:<8} {server.url}: {server.outstanding} under way, "
            f"{server.requests} asked, {failed} failed{again}"
        )
        if server.last_failure is not None:
            lines.append(f"           last: {server.last_failure}")
    if upstream.continued:
        how = ", ".join(f"{name} {count}" for name, count in sorted(upstream.continued.items()))
        lines.append(f"  streams that lost their server: {how}")
    return "\n".join(lines) + "\n"


def _complain(message: str) -> int:
    sys.stderr.write(f"wetink: {message}\n")
    return EXIT_FAILED
