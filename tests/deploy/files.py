"""What lies in deploy/, read as those who use it read it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, cast

import msgspec
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


def program(name: str) -> str:
    """Path of a program that these tests need. Fails, saying so, where it is missing."""
    found = shutil.which(name, path="/usr/sbin:/usr/local/bin:/usr/bin:/bin")
    assert found is not None, f"this test needs {name}: apt-get install {PACKAGES[name]}"
    return found


PACKAGES = {
    "nginx": "nginx-light",
    "caddy": "caddy",
    "openssl": "openssl",
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "systemd-analyze": "systemd",
}


def dashboard() -> dict[str, Any]:
    return msgspec.json.decode(
        (DEPLOY / "grafana-dashboard.json").read_bytes(), type=dict[str, Any]
    )


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def dashboard_expressions() -> list[str]:
    """With Grafana's variables filled in."""
    filled = {"$__rate_interval": "1m", "$job": "wetink", "$instance": ".+"}
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    for variable, value in filled.items():
        found = [expression.replace(variable, value) for expression in found]
    return found


def rules() -> list[dict[str, Any]]:
    groups = document("alerts.yml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def document(name: str) -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.safe_load((DEPLOY / name).read_text()))


def expressions() -> dict[str, str]:
    """Every expression there is, by where it stands."""
    found = {f"dashboard {n}": each for n, each in enumerate(dashboard_expressions())}
    found |= {rule["alert"]: rule["expr"] for rule in rules()}
    found["keda"] = document("keda.yaml")["spec"]["triggers"][0]["metadata"]["query"]
    [metric] = document("hpa.yaml")["spec"]["metrics"]
    return found | {"hpa": metric["pods"]["metric"]["name"]}


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\bwetink_[a-z_]+", expression))
