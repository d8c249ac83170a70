"""The `wetink` command: serve, stream, pull, keys, config, doctor, version."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway import engine_packages
from gateway.errors import BackendError, ConfigError
from protocol.events import PROTOCOL_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.backends.base import Backend
    from gateway.config import GatewayConfig

EMBEDDED_MODEL = "smollm2-135m-instruct"
DEFAULT_URL = "http://127.0.0.1:8000"
EXAMPLE_PROMPT = "Tell me a story about a lighthouse."
BAR_WIDTH = 30

EXIT_OK, EXIT_FAILED = 0, 1


class Command(NamedTuple):
    run: Callable[[Sequence[str]], int]
    summary: str


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Each command parses the rest itself, so that `stream` need not load the server, nor `serve`
    # the client.
    options = _parser().parse_args(arguments[:1])
    try:
        return COMMANDS[options.command].run(arguments[1:])
    except (ConfigError, BackendError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    summaries = "\n".join(f"  {name:<9}{command.summary}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="wetink",
        description="A streaming gateway for speculative decoding.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"commands:\n{summaries}\n\nwetink COMMAND --help tells more.",
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    return parser


def _serve(argv: Sequence[str]) -> int:
    import uvloop

    from gateway.access import read_keys, require_guard
    from gateway.server import bind, serve
    from gateway.telemetry import logs

    options = _serve_parser().parse_args(argv)
    config = _load_config(options)
    require_guard(config, read_keys(config.access))
    logs.configure(config.log)
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
            lambda url: _announce(url, backend),
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
        name = error.key.rpartition(".")[2].replace("_", "-")
        raise ConfigError(str(error).replace(error.key, f"--{name}", 1)) from error


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
    add("--backend", choices=["local", "scripted"], help="source of tokens (default: local)")
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
        "demonstration.enabled": options.demo,
    }
    given |= {
        f"engine.{name}": getattr(options, name, None) for name in EngineConfig.__struct_fields__
    }
    return {key: value for key, value in given.items() if value is not None}


def _backend(config: GatewayConfig) -> Backend:
    if config.backend.kind == "scripted":
        from gateway.backends.scripted import ScriptedBackend

        return ScriptedBackend.from_config(config.backend)
    from gateway.backends.local import LocalBackend

    _require_engine()
    if config.engine.model in (None, EMBEDDED_MODEL):
        _pull_quietly()
    for_people = config.log.format == "human"
    on_progress = LoadingBar() if for_people else LoadingLog()
    return LocalBackend(config.started_engine, config.supervision, on_progress=on_progress)


def _announce(url: str, backend: Backend) -> None:
    """The address, and two lines to copy that stream from it."""
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
    sys.stdout.write(
        f"\nWetink serves {names} at {url}\n{drafters}\n"
        f"  curl -N {url}/v1/streams -H 'Accept: text/event-stream' -d {shlex.quote(body)}\n"
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


def _stream(argv: Sequence[str]) -> int:
    from wetink import terminal

    return terminal.main(argv)


def _keys(argv: Sequence[str]) -> int:
    from gateway.access import command

    return command.main(argv)


def _config(argv: Sequence[str]) -> int:
    from gateway.settings import command

    return command.run(argv)


def _doctor(argv: Sequence[str]) -> int:
    from gateway import doctor

    return doctor.run(argv)


def _version(argv: Sequence[str]) -> int:
    argparse.ArgumentParser(prog="wetink version").parse_args(argv)
    version = importlib.metadata.version("wetink")
    sys.stdout.write(f"wetink {version}, protocol {PROTOCOL_VERSION}\n")
    return EXIT_OK


def _complain(message: str) -> int:
    _say(f"wetink: {message}")
    return EXIT_FAILED


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


COMMANDS = {
    "serve": Command(_serve, "start the gateway and its engine"),
    "stream": Command(_stream, "generate text at a running gateway and watch it"),
    "pull": Command(_pull, "fetch and convert the embedded model"),
    "keys": Command(_keys, "make, list and revoke keys"),
    "config": Command(_config, "check a configuration file, or show what is in force"),
    "doctor": Command(_doctor, "look at this machine: what is lost, and how to mend it"),
    "version": Command(_version, "print the version"),
}
