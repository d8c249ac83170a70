"""Builds the client's wheel with the protocol inside, so that it takes no name but its own.

In the repository `protocol` is a package of its own, which the gateway uses too. A wheel holds a
copy of it as `wetink.protocol`, with every import of it, there and in the client, rewritten. An
editable install changes nothing: it finds `protocol` in the checkout.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_IMPORT = re.compile(r"^(\s*)(from|import) protocol\b", re.MULTILINE)
_UNDER = "wetink.protocol"


class ProtocolInside(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        here = Path(self.root)
        # Beside this file in an sdist, two floors up in the repository.
        protocol = next(p for p in (here / "protocol", here.parents[1] / "protocol") if p.is_dir())
        self._folder = Path(tempfile.mkdtemp(prefix="wetink-wheel-"))
        for source, target in ((here / "wetink", "wetink"), (protocol, "wetink/protocol")):
            for path in sorted(source.rglob("*")):
                if path.is_file() and path.suffix in (".py", ".typed"):
                    self._add(path, f"{target}/{path.relative_to(source)}", build_data)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            shutil.rmtree(self._folder)

    def _add(self, path: Path, target: str, build_data: dict[str, Any]) -> None:
        copy = self._folder / target
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
        build_data["force_include"][str(copy)] = target


def rewritten(source: str) -> str:
    """`source` with its imports of `protocol` going to where a wheel holds it.

    Raises ValueError for a form that would still look for a package of that name.
    """
    if re.search(r"^\s*import protocol\b", source, re.MULTILINE):
        raise ValueError("write `from protocol.… import …`: a wheel holds the package elsewhere")
    return _IMPORT.sub(rf"\1\2 {_UNDER}", source)
