"""The section `[[upstreams]]`: OpenAI-compatible servers whose text is passed on."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from gateway.errors import ConfigError
from protocol.refusals import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

_Seconds: TypeAlias = Annotated[float, Meta(gt=0.0)]
_Positive: TypeAlias = Annotated[int, Meta(ge=1)]

DialectName: TypeAlias = Literal["compatible", "openai", "vllm", "sglang", "llama.cpp", "wetink"]
Continuation: TypeAlias = Literal["prefix", "repeat"]

_ENDPOINT = re.compile(r"tcp://[^\s:/]+:[0-9]{1,5}|tcp://\[[0-9a-fA-F:.%]+\]:[0-9]{1,5}|ipc://\S+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


class UpstreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An OpenAI-compatible server whose text is passed on: vLLM, SGLang, llama.cpp, a hosted API,
    another Wetink. One table `[[upstreams]]` for each; several may serve the same model.
    """

    name: str | None = None
    """What it is called in `wetink upstreams`, metrics and logs. None: host and port of its URL."""
    url: str | None = None
    """Where its API is ("http://gpu1:8000/v1"); `/v1` is added to an address alone."""
    urls: list[str] = []
    """Instead of `url`: those of several servers with the same models. Each request goes to the one
    with the fewest under way."""
    models: list[str] | dict[str, str] | None = None
    """What it is asked for: names, or a table of names here and names there (`{"chat" =
    "llama-3.3-70b"}`). None: all that its `/v1/models` lists."""
    key_variable: str | None = None
    """Environment variable with its API key."""
    key_file: str | None = None
    """File with its API key, instead of a variable."""
    dialect: DialectName | None = None
    """What it understands beyond OpenAI's API. None: told from its `/v1/models`; "compatible" where
    that tells nothing."""
    drafts: list[str] = []
    """Where vLLM's engines publish what they draft (`["tcp://127.0.0.1:5757"]`), each at an address
    of its own. Needs `integrations/vllm` there and `pip install 'wetink-gateway[vllm]'` here."""
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    """Of the upstreams that serve a model, those with the highest priority are asked; lower ones
    where these are down, overloaded, or fail before their first text."""
    weight: Annotated[float, Meta(gt=0.0)] = 1.0
    """Share of the requests among upstreams of the same priority."""
    context_length: _Positive | None = None
    """In tokens, for models whose context `/v1/models` does not tell. None: 131,072."""
    max_outstanding: _Positive | None = None
    """Requests under way at once, on each server; more are turned away to other upstreams. None:
    any number."""
    takes_seed: bool = True
    """Whether it is sent a seed; some APIs refuse one."""
    continuation: tuple[Continuation, ...] = ("prefix", "repeat")
    """How a stream goes on whose server is lost in the middle of it; the first that can be.
    "prefix": another is asked to continue the text so far (raw prompts, and messages where the
    dialect has a way); "repeat": it is asked again with the same seed, and its text compared with
    what was told. Where nothing helps the stream ends with a retryable error."""
    max_continuations: Annotated[int, Meta(ge=0)] = 2
    """How often one stream may be continued."""
    retries: Annotated[int, Meta(ge=0)] = 2
    """How often a request is tried again that failed before its first text."""
    longest_retry_after_s: Annotated[float, Meta(ge=0.0)] = 5.0
    """Longest `Retry-After` that is waited for; with a longer one the client is told it."""
    connect_s: _Seconds = 5.0
    """How long a connection may take to come about."""
    first_byte_s: _Seconds = 300.0
    """How long a server may be silent before its first text: queue and prefill."""
    stall_s: _Seconds = 60.0
    """How long it may be silent after that."""
    failures_until_down: _Positive = 3
    """So many failures in a row, or one refused connection, and a server is left alone for a while;
    then a single request tries it."""
    rest_s: _Seconds = 1.0
    """How long it is left alone the first time; doubles up to `longest_rest_s`."""
    longest_rest_s: _Seconds = 60.0
    """Its longest rest between two tries."""

    @property
    def addresses(self) -> list[str]:
        """URLs in one form, without a slash at their end."""
        return [_normal(url) for url in ([self.url] if self.url is not None else self.urls)]

    @property
    def title(self) -> str:
        """What it is called."""
        return self.name or urlsplit(self.addresses[0]).netloc


def check_upstreams(upstreams: Sequence[UpstreamConfig]) -> None:
    """Raises ConfigError naming the field, as `upstreams[0].url`."""
    for number, upstream in enumerate(upstreams):
        _check(f"upstreams[{number}]", upstream)
    names = Counter(upstream.title for upstream in upstreams)
    for number, upstream in enumerate(upstreams):
        if names[upstream.title] > 1:
            raise ConfigError(
                f"upstreams[{number}].name: {quoted(upstream.title)} is the name of another; each "
                "needs a name of its own"
            )


def _check(here: str, upstream: UpstreamConfig) -> None:
    if (upstream.url is None) == (not upstream.urls):
        raise ConfigError(f"{here}.url: give url or urls, one of them")
    field = "url" if upstream.url is not None else "urls"
    for url in [upstream.url] if upstream.url is not None else upstream.urls:
        _check_url(f"{here}.{field}", url)
    if upstream.name is not None and not _NAME.fullmatch(upstream.name):
        raise ConfigError(
            f"{here}.name: {quoted(upstream.name)} cannot be a name; letters, digits and ._:- can, "
            "at most 64"
        )
    if upstream.key_variable is not None and upstream.key_file is not None:
        raise ConfigError(f"{here}.key_variable: give it or key_file, not both")
    for endpoint in upstream.drafts:
        if not _ENDPOINT.fullmatch(endpoint):
            raise ConfigError(
                f'{here}.drafts: {quoted(endpoint)} is no address, such as "tcp://127.0.0.1:5757" '
                'or "ipc:///run/vllm-drafts"'
            )
    if upstream.models is not None and not upstream.models:
        raise ConfigError(f"{here}.models: name at least one, or leave it out for all there are")


def _check_url(where: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigError(f'{where}: it is no URL, such as "http://127.0.0.1:8080/v1"') from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{where}: no key belongs into it; use key_variable or key_file")
    if not fits or parts.query or parts.fragment:
        raise ConfigError(
            f"{where}: {quoted(url)} is not http:// or https:// with a host and a path, such as "
            '"http://127.0.0.1:8080/v1"'
        )


def _normal(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") or "/v1", "", ""))
