"""Dashboard, alerts and scaling ask for what a gateway really tells."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.backends.base import Drafted, EngineLoad, Finished, Load, Verified
from gateway.config import GatewayConfig
from tests.deploy.files import DEPLOY, dashboard, document, expressions, metrics_in, panels, rules
from tests.server.gateways import Served, hand_served

EXPRESSIONS = expressions()
ENGINE = EngineLoad(
    kv_blocks=4,
    kv_blocks_used=1,
    steps=1,
    preemptions=0,
    sentinel_checks=0,
    sentinel_mismatches=0,
)


async def every_sample(served: Served) -> set[str]:
    """Names in a scrape of a gateway that has served, refused and failed somebody."""
    served.backend.load_now = Load(waiting=1, engine=ENGINE)
    assert (await served.http.post("/v1/streams", json={"prompt": "x " * 200})).status_code == 400
    stream = await served.start()
    async with served.read(stream, policy="retract") as reader:
        served.backend.say(Drafted("a b"), Verified("a c", cause="draft_rejected"))
        served.backend.say(Finished("stop"))
        await reader.to_end()
    served.clock.advance(1.0)  # without time there is no rate, and no wait to estimate
    text = (await served.http.get("/metrics")).text
    # Readings that fail are rare; that there is such a metric is told all the same.
    assert "# TYPE wetink_attachment_failures_total counter" in text
    return {
        sample.name for family in text_string_to_metric_families(text) for sample in family.samples
    } | {"wetink_attachment_failures_total"}


async def test_every_expression_names_metrics_that_a_gateway_has() -> None:
    async with hand_served() as served:
        known = await every_sample(served)
    for place, expression in EXPRESSIONS.items():
        asked = metrics_in(expression)
        assert asked <= known, f"{place}: {asked - known}"
        assert asked or expression.startswith("up{"), place


async def test_every_metric_of_the_gateway_is_explained_in_the_guide() -> None:
    async with hand_served() as served:
        known = {name for name in await every_sample(served) if name.startswith("wetink_")}
    guide = (DEPLOY.parent / "docs" / "OPERATING.md").read_text()
    for ending in ("_bucket", "_sum", "_count", "_total", "_created"):
        known = {name.removesuffix(ending) for name in known}
    assert {name for name in known if name not in guide} == set()


def test_dashboard_has_the_shape_that_grafana_loads() -> None:
    found = dashboard()
    assert found["schemaVersion"] >= 36
    ids = [panel["id"] for panel in found["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {each["name"] for each in found["templating"]["list"]}
    assert variables == {"source", "job", "instance"}
    taken: set[tuple[int, int]] = set()
    for panel in found["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, f"{panel['title']} lies over another panel"
        assert place["x"] + place["w"] <= 24
        taken |= cells
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
        assert panel["targets"]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alert_has_its_section_in_the_guide(rule: dict[str, str]) -> None:
    assert rule["alert"] in (DEPLOY.parent / "docs" / "OPERATING.md").read_text()


def test_scaling_goes_by_the_queue() -> None:
    scaled, pods = document("keda.yaml"), document("hpa.yaml")
    assert scaled["kind"] == "ScaledObject"
    assert scaled["spec"]["scaleTargetRef"]["name"] == pods["spec"]["scaleTargetRef"]["name"]
    assert metrics_in(EXPRESSIONS["keda"]) == {EXPRESSIONS["hpa"]} == {"wetink_queue_streams"}


def test_example_configuration_can_be_read() -> None:
    config = GatewayConfig.load(DEPLOY / "wetink.toml", env={})
    assert "gateway.example" in (config.server.allowed_hosts or ())


def test_service_manager_waits_until_streams_have_drained() -> None:
    lines = (DEPLOY / "wetink.service").read_text().splitlines()
    [patience] = [line.partition("=")[2] for line in lines if line.startswith("TimeoutStopSec=")]
    server = GatewayConfig().server
    assert int(patience) >= server.drain_s + server.shutdown_s + 10


def test_container_file_copies_what_is_there_and_starts_a_command_there_is() -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert {"protocol", "engine", "gateway", "clients/python"} <= set(copied)
    assert all((DEPLOY.parent / path).exists() for path in copied)
    environment = dict(
        pair.split("=", 1)
        for line in lines
        if line.startswith("ENV ")
        for pair in line.split()[1:]
        if pair.startswith("WETINK_")
    )
    config = GatewayConfig.load(env=environment)
    assert (config.server.host, config.log.format) == ("0.0.0.0", "json")
