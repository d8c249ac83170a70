"""The pages for people, as they were built from clients/js: nothing comes from another host."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

PAGES = Path(__file__).parents[1] / "pages"
INDEX = "index.html"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy: a model's words can be markup, and must never become it."""


class Page:
    """One file, held in memory; a browser asks each time whether it is still the same."""

    def __init__(self, path: Path) -> None:
        self._body = path.read_bytes()
        etag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
        self._headers = {
            "Content-Type": TYPES[path.suffix],
            "ETag": etag,
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
        }
        if path.suffix == ".html":
            self._headers["Content-Security-Policy"] = POLICY
            self._headers["Referrer-Policy"] = "no-referrer"

    async def answer(self, request: Request) -> ASGIApp:
        known = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
        if self._headers["ETag"] in known or known == ["*"]:
            return Response(status_code=304, headers=self._headers)
        return Response(self._body, headers=self._headers)


def routes() -> list[Route]:
    """Each file under its name, the index at `/`."""
    files = sorted(path for path in PAGES.iterdir() if path.suffix in TYPES)
    return [
        Route("/" if path.name == INDEX else f"/{path.name}", Page(path).answer) for path in files
    ]
