"""The `wetink` command."""


def main() -> int:
    raise SystemExit("not built yet")
