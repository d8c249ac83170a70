"""The `wetink` command. Its own part needs no server; an installed gateway adds the rest."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from typing import TYPE_CHECKING, NamedTuple

from protocol.events import PROTOCOL_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PLUGGED_IN = "wetink.commands"
"""Entry points of this group are tables of commands, like `COMMANDS`."""

OF_THE_GATEWAY = ("serve", "pull", "keys", "config", "doctor", "upstreams")
OF_THE_VOICE = ("espeakng_loader", "sentencex")
EXIT_OK, EXIT_USAGE, EXIT_INTERRUPTED = 0, 2, 130


class Command(NamedTuple):
    run: Callable[[Sequence[str]], int]
    """Takes what follows the command's name; returns the exit status."""
    summary: str


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Each command parses the rest itself, and imports what it needs: `stream` starts without the
    # server, `serve` without the client.
    name = arguments[0] if arguments else "--help"
    if name in ("--version", "-V"):
        name = "version"
    command = COMMANDS.get(name) or _plugged_in().get(name)
    if command is None:
        return _help(name)
    try:
        return command.run(arguments[1:])
    except KeyboardInterrupt:
        return EXIT_OK if name == "serve" else EXIT_INTERRUPTED


def _help(name: str) -> int:
    commands = {**_plugged_in(), **COMMANDS}
    if name not in ("-h", "--help", "help"):
        if name in OF_THE_GATEWAY:
            _say(
                f"wetink: {name} is a command of the gateway, not installed here: "
                "pip install 'wetink-gateway[engine]'"
            )
        else:
            _say(f"wetink: no command {name!r}; there are: {', '.join(commands)}")
        return EXIT_USAGE
    width = max(map(len, commands)) + 2
    summaries = "\n".join(
        f"  {name:<{width}}{command.summary}" for name, command in commands.items()
    )
    sys.stdout.write(
        "usage: wetink COMMAND …\n\nA streaming gateway for speculative decoding.\n\n"
        f"commands:\n{summaries}\n\nwetink COMMAND --help tells more.\n"
    )
    return EXIT_OK


def _plugged_in() -> Mapping[str, Command]:
    found: dict[str, Command] = {}
    for entry in importlib.metadata.entry_points(group=PLUGGED_IN):
        found |= entry.load()
    return found


def _stream(argv: Sequence[str]) -> int:
    from wetink import terminal

    return terminal.main(argv)


def _attach(argv: Sequence[str]) -> int:
    from wetink import terminal

    return terminal.attach_main(argv)


def _say_aloud(argv: Sequence[str]) -> int:
    try:
        from wetink.say import command
    except ModuleNotFoundError as error:
        if error.name not in OF_THE_VOICE:
            raise
        _say("wetink: say needs a voice: pip install 'wetink[voice]'")
        return EXIT_USAGE
    return command.main(argv)


def _version(argv: Sequence[str]) -> int:
    argparse.ArgumentParser(prog="wetink version").parse_args(argv)
    version = importlib.metadata.version("wetink")
    sys.stdout.write(f"wetink {version}, protocol {PROTOCOL_VERSION}\n")
    return EXIT_OK


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


COMMANDS = {
    "stream": Command(_stream, "generate text at a running gateway and watch it"),
    "attach": Command(_attach, "read a stream that runs already"),
    "say": Command(_say_aloud, "hear text while it is generated"),
    "version": Command(_version, "print the version"),
}
