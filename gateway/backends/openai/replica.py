"""One server of an upstream: what is asked of it, and how it is."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from gateway.backends.openai.errors import UpstreamError, refused
from gateway.backends.openai.health import Health
from gateway.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.backends.openai.requests import Asked
    from gateway.config.upstreams import UpstreamConfig
    from protocol.errors import RequestError

LONGEST_REFUSAL = 64 * 1024
"""Bytes of an answer that is no stream."""
REFUSAL_S = 10.0
"""How long such an answer may take to arrive."""
MODELS_S = 10.0
DRAIN_S = 1.0
"""How long the end of a body may stay out after the end of its answer."""
LONGEST_MODELS = 4 * 1024 * 1024
"""Bytes."""
RENEWED = 0.1
"""Part of the time a server may be silent for, by which that is extended at a time: not with every
piece of text."""


class Replica:
    def __init__(self, upstream: str, url: str, config: UpstreamConfig) -> None:
        self.url = url
        self.address = urlsplit(url).netloc
        self.health = Health(config)
        self.outstanding = 0
        self.requests = 0
        self.failures: Counter[str] = Counter()
        """By code."""
        # What it is called in messages.
        several = len(config.addresses) > 1
        self._upstream = f"{upstream} ({self.address})" if several else upstream
        self._config = config

    async def models(self, session: aiohttp.ClientSession) -> bytes:
        """The body of `/v1/models`. Raises UpstreamError, RequestError or BackendError."""
        try:
            async with (
                asyncio.timeout(MODELS_S),
                session.get(f"{self.url}/models", allow_redirects=False) as response,
            ):
                body = await _beginning(response, LONGEST_MODELS)
                if response.status != 200:
                    raise self.refusal(response, body)
                return body
        except (aiohttp.ClientError, OSError) as error:
            raise self.lost(error) from None

    async def open(self, session: aiohttp.ClientSession, asked: Asked) -> Exchange:
        """Asks, and returns when it begins to answer. Raises UpstreamError, RequestError or
        BackendError.
        """
        exchange = Exchange(self, self._config)
        try:
            await exchange.begin(session, asked)
        except BaseException:
            exchange.close()
            raise
        return exchange

    def failed(self, error: UpstreamError) -> None:
        self.failures[error.code.value] += 1
        self.health.fail(time.monotonic(), error)

    def refusal(
        self, response: aiohttp.ClientResponse, body: bytes
    ) -> UpstreamError | RequestError | BackendError:
        sent = response.request_info.headers.get("Authorization", "").removeprefix("Bearer ")
        if sent:  # some say again what they were sent
            body = body.replace(sent.encode(), b"[key]")
        after = response.headers.get("Retry-After")
        return refused(self._upstream, response.status, body, after, time.time())

    def lost(self, error: Exception) -> UpstreamError:
        """Connection trouble, in words without an address or a key in them."""
        match error:
            case aiohttp.ClientConnectorError():
                # Its own text names the address, which is none of a client's business.
                number = error.os_error.errno
                reason = "no connection" if number is None else os.strerror(number)
                refusal = isinstance(error.os_error, ConnectionRefusedError)
                return self.error(f"cannot be reached: {reason}", refused_connection=refusal)
            case aiohttp.ServerTimeoutError() | TimeoutError():
                return self.error("does not answer in time")
            case _:
                return self.error("broke the connection off")

    def error(self, what: str, *, refused_connection: bool = False) -> UpstreamError:
        return UpstreamError(
            f"upstream {self._upstream} {what}", refused_connection=refused_connection
        )


class Exchange:
    """One request under way at a replica. Its verdict on the replica's health is given once."""

    def __init__(self, replica: Replica, config: UpstreamConfig) -> None:
        self.replica = replica
        self._config = config
        self._response: aiohttp.ClientResponse | None = None
        self._is_probe = replica.health.begin()
        self._has_verdict = False
        self._is_open = True
        replica.outstanding += 1
        replica.requests += 1

    async def begin(self, session: aiohttp.ClientSession, asked: Asked) -> None:
        """Raises UpstreamError, RequestError or BackendError."""
        replica = self.replica
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if asked.name is not None:
            headers["X-Request-Id"] = asked.name
        try:
            async with asyncio.timeout(self._config.first_byte_s):
                self._response = response = await session.post(
                    replica.url + asked.path,
                    data=asked.encoded(),
                    headers=headers,
                    allow_redirects=False,
                )
            if response.status != 200:
                async with asyncio.timeout(REFUSAL_S):
                    body = await _beginning(response, LONGEST_REFUSAL)
                raise self._judged(replica.refusal(response, body))
            if response.content_type != "text/event-stream":
                raise self._judged(
                    replica.error(f"answers with {response.content_type[:60]}, not with a stream")
                )
        except (aiohttp.ClientError, OSError) as error:
            raise self._judged(replica.lost(error)) from None

    async def read(self, take: Callable[[bytes], bool]) -> None:
        """Hands over the bytes of its answer as they come, to their end or until `take` has enough.

        Raises UpstreamError where they break off, or nothing comes for too long.
        """
        assert self._response is not None
        content, stall_s = self._response.content, self._config.stall_s
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(self._config.first_byte_s) as limit:
                extended_at = float("-inf")
                while data := await content.readany():
                    self._answers()
                    if take(data):
                        return
                    if (heard := now()) - extended_at > stall_s * RENEWED:
                        limit.reschedule(heard + stall_s)
                        extended_at = heard
        except TimeoutError:
            raise self.replica.error("has fallen silent") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self.replica.lost(error) from None

    async def drain(self) -> None:
        """Behind a whole answer comes the end of its body, after which the connection can be used
        again.
        """
        assert self._response is not None
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(DRAIN_S):
                while await self._response.content.readany():
                    pass
            self._response.release()

    def _answers(self) -> None:
        if not self._has_verdict:
            self._has_verdict = True
            self.replica.health.answers()

    def succeed(self) -> None:
        """Its answer is whole, or a refusal that is not its fault."""
        self._has_verdict = True
        self.replica.health.succeed()

    def fail(self, error: UpstreamError) -> None:
        self._has_verdict = True
        self.replica.failed(error)

    def close(self) -> None:
        """Cuts the connection where the answer is not complete. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        self.replica.outstanding -= 1
        if self._is_probe and not self._has_verdict:
            self.replica.health.give_up_probe()
        if self._response is not None:
            self._response.close()

    def _judged(self, error: UpstreamError | RequestError | BackendError) -> Exception:
        """Who refuses a request is well."""
        if isinstance(error, UpstreamError):
            self.fail(error)
        else:
            self.succeed()
            # Of the two only this is something to be mended there.
            self.replica.failures[error.code.value] += isinstance(error, BackendError)
        return error


async def _beginning(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, as far as it is no longer than `most` bytes. A single read would bring no more than
    what has arrived by now.
    """
    body = bytearray()
    while len(body) < most and (data := await response.content.read(most - len(body))):
        body += data
    return bytes(body)
