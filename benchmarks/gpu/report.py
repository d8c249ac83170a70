"""Figures, what is wanted of them, and how both are shown."""

from __future__ import annotations

from typing import Literal

import msgspec


class Figure(msgspec.Struct):
    """One measurement. `wanted`: its bar, None where it only explains another."""

    name: str
    unit: str
    value: float
    wanted: float | None = None
    sense: Literal["at least", "at most"] = "at least"

    @property
    def met(self) -> bool | None:
        if self.wanted is None:
            return None
        return self.value >= self.wanted if self.sense == "at least" else self.value <= self.wanted


class Report(msgspec.Struct):
    when: str
    device: str
    versions: dict[str, str]
    tiny: bool
    """A try of the program itself: its figures mean nothing."""
    seconds: dict[str, float] = {}
    """What each part took."""
    failures: dict[str, str] = {}
    """Parts that did not come to an end, with the reason."""
    figures: list[Figure] = []

    def json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    def table(self) -> str:
        """Markdown."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [
            f"{self.when[:16]} UTC, {self.device}; {versions}",
            "",
            "| figure | measured | wanted | |",
            "| --- | --- | --- | --- |",
        ]
        for each in self.figures:
            wanted = "" if each.wanted is None else f"{each.sense} {each.wanted:g}"
            word = {None: "", True: "met", False: "missed"}[each.met]
            lines.append(f"| {each.name} | {each.value:.4g} {each.unit} | {wanted} | {word} |")
        lines += [f"\n{name} failed: {reason}" for name, reason in self.failures.items()]
        if self.tiny:
            lines.append("\nTiny: a try of the program, no measurement.")
        return "\n".join(lines) + "\n"
