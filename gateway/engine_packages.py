"""What the engine needs that a bare gateway does not. Looked for without importing it: the
gateway's process never loads torch.
"""

from __future__ import annotations

import importlib.util

NAMES = ("torch", "transformers")
INSTALL = "pip install 'wetink-gateway[engine]' (in a checkout: make setup)"


def missing() -> list[str]:
    return [name for name in NAMES if importlib.util.find_spec(name) is None]
