"""`python -m gateway.settings.page` writes docs/configuration.md to standard output."""

from __future__ import annotations

import sys

from gateway.settings.reference import Section, Setting, sections, toml

HEAD = """# Configuration

Written by `python -m gateway.settings.page` from the structs that read the configuration
(gateway/config/, engine/config.py); a test holds it fresh.

`wetink serve --config wetink.toml` reads a TOML file. Each key can also be set by the variable
named with it (lists comma-separated), which wins over the file; options of the command line win
over both. An unknown section, key or `WETINK_…` variable and a value out of range are refused with
their name. `wetink config check FILE` says what is wrong with a file, `wetink config show --config
FILE` what is in force and where it comes from.
"""


def page() -> str:
    """docs/configuration.md."""
    return HEAD + "".join(map(_section, sections()))


def _section(section: Section) -> str:
    entries = "".join(map(_entry, section.settings))
    name = f"[[{section.name}]]" if section.is_repeated else f"[{section.name}]"
    return f"\n## {name}\n\n{section.text}\n\n{entries}"


def _entry(setting: Setting) -> str:
    default = "not set" if setting.default is None else f"`{toml(setting.default)}`"
    unit = f", in {setting.unit}" if setting.unit else ""
    variable = f"; `{setting.variable}`" if setting.in_environment else ""
    # None is what Python calls a key that is not set.
    text = setting.text.replace("None:", "Not set:")
    return (
        f"* **`{setting.name}`**: {setting.type}{unit}; default {default}{variable}\\\n  {text}\n"
    )


if __name__ == "__main__":
    sys.stdout.write(page())
