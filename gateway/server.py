"""uvicorn around the application: how it listens, and how it ends without cutting anyone off."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import math
import signal
import socket
import ssl
import threading
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias, cast

import uvicorn

from gateway.access import read_keys, require_guard
from gateway.app import create_app
from gateway.connections import Bounds, protocols
from gateway.errors import ConfigError
from gateway.telemetry.requests import Requests

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from types import FrameType

    from starlette.applications import Starlette

    from gateway.backends.base import Backend
    from gateway.clock import Clock
    from gateway.config import GatewayConfig, ServerConfig
    from gateway.service import Gateway

logger = logging.getLogger("wetink.server")

WS_PING_S = 20.0
"""A WebSocket peer that answers no ping for so long is gone."""
BACKLOG = 1024
Reread: TypeAlias = "Callable[[], GatewayConfig]"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """Tells the gateway before it waits for connections, so that there is an end to wait for."""

    def __init__(
        self,
        app: Starlette,
        config: uvicorn.Config,
        settings: ServerConfig,
        bounds: Bounds,
        *,
        signals: bool,
        reread: Reread | None,
    ) -> None:
        """`reread`: gives the configuration as it is now, or raises ConfigError."""
        super().__init__(config)
        self._app = app
        self._settings = settings
        self._bounds = bounds
        self._reread = reread
        self._signals = signals
        self._listening = asyncio.Event()
        self._drains = False
        self._hurry = asyncio.Event()
        """Whoever asked for the end does not want to wait for streams to finish."""

    @property
    def gateway(self) -> Gateway:
        """Once the server has started."""
        return cast("Gateway", self._app.state.gateway)

    async def listening(self) -> None:
        """Returns when connections are accepted."""
        await self._listening.wait()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """uvicorn would raise the signal again at the end: no stop would look like a success."""
        if not self._signals or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in STOP_SIGNALS}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._handle_reload)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM lets streams finish; a second one, and Ctrl-C, do not."""
        if self.should_exit or sig == signal.SIGINT:
            # From within a signal handler nothing else wakes a loop that waits.
            asyncio.get_running_loop().call_soon_threadsafe(self._hurry.set)
        self._drains = True
        self.should_exit = True

    def reload(self) -> None:
        """Keys, limits, delivery and profiles as they are configured now; where they cannot be
        used, the old ones stay and the log says why.
        """
        if self._reread is None:
            return
        try:
            config = self._reread()
            self.gateway.reload(config)
        except ConfigError as error:
            logger.error("reload refused, nothing has changed: %s", error)
            return
        self._bounds.limits = config.limits
        self.config.ws_max_size = config.limits.body_bytes
        self.config.timeout_keep_alive = config.limits.idle_s
        logger.info("reloaded keys, limits, delivery and profiles; other settings need a restart")

    def _handle_reload(self, _sig: int, _frame: FrameType | None) -> None:
        asyncio.get_running_loop().call_soon_threadsafe(self._reload_when_up)

    def _reload_when_up(self) -> None:
        if self._listening.is_set():
            self.reload()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._bounds.addresses = self.gateway.access.addresses
        self._listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._drains:
            await self._drain()
        await self.gateway.end_streams(self._settings.shutdown_s)
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        """Connections are still accepted: a probe has to see `/readyz` turn, readers may resume."""
        drained = asyncio.create_task(self.gateway.drain())
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait(
            [drained, hurry],
            timeout=self._settings.drain_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        drained.cancel()
        hurry.cancel()
        await asyncio.wait([drained, hurry])


def make_server(
    config: GatewayConfig,
    backend: Backend,
    make_clock: Callable[[], Clock] | None = None,
    *,
    signals: bool = True,
    reread: Reread | None = None,
) -> Server:
    """`signals`: whether SIGINT and SIGTERM end the server, and SIGHUP makes it take over what
    `reread` gives.
    """
    settings = config.server
    bounds = Bounds(config.limits)
    http, websocket = protocols(bounds)
    app = create_app(config, backend, make_clock)
    uvicorn_config = uvicorn.Config(
        Requests(app, config.log, app.state.metrics.http),
        http=http,
        ws=websocket,
        ws_max_size=config.limits.body_bytes,
        ws_ping_interval=WS_PING_S,
        ws_ping_timeout=WS_PING_S,
        ws_per_message_deflate=False,  # a compressor would hold tokens back
        lifespan="on",
        backlog=BACKLOG,
        access_log=False,  # ours knows routes and request ids (gateway/telemetry/requests.py)
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=config.limits.idle_s,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_s),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    return Server(app, uvicorn_config, settings, bounds, signals=signals, reread=reread)


def bind(config: GatewayConfig) -> socket.socket:
    """A listening socket. Raises ConfigError when the address, or the certificate for it, is not
    available, or would let in anybody, or nobody, without the operator's having said so.
    """
    require_guard(config, read_keys(config.access))
    _check_certificate(config.server)
    if config.telemetry.traces and importlib.util.find_spec("opentelemetry") is None:
        raise ConfigError(
            "telemetry.traces needs a package that is not installed: "
            "pip install 'wetink-gateway[otel]'"
        )
    host, port = config.server.host, config.server.port
    listener: socket.socket | None = None
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ConfigError(
            f"server.host, server.port: cannot listen on {host}:{port}: {error.strerror}"
        ) from error
    return listener


def _check_certificate(settings: ServerConfig) -> None:
    """Now and not when the model has been loaded. Raises ConfigError."""
    if settings.tls_certificate is None:
        return
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except OSError as error:  # an SSLError is one
        raise ConfigError(
            f"server.tls_certificate, server.tls_key: {settings.tls_certificate} and "
            f"{settings.tls_key} cannot be used: {error.strerror or error}"
        ) from error


def url_of(listener: socket.socket, config: GatewayConfig) -> str:
    scheme = "http" if config.server.tls_certificate is None else "https"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def serve(
    config: GatewayConfig,
    backend: Backend,
    on_ready: Callable[[str], None] | None = None,
    reread: Reread | None = None,
) -> None:
    """Serves until a signal comes. `on_ready` is called with the URL once requests can be served;
    `reread` on SIGHUP, to take over keys, limits and profiles of what it gives.

    Raises ConfigError when it cannot listen there, BackendError when the backend cannot start.
    """
    listener = bind(config)
    server = make_server(config, backend, reread=reread)
    watcher = asyncio.create_task(_watch_start(server, url_of(listener, config), on_ready))
    try:
        await server.serve(sockets=[listener])
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher
    if server.gateway.start_failure is not None:
        raise server.gateway.start_failure


async def _watch_start(server: Server, url: str, on_ready: Callable[[str], None] | None) -> None:
    await server.listening()
    await server.gateway.started()
    if server.gateway.start_failure is not None:
        server.should_exit = True
    elif on_ready is not None and not server.should_exit:  # else the start was given up
        on_ready(url)


@asynccontextmanager
async def running_server(
    config: GatewayConfig, backend: Backend, make_clock: Callable[[], Clock] | None = None
) -> AsyncGenerator[str]:
    """A server on the running loop, for as long as the context lasts; gives its URL.

    The backend may still be starting.
    """
    listener = bind(config)
    server = make_server(config, backend, make_clock, signals=False)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        listening = asyncio.ensure_future(server.listening())
        await asyncio.wait([listening, running], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            listening.cancel()
            await running
        yield url_of(listener, config)
    finally:
        server.should_exit = True
        await running
