"""compose.yaml, what deploy/prepare makes for it, and the manifests of the clouds."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import station
from station.config import load
from tests.deploy.servers import DEPLOY, ROOT, documents, program
from tests.deploy.test_image import ENTRY, variables

COMPOSE: dict[str, Any] = documents(ROOT / "compose.yaml")[0]
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EACH = pytest.mark.parametrize("name", SERVICES)
OPEN_PORTS = {"nginx": ["80:8080", "443:8443"], "mosquitto": ["8883:8883"]}


def accepted(monkeypatch: pytest.MonkeyPatch, folder: Path, environment: Iterable[tuple[str, str]]) -> Any:
    """The settings of a container of our image with *environment*."""
    monkeypatch.chdir(folder)
    for name, value in {**variables(), **dict(environment)}.items():
        if name not in {"PATH", "HOME", "STATION_CONFIG"}:
            monkeypatch.setenv(name, value)
    return load(DEPLOY / "container.toml")


@EACH
def test_every_container_is_shut_in(name: str) -> None:
    one = SERVICES[name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in one
    assert one["deploy"]["resources"]["limits"]["memory"]
    assert one["restart"] == "unless-stopped"
    assert one["logging"]["options"]["max-size"]


@EACH
def test_every_image_is_of_a_named_version_and_its_user_is_not_root(name: str) -> None:
    one = SERVICES[name]
    repository, _, tag = one["image"].rpartition(":")
    assert repository
    assert re.search(r"\d", tag)
    if repository == "pcb-detector":  # its user is the Dockerfile's
        assert tag == station.__version__
    else:
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", one["user"])


@EACH
def test_only_the_proxy_and_the_broker_with_tls_are_open_to_the_network(name: str) -> None:
    published = SERVICES[name].get("ports", [])
    assert published == OPEN_PORTS.get(name, [port for port in published if port.startswith("127.0.0.1:")])


@EACH
def test_no_secret_stands_in_the_file(name: str) -> None:
    for key, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"SECRET|PASSWORD|TOKEN|KEY", key):
            assert key.upper().endswith(("_FILE", "__FILE"))
            assert value.startswith("/run/secrets/")


@EACH
def test_what_is_mounted_is_in_this_repository_or_made_by_prepare(name: str) -> None:
    made = (DEPLOY / "prepare").read_text()
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        if not source.startswith("./"):
            assert source in COMPOSE["volumes"]
        elif source.startswith("./deploy/secrets/"):
            assert volume.endswith(":ro")
            assert Path(source).name in made
        elif source == "./inbox":
            assert "mkdir -p inbox" in made
        else:
            assert volume.endswith(":ro")
            assert (ROOT / source).is_file()


@pytest.mark.parametrize("name", ["station", "api"])
def test_line_and_api_share_keys_and_believe_the_proxy_alone(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = accepted(monkeypatch, tmp_path, SERVICES[name]["environment"].items())
    assert settings.http.trusted_proxies == (SERVICES["nginx"]["networks"]["default"]["ipv4_address"],)
    assert settings.station.name == "aoi-1"  # tokens are for this name
    assert f"data:{settings.station.data_dir}" in SERVICES[name]["volumes"]


def test_the_line_finds_its_broker_and_may_publish_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = accepted(monkeypatch, tmp_path, SERVICES["station"]["environment"].items())
    assert settings.mqtt.enabled
    assert settings.mqtt.host in SERVICES
    allowed = (DEPLOY / "mosquitto" / "acl").read_text()
    assert f"user {settings.mqtt.username}\ntopic write {settings.station.topic}/inspection/+\n" in allowed
    mounted = [volume.split(":")[1] for volume in SERVICES["station"]["volumes"]]
    assert {str(settings.mqtt.password_file), str(settings.source.path)} <= set(mounted)


def test_proxy_and_prometheus_ask_the_containers_that_there_are() -> None:
    nginx = (DEPLOY / "nginx" / "nginx.conf").read_text()
    upstreams = re.findall(r"server ([a-z]+):(\d+)", nginx)
    prometheus = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    targets = re.findall(r'targets: \["([a-z]+):(\d+)"\]', re.sub(r"(?m)^ *#.*$", "", prometheus))
    assert set(upstreams) == {("station", "8000"), ("api", "8000")}
    assert targets == [("station", "8000")]
    assert {name for name, _ in upstreams + targets} <= set(SERVICES)


# --- deploy/prepare, with a docker that does on this machine what it is asked to do in a container

DOCKER = r"""#!/bin/bash
echo "$*" >>"$FAKE/calls"
case "$*" in
  "run --rm -i --network none eclipse-mosquitto:"*) shift 6; exec "$@" ;;
  "compose build station") ;;
  "compose run --rm -T --no-deps station "*) shift 6; exec "$FAKE/entry" "$@" ;;
  *) echo "docker was asked for something else: $*" >&2; exit 9 ;;
esac
"""


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A copy of the repository's deploy/, and a fake docker in bin/."""
    (tmp_path / "deploy" / "mosquitto").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    for name in ("compose.yaml", "deploy/prepare", "deploy/mosquitto/acl"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
        (tmp_path / name).chmod(0o755)
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    (tmp_path / "entry").write_text(f'#!/bin/sh\nexec "{ENTRY}" "$@"\n')
    (tmp_path / "entry").chmod(0o755)
    return tmp_path


def prepare(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = variables() | {
        "PATH": f"{folder}/bin:{ROOT}/.venv/bin:/usr/sbin:/usr/bin:/bin",
        "HOME": str(folder),
        "FAKE": str(folder),
        "STATION_CONFIG": str(DEPLOY / "container.toml"),
        "STATION_STATION__DATA_DIR": str(folder / "data"),
    }
    return subprocess.run(
        [str(folder / "deploy" / "prepare"), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="it gives each secret to its container's user")


@needs_root
def test_prepare_makes_each_secret_for_its_containers_user_alone(prepared: Path) -> None:
    program("mosquitto_passwd")
    done = prepare(prepared, "line1.example.com")
    assert done.returncode == 0, done.stderr
    secrets = prepared / "deploy" / "secrets"
    for mounted in {volume.split(":")[0] for one in SERVICES.values() for volume in one.get("volumes", [])}:
        if not mounted.startswith("./deploy/secrets/"):
            continue
        path = prepared / mounted
        for file in [path] if path.is_file() else sorted(path.iterdir()):
            assert file.stat().st_size > 20
            assert file.stat().st_mode & 0o777 == 0o400
    for name, service in (
        ("mosquitto", "mosquitto"),
        ("nginx", "nginx"),
        ("prometheus", "prometheus"),
        ("grafana", "grafana"),
    ):
        owner = int(SERVICES[service]["user"].split(":")[0])
        assert {file.stat().st_uid for file in [secrets / name, *(secrets / name).iterdir()]} == {owner}
    assert [file.stat().st_uid for file in (secrets / "station").iterdir()] == [10001]
    hashed = (secrets / "mosquitto" / "passwords").read_text()
    assert [line.split(":")[0] for line in hashed.splitlines()] == ["aoi-1", "watcher", "plc"]
    assert all(line.split(":")[1].startswith("$7$") for line in hashed.splitlines())
    keys = json.loads((prepared / "data" / "keys.json").read_text())
    assert "prometheus" in str(keys)
    assert "first" in str(keys)
    assert re.search(r"^st_\S+$", done.stdout, re.MULTILINE)  # for the person, and nowhere else
    for word in ((secrets / "station" / "mqtt-password").read_text(), (secrets / "grafana" / "password").read_text()):
        assert word.strip() not in (prepared / "calls").read_text() + done.stdout + done.stderr


@needs_root
def test_prepare_does_nothing_the_second_time(prepared: Path) -> None:
    program("mosquitto_passwd")
    assert prepare(prepared).returncode == 0
    secrets = prepared / "deploy" / "secrets"
    before = {path: path.read_bytes() for path in secrets.rglob("*") if path.is_file()}
    again = prepare(prepared)
    assert again.returncode == 0, again.stderr
    assert "made" not in again.stderr
    assert again.stdout == ""
    assert {path: path.read_bytes() for path in secrets.rglob("*") if path.is_file()} == before


@needs_root
def test_prepare_gives_a_password_to_who_is_new_in_the_access_list(prepared: Path) -> None:
    program("mosquitto_passwd")
    assert prepare(prepared).returncode == 0
    secrets = prepared / "deploy" / "secrets"
    before = (secrets / "mqtt-password-plc").read_bytes()
    with (prepared / "deploy" / "mosquitto" / "acl").open("a") as acl:
        acl.write("\nuser mes\ntopic read factory/#\n")
    assert prepare(prepared).returncode == 0
    hashed = (secrets / "mosquitto" / "passwords").read_text()
    assert [line.split(":")[0] for line in hashed.splitlines()] == ["aoi-1", "watcher", "plc", "mes"]
    assert (secrets / "mqtt-password-plc").read_bytes() == before


@needs_root
def test_prepare_that_broke_off_goes_on_where_it_was(prepared: Path) -> None:
    program("mosquitto_passwd")
    entry = prepared / "entry"
    whole = entry.read_text()
    entry.write_text(f'#!/bin/sh\n"{ENTRY}" "$@" >/dev/null\nexit 1\n')  # made, and lost on the way
    assert prepare(prepared).returncode != 0
    assert not (prepared / "deploy" / "secrets" / "prometheus" / "station-key").exists()
    entry.write_text(whole)
    done = prepare(prepared)
    assert done.returncode == 0, done.stderr
    assert (prepared / "deploy" / "secrets" / "prometheus" / "station-key").read_text().startswith("st_")
    assert re.search(r"^st_\S+$", done.stdout, re.MULTILINE)


def test_prepare_refuses_a_host_that_is_none(prepared: Path) -> None:
    done = prepare(prepared, "line 1/CN=evil")
    assert done.returncode == 1
    assert "HOST is the name" in done.stderr


# --- the clouds

ECS: dict[str, Any] = json.loads((DEPLOY / "cloud" / "ecs-task.json").read_text())
RUN: dict[str, Any] = documents(DEPLOY / "cloud" / "cloud-run.yaml")[0]
KUBERNETES: dict[str, Any] = {one["kind"]: one for one in documents(DEPLOY / "cloud" / "kubernetes.yaml")}


def container_of(cloud: str) -> dict[str, Any]:
    match cloud:
        case "ecs":
            (one,) = ECS["containerDefinitions"]
        case "cloud-run":
            (one,) = RUN["spec"]["template"]["spec"]["containers"]
        case _:
            (one,) = KUBERNETES["Deployment"]["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = one
    return found


CLOUDS = pytest.mark.parametrize("cloud", ["ecs", "cloud-run", "kubernetes"])


@CLOUDS
def test_the_clouds_settings_are_accepted_and_their_secret_is_no_plain_text(
    cloud: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = container_of(cloud)
    variables_given = one.get("environment") or one["env"]
    plain = [(entry["name"], entry["value"]) for entry in variables_given if "value" in entry]
    assert accepted(monkeypatch, tmp_path, plain).http.auth == "required"
    assert "SECRET_KEY" not in dict(plain)
    secret = [entry["name"] for entry in [*one.get("secrets", []), *variables_given] if "value" not in entry]
    secret += [entry["name"] for entry in one.get("secrets", [])]
    assert "SECRET_KEY" in secret


@CLOUDS
def test_the_clouds_run_serve_of_this_version_on_the_images_port(cloud: str) -> None:
    one = container_of(cloud)
    assert one["image"].endswith(f"/pcb-detector:{station.__version__}")
    assert (one.get("command") or one["args"])[:2] == ["serve", "--workers"]
    port = (one.get("portMappings") or one["ports"])[0]["containerPort"]
    assert port == 8000


def test_the_probes_ask_for_what_is_open_without_a_key() -> None:
    probes = [
        probe["httpGet"]["path"]
        for cloud in ("cloud-run", "kubernetes")
        for name, probe in container_of(cloud).items()
        if name.endswith("Probe")
    ]
    assert sorted(set(probes)) == ["/livez", "/readyz"]
    assert ECS["containerDefinitions"][0]["healthCheck"]["command"] == ["CMD", "container-entry", "healthcheck"]


def test_what_is_written_is_mounted_where_the_root_file_system_is_read_only() -> None:
    wanted = {"/var/lib/station", "/tmp"}  # noqa: S108  # the image's own
    ecs, kubernetes = container_of("ecs"), container_of("kubernetes")
    assert ecs["readonlyRootFilesystem"]
    assert {one["containerPath"] for one in ecs["mountPoints"]} == wanted
    assert kubernetes["securityContext"]["readOnlyRootFilesystem"]
    assert {one["mountPath"] for one in kubernetes["volumeMounts"]} == wanted
    pod = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
    assert {one["name"] for one in kubernetes["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    assert pod["securityContext"]["runAsNonRoot"]


def test_kubernetes_scales_the_deployment_that_it_starts_and_finds_its_pods() -> None:
    deployment = KUBERNETES["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert KUBERNETES["Service"]["spec"]["selector"] == labels
    assert KUBERNETES["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    scaled = KUBERNETES["HorizontalPodAutoscaler"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    (metric,) = [one["pods"]["metric"]["name"] for one in scaled["metrics"] if one["type"] == "Pods"]
    assert metric in (ROOT / "docs" / "deployment.md").read_text()
