"""`wetink config check FILE` and `wetink config show`."""

from __future__ import annotations

import argparse
import copy
import difflib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway.backends.local.settings import check_engine
from gateway.config import GatewayConfig, read_toml
from gateway.errors import ConfigError
from gateway.settings.reference import Section, Setting, sections, toml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_PROBLEMS = 50
EXIT_FINE, EXIT_WRONG = 0, 1


def run(argv: Sequence[str]) -> int:
    """Returns the exit status. Raises ConfigError where there is nothing to show."""
    parser = argparse.ArgumentParser(
        prog="wetink config", description="Look at a configuration without starting anything."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check", help="say what is wrong with a file; status 1 if anything is"
    )
    check.add_argument("file", type=Path, metavar="FILE")
    show = commands.add_parser(
        "show", help="print what is in force, as TOML, with where each value comes from"
    )
    show.add_argument("--config", type=Path, metavar="FILE", help="TOML file to read first")
    options = parser.parse_args(argv)
    if options.command == "check":
        return _check(options.file)
    sys.stdout.write(shown(options.config, os.environ))
    return EXIT_FINE


def _check(file: Path) -> int:
    problems = problems_of(read_toml(file))
    for problem in problems:
        sys.stdout.write(f"{file}: {problem}\n")
    if not problems:
        sys.stdout.write(f"{file}: nothing is wrong with it\n")
    return EXIT_WRONG if problems else EXIT_FINE


def problems_of(tree: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a configuration as TOML has it, a sentence for each.

    A key that is refused is left out and the rest is looked at again, so that one mistake does not
    hide the next.
    """
    rest = copy.deepcopy(dict(tree))
    problems: list[str] = []
    while len(problems) < MOST_PROBLEMS:
        try:
            config = GatewayConfig.from_tree(copy.deepcopy(rest))
            check_engine(config.engine)
        except ConfigError as error:
            problems.append(_explained(error))
            if not _leave_out(rest, error.key or str(error).partition(": ")[0]):
                break
        else:
            break
    return problems


def _explained(error: ConfigError) -> str:
    """With the key that was probably meant, where a key is unknown."""
    message = str(error)
    if error.key is None or " is unknown" not in message:
        return message
    known = [setting.key for section in sections() for setting in section.settings]
    known += [section.name for section in sections()]
    near = difflib.get_close_matches(error.key, known, 1)
    return f"{error.key} is unknown; did you mean {near[0]}?" if near else message


def _leave_out(tree: dict[str, Any], key: str) -> bool:
    """Whether there was such a key."""
    *path, name = key.partition("[")[0].split(".")
    table: Any = tree
    for step in path:
        table = cast("dict[str, Any]", table).get(step) if isinstance(table, dict) else None
    if not isinstance(table, dict) or name not in table:
        return False
    del table[name]
    return True


def shown(path: Path | None, env: Mapping[str, str]) -> str:
    """What would be in force: a file that can be read again. Raises ConfigError."""
    config = GatewayConfig.load(path, env=env)
    engine = check_engine(config.engine)
    file = {} if path is None else read_toml(path)
    values = msgspec.to_builtins({**msgspec.structs.asdict(config), "engine": engine})
    tables: list[str] = []
    for section in sections():
        if section.is_repeated:
            tables += [_repeated(section, each) for each in values[section.name]]
        else:
            tables.append(_table(section, values[section.name], file.get(section.name, {}), env))
    return "\n".join(tables)


def _repeated(section: Section, values: Mapping[str, Any]) -> str:
    """One of several tables; all come from the file. Where a key is, not the key, stands in it."""
    return "[" + _table(section, values, {}, {}).replace("]\n", "]]\n", 1)


def _table(
    section: Section, values: Mapping[str, Any], file: Mapping[str, Any], env: Mapping[str, str]
) -> str:
    lines = [f"[{section.name}]"]
    for setting in section.settings:
        source = _source(setting, file, env)
        value = values[setting.name]
        line = (
            f"# {setting.name} is not set" if value is None else f"{setting.name} = {toml(value)}"
        )
        lines.append(line if source is None else f"{line}  # {source}")
    return "\n".join(lines) + "\n"


def _source(setting: Setting, file: Mapping[str, Any], env: Mapping[str, str]) -> str | None:
    """None for a default."""
    if setting.variable in env:
        return f"from {setting.variable}"
    return "from the file" if setting.name in file else None
