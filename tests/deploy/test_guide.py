"""docs/deployment.md says what is so: files, tests, metrics, faults and events that it names are there."""

from __future__ import annotations

import re

import pytest

from station.config import GUIDE_NAMES, SECRET_NAME, keys
from tests.deploy.servers import DEPLOY, ROOT, documents
from tests.deploy.test_prometheus import ALERTS

TEXT = (ROOT / "docs" / "deployment.md").read_text()
CODE = "\n".join(path.read_text() for path in (ROOT / "station").rglob("*.py"))

# As they stand in the guide. Numbers before headings are left out.
HEADINGS = """
Overview · Security Configuration · Environment Setup · Infrastructure · Docker Deployment · Direct Server Deployment
Cloud Platform Deployment · AWS ECS/Fargate · Google Cloud Run · Environment Variables · Nginx Configuration
Health Checks · Logging · Metrics to Monitor · Authentication · Rate Limiting · Input Validation · Horizontal Scaling
Vertical Scaling · Caching · Model Files · Configuration · Common Issues · Debug Mode · API Documentation · Support
"""


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below *heading*, without its head."""
    below = re.split(rf"(?m)^#+ {re.escape(heading)}$", TEXT)[1]
    lines = re.findall(r"(?m)^\|.*\|$", re.split(r"(?m)^#", below)[0])
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


GUIDE = rows("Where the deployment guide's headings went")


def test_every_heading_of_the_guide_is_answered() -> None:
    wanted = [one.strip() for line in HEADINGS.strip().splitlines() for one in line.split("·")]
    assert [re.split(r"(?<!PI): ", row[0])[-1] for row in GUIDE] == wanted


def test_the_readme_has_the_same_rows() -> None:
    def plain(text: str) -> str:
        return re.sub(r"\]\([^)]*\)", "]()", text)

    readme = plain((ROOT / "README.md").read_text())
    for row in GUIDE:
        assert f"| {plain(' | '.join(row))} |" in readme, row[0]


@pytest.mark.parametrize("row", GUIDE, ids=lambda row: row[0])
def test_the_test_that_shows_it_exists(row: list[str]) -> None:
    path, _, name = row[2].strip("`").partition("::")
    assert re.search(rf"(?m)^(async )?def {name}\(", (ROOT / "tests" / path).read_text())


@pytest.mark.parametrize(
    "name",
    sorted(set(re.findall(r"`((?:deploy|systemd|scripts)/(?!test_|secrets)[\w./@-]+|compose\.yaml|Dockerfile)", TEXT))),
)
def test_the_files_that_are_named_are_there(name: str) -> None:
    assert (ROOT / name).exists()


def test_the_guides_names_stand_for_these_keys() -> None:
    told = {row[0].strip("`"): row[1] for row in rows("Environment")}
    assert set(told) == {*GUIDE_NAMES, SECRET_NAME}
    for name, key in GUIDE_NAMES.items():
        section, _, one = key.partition(".")
        assert told[name] == f"`[{section}] {one}`"
        assert key in keys()


def test_every_alert_is_in_the_document_with_its_urgency() -> None:
    told = {row[0].strip("`"): row[2] for row in rows("Alerts")}
    assert told == {one["alert"]: one["labels"]["severity"] for one in ALERTS}


def test_every_anchor_leads_to_a_heading() -> None:
    def anchors(text: str) -> set[str]:
        found = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```", "", text))
        return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in found}

    for file, anchor in re.findall(r"\]\(([\w./]*)#([\w-]+)\)", TEXT):
        assert anchor in anchors((ROOT / "docs" / file).read_text() if file else TEXT), anchor


def test_what_the_symptoms_point_at_is_there() -> None:
    table = "\n".join(" ".join(row) for row in rows("Troubleshooting by symptom"))
    words = set(re.findall(r"`([a-z_]+)`", table))
    metrics = {word for word in words if word.startswith("station_")}
    assert metrics
    for word in words - {
        "camera_failing",
        "line_failing",
        "process_resident_memory_bytes",
    }:  # made of a loop's name; theirs
        bare = word.removesuffix("_total") if word in metrics else word
        assert re.search(rf"\b{bare}\b", CODE + (DEPLOY / "nginx" / "nginx.conf").read_text()), word
    assert '"caller not let in"' in CODE
    for command in re.findall(r"`station (\w+)", table):
        assert re.search(rf'(?m)^def {command}\(|name="{command}"', CODE), command


def test_the_table_of_metrics_names_what_the_dashboard_asks_for() -> None:
    asked = (DEPLOY / "grafana" / "dashboard.json").read_text()
    named = set(
        re.findall(r"`((?:station|process)_[a-z_]+)", "\n".join(" ".join(row) for row in rows("Metrics and dashboard")))
    )
    assert named
    for name in named:
        assert name in asked, name


def test_the_adapters_rule_makes_what_the_manifest_scales_by() -> None:
    (rule,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert "name: {as: station_http_turned_away_per_second}" in rule
    kinds = {one["kind"]: one for one in documents(DEPLOY / "cloud" / "kubernetes.yaml")}
    assert "station_http_turned_away_per_second" in str(kinds["HorizontalPodAutoscaler"])
