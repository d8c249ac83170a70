"""What the gateway adds to the `wetink` command: serve, upstreams, pull, keys, config, doctor."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway import engine_packages
from gateway.errors import BackendError, ConfigError
from wetink.cli import Command, main

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.backends.base import Backend
    from gateway.backends.local import LocalBackend
    from gateway.backends.openai import OpenAIBackend
    from gateway.config import GatewayConfig
    from gateway.config.upstreams import UpstreamConfig

EMBEDDED_MODEL = "smollm2-135m-instruct"
DEFAULT_URL = "http://127.0.0.1:8000"
EXAMPLE_PROMPT = "Tell me a story about a lighthouse."
BAR_WIDTH = 30

OPTIONS = {
    "ahead.enabled": "--ahead",
    "backend.kind": "--backend",
    "backend.traces": "--trace",
    "demonstration.enabled": "--demo",
}
"""By setting: options of `wetink serve` that are not called as it is."""

EXIT_OK, EXIT_FAILED = 0, 1
__all__ = ["COMMANDS", "main"]


def _serve(argv: Sequence[str]) -> int:
    import uvloop

    from gateway.access import exposure, read_keys, require_guard
    from gateway.access.access import are_keys_needed
    from gateway.server import bind, serve
    from gateway.telemetry import logs

    options = _serve_parser().parse_args(argv)
    config = _load_config(options)
    keys = read_keys(config.access)
    require_guard(config, keys)
    logs.configure(config.log)
    if (said := exposure(config, keys)) is not None:
        logging.getLogger("wetink.access").warning("%s", said)
    try:
        # Found out before a model is fetched and loaded, not after.
        bind(config).close()
    except ConfigError as error:
        raise ConfigError(f"{error} (choose another with --port or --host)") from error
    backend = _backend(config)
    uvloop.run(
        serve(
            config,
            backend,
            lambda url: _announce(url, backend, needs_key=are_keys_needed(config, keys)),
            reread=lambda: _load_config(options),
        )
    )
    return EXIT_OK


def _load_config(options: argparse.Namespace) -> GatewayConfig:
    """Raises ConfigError, which calls a setting by its option if that is how it was given."""
    from gateway.config import GatewayConfig

    overrides = _overrides(options)
    try:
        return GatewayConfig.load(options.config, overrides)
    except ConfigError as error:
        if error.key not in overrides:
            raise
        usual = f"--{error.key.rpartition('.')[2].replace('_', '-')}"
        option = OPTIONS.get(error.key, usual)
        raise ConfigError(str(error).replace(error.key, option, 1)) from error


def _serve_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wetink serve",
        description="Start the gateway and, in a process of its own, its engine.",
    )
    add = parser.add_argument
    add("--host", help="address to listen on (default: 127.0.0.1)")
    add("--port", type=int, help="port to listen on; 0: any free one (default: 8000)")
    add("--config", type=Path, metavar="FILE", help="TOML file; options given here win over it")
    add("--keys-file", metavar="FILE", help="keys that let in (default: those of `wetink keys`)")
    add("--allow-anyone", action="store_true", default=None, help="serve requests without a key")
    add(
        "--backend", choices=["local", "scripted", "none"], help="source of tokens (default: local)"
    )
    to_serve = "serve the models of this OpenAI-compatible server instead of a local one"
    add("--upstream", metavar="URL", action="append", help=to_serve)
    add("--upstream-key-variable", metavar="NAME", help="environment variable with its API key")
    ahead = "let the local engine draft ahead of upstreams (default: where it is installed)"
    add("--ahead", action=argparse.BooleanOptionalAction, default=None, help=ahead)
    add("--trace", metavar="PATH", help="play this trace file, or folder of them; no model is used")
    demo = "the page may slow the engine down and kill it; loopback addresses only"
    add("--demo", action="store_const", const=True, help=demo)
    engine = parser.add_argument_group("engine (local backend)")
    add = engine.add_argument
    add("--model", help=f"Hugging Face folder, GGUF file or hub name (default: {EMBEDDED_MODEL})")
    add("--device", metavar="D", help="auto (a GPU where there is one), cpu, cuda or cuda:1")
    add("--dtype", choices=["bfloat16", "float16", "float32"])
    drafters = ["none", "ngram", "suffix", "head", "combined", "model"]
    add("--drafter", choices=drafters, help="for requests that choose none")
    add("--draft-model", metavar="MODEL", help="second checkpoint, with the model's own tokenizer")
    add("--draft-head", metavar="FOLDER", help="EAGLE-3 head trained for the model")
    add("--draft-length", type=int, metavar="N", help="most drafted tokens per step; 0: none")
    add("--threads", type=int, metavar="N", help="compute threads (default: one per core)")
    add("--context-length", type=int, metavar="N", help="longest prompt and answer, in tokens")
    add("--max-sequences", type=int, metavar="N", help="most streams generating at once")
    add("--kv-memory-mib", type=int, metavar="N", help="memory for the KV cache")
    add("--mode", choices=["exact", "fast"], help="exact: the same text in any batch, bit by bit")
    return parser


def _overrides(options: argparse.Namespace) -> dict[str, object]:
    """Settings given on the command line, as keys of the configuration."""
    from gateway.config import EngineConfig

    backend = options.backend or (None if options.trace is None else "scripted")
    given = {
        "server.host": options.host,
        "server.port": options.port,
        "access.keys_file": options.keys_file,
        "access.allow_anyone": options.allow_anyone,
        "backend.kind": backend,
        "backend.traces": options.trace,
        "ahead.enabled": options.ahead,
        "demonstration.enabled": options.demo,
    }
    if options.upstream is None and options.upstream_key_variable is not None:
        raise ConfigError("--upstream-key-variable: it goes with --upstream")
    if options.upstream is not None:
        key = {"key_variable": options.upstream_key_variable}
        given["upstreams"] = [{"url": url, **key} for url in options.upstream]
    given |= {
        f"engine.{name}": getattr(options, name, None) for name in EngineConfig.__struct_fields__
    }
    return {key: value for key, value in given.items() if value is not None}


def _backend(config: GatewayConfig) -> Backend:
    """The gateway's own source of tokens, and upstreams beside it."""
    own = _own_backend(config)
    if not config.upstreams:
        assert own is not None
        return own
    from gateway.backends.routes import Routes

    return _with_drafts(config, Routes([_upstream(each) for each in config.upstreams], own), own)


def _upstream(config: UpstreamConfig) -> OpenAIBackend:
    from gateway.backends.openai import OpenAIBackend

    if not config.drafts:
        return OpenAIBackend(config)
    if importlib.util.find_spec("zmq") is None:
        raise ConfigError("upstreams.drafts: needs pyzmq: pip install 'wetink-gateway[vllm]'")
    from gateway.backends.vllm import VllmBackend

    return VllmBackend(config)


def _with_drafts(config: GatewayConfig, upstreams: Backend, own: Backend | None) -> Backend:
    """A local engine drafts ahead of them, where there may be one."""
    from gateway.backends.ahead import AheadBackend
    from gateway.backends.local import LocalBackend

    if config.ahead.enabled is False:
        return upstreams
    if isinstance(own, LocalBackend):
        return AheadBackend(upstreams, own)
    try:
        drafter = _local_backend(config)
    except BackendError:
        if config.ahead.enabled:
            raise
        return upstreams
    return AheadBackend(upstreams, drafter, starts_drafter=True)


def _own_backend(config: GatewayConfig) -> Backend | None:
    if config.own_backend == "none":
        return None
    if config.own_backend == "scripted":
        from gateway.backends.scripted import ScriptedBackend

        return ScriptedBackend.from_config(config.backend)
    return _local_backend(config)


def _local_backend(config: GatewayConfig) -> LocalBackend:
    """Raises BackendError where it cannot run."""
    from gateway.backends.local import LocalBackend

    _require_engine()
    if config.engine.model in (None, EMBEDDED_MODEL):
        _pull_quietly()
    for_people = config.log.format == "human"
    on_progress = LoadingBar() if for_people else LoadingLog()
    return LocalBackend(config.started_engine, config.supervision, on_progress=on_progress)


def _announce(url: str, backend: Backend, *, needs_key: bool) -> None:
    """The address, and two lines to copy that stream from it."""
    from gateway.config import KEY_VARIABLE

    models = backend.models()
    names = ", ".join(model.id for model in models)
    drafters = "".join(
        f"Drafters: {', '.join(model.drafters)}; default: {model.default_drafter}\n"
        for model in models
        if model.default_drafter is not None
    )
    body = msgspec.json.encode({"messages": [{"role": "user", "content": EXAMPLE_PROMPT}]}).decode()
    # `wetink` may be on nobody's path (in a virtual environment, under make).
    command = "wetink" if shutil.which("wetink") else sys.argv[0]
    address = "" if url == DEFAULT_URL else f" --url {url}"
    hint = f"Requests need a key: export {KEY_VARIABLE}=…\n" if needs_key else ""
    key = f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if needs_key else ""
    sys.stdout.write(
        f"\nWetink serves {names} at {url}\n{drafters}{hint}\n"
        f"  curl -N {url}/v1/streams{key} -H 'Accept: text/event-stream' -d {shlex.quote(body)}\n"
        f"  {command} stream {shlex.quote(EXAMPLE_PROMPT)}{address}\n"
        f"  or open {url}/ in a browser\n\n"
        "Ctrl-C stops it.\n"
    )
    sys.stdout.flush()


class LoadingBar:
    """What the engine does before it is ready: a bar on a terminal, else one line per phase."""

    def __init__(self) -> None:
        self._phase = ""

    def __call__(self, phase: str, fraction: float | None) -> None:
        before, self._phase = self._phase, phase
        if not sys.stderr.isatty():
            if phase != before:
                _say(f"engine: {phase}")
            return
        text = f"engine: {phase}"
        if fraction is not None:
            full = round(fraction * BAR_WIDTH)
            text = f"engine: [{'#' * full:.<{BAR_WIDTH}}] {phase} {fraction:.0%}"
        start = "\n" if before and phase != before else "\r\x1b[K"
        sys.stderr.write(start + text)
        sys.stderr.flush()


class LoadingLog:
    """The same as lines of the log, one per phase."""

    def __init__(self) -> None:
        self._phase = ""

    def __call__(self, phase: str, _fraction: float | None) -> None:
        if phase != self._phase:
            self._phase = phase
            logging.getLogger("wetink.engine").info("%s", phase)


def _pull(argv: Sequence[str]) -> int:
    _require_engine()
    return subprocess.run(
        [sys.executable, "-m", "engine.loading.pull", *argv], check=False
    ).returncode


def _pull_quietly() -> None:
    """The embedded model, when it is not in the cache yet. Raises BackendError."""
    command = [sys.executable, "-m", "engine.loading.pull"]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        raise BackendError(f"the embedded model {EMBEDDED_MODEL} could not be fetched")


def _require_engine() -> None:
    """Raises BackendError."""
    if missing := engine_packages.missing():
        raise BackendError(
            f"the engine needs {' and '.join(missing)}, not installed here: "
            f"{engine_packages.INSTALL}"
        )


def _upstreams(argv: Sequence[str]) -> int:
    from gateway import upstreams

    return upstreams.run(argv)


def _keys(argv: Sequence[str]) -> int:
    from gateway.access import command

    return command.main(argv)


def _config(argv: Sequence[str]) -> int:
    from gateway.settings import command

    return command.run(argv)


def _doctor(argv: Sequence[str]) -> int:
    from gateway import doctor

    return doctor.run(argv)


def _complain(message: str) -> int:
    _say(f"wetink: {message}")
    return EXIT_FAILED


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _command(run: Callable[[Sequence[str]], int], summary: str) -> Command:
    def guarded(argv: Sequence[str]) -> int:
        try:
            return run(argv)
        except (ConfigError, BackendError) as error:
            return _complain(str(error))

    return Command(guarded, summary)


COMMANDS = {
    "serve": _command(_serve, "start the gateway and its engine"),
    "upstreams": _command(_upstreams, "show how the upstreams of a running gateway are"),
    "pull": _command(_pull, "fetch and convert the embedded model"),
    "keys": _command(_keys, "make, list and revoke keys"),
    "config": _command(_config, "check a configuration file, or show what is in force"),
    "doctor": _command(_doctor, "look at this machine: what is lost, and how to mend it"),
}
