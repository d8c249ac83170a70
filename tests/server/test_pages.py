"""What the gateway serves to browsers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.gateways import Served

LIBRARY = Path(__file__).parents[2] / "gateway" / "pages" / "wetink.js"


async def test_gateway_serves_the_library_as_a_module(served: Served) -> None:
    answer = await served.http.get("/wetink.js")
    assert answer.status_code == 200
    assert answer.content == LIBRARY.read_bytes()
    # Browsers refuse a module of another type.
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_gateway_answers_304_to_a_browser_that_has_the_file(
    served: Served, form: str
) -> None:
    etag = (await served.http.get("/wetink.js")).headers["ETag"]
    answer = await served.http.get("/wetink.js", headers={"If-None-Match": form.format(etag)})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["ETag"] == etag


async def test_gateway_serves_the_file_again_to_a_browser_with_an_older_one(
    served: Served,
) -> None:
    answer = await served.http.get("/wetink.js", headers={"If-None-Match": '"0"'})
    assert answer.status_code == 200


async def test_gateway_serves_nothing_beside_the_folder(served: Served) -> None:
    for path in ("/..%2fapp.py", "/pages/wetink.js"):
        assert (await served.http.get(path)).status_code == 404
