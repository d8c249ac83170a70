"""The pages for people, from a real server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.transports.pages import FOLDER

if TYPE_CHECKING:
    from tests.server.gateways import Served

MOST_BYTES = 120_000
"""Of the playground with all that it loads."""
ELSEWHERE = re.compile(rb"""(?:src|href|url\(|import\s*\(?)\s*=?\s*["']?(?:https?:)?//""")


async def test_playground_is_served_whole_and_small(served: Served) -> None:
    index = await served.http.get("/")
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    size = len(index.content)
    names = re.findall(r'(?:src|href)="/([^"]+)"', index.text)
    assert {name.rpartition(".")[2] for name in names} >= {"css", "js"}
    for name in names:
        answer = await served.http.get(f"/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["x-content-type-options"] == "nosniff"
        size += len(answer.content)
    assert size < MOST_BYTES


async def test_playground_forbids_scripts_and_styles_within_the_page(served: Served) -> None:
    index = await served.http.get("/")
    policy = dict(
        directive.split(" ", 1)
        for directive in index.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=", index.text)


def test_pages_load_nothing_from_elsewhere() -> None:
    pages = list(FOLDER.iterdir())
    assert pages
    assert [path.name for path in pages if ELSEWHERE.search(path.read_bytes())] == []
