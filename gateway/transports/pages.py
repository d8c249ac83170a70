"""The files of `gateway/pages`, built from `clients/js`: a page needs no build of its own."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

FOLDER = Path(__file__).parents[1] / "pages"
INDEX = "index.html"
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
HEADERS = {
    # A new version of the gateway shows at once; unchanged files cost a 304.
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Everything comes from this origin, nothing is inline, nobody frames it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
}


class _File(NamedTuple):
    content: bytes
    media_type: str
    etag: str


def endpoint(name: str) -> Callable[[Request], Awaitable[Response]]:
    """Serves the file `name` of the folder."""

    async def serve(request: Request) -> Response:
        file = _read(name)
        headers = {**HEADERS, "ETag": file.etag}
        if _has_it(request, file.etag):
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers={**headers, "Content-Type": file.media_type})

    return serve


def routes() -> list[Route]:
    """Each file under its own name: `/wetink.js`; the index at `/`."""
    names = sorted(path.name for path in FOLDER.iterdir() if path.suffix in CONTENT_TYPES)
    return [Route("/" if name == INDEX else f"/{name}", endpoint(name)) for name in names]


@cache
def _read(name: str) -> _File:
    content = (FOLDER / name).read_bytes()
    etag = f'"{sha256(content).hexdigest()[:32]}"'
    return _File(content, CONTENT_TYPES[Path(name).suffix], etag)


def _has_it(request: Request, etag: str) -> bool:
    """RFC 9110, section 13.1.2: weak comparison, any of a list."""
    given = request.headers.get("If-None-Match", "")
    return given.strip() == "*" or etag in (
        tag.strip().removeprefix("W/") for tag in given.split(",")
    )
