"""deploy/ against Kubernetes' schemas, systemd, the Dockerfile and the worker's settings."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # mkdocs brings it, without types

from convotic_celery.settings import Settings
from convotic_celery.telemetry.scaling.answers import SCALING_METRICS
from tests.packaging.support import ROOT

DEPLOY = ROOT / "deploy"
AUTOSCALING = DEPLOY / "autoscaling"
KUBERNETES = [
    *sorted(p for p in (DEPLOY / "kubernetes").glob("*.yaml") if p.name != "kustomization.yaml"),
    AUTOSCALING / "hpa.yaml",
]
PORT = 8080


def load(path: Path) -> dict[str, Any]:
    """Return the one document of a file."""
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


DEPLOYMENT = load(DEPLOY / "kubernetes" / "deployment.yaml")
WORKER_POOL = load(DEPLOY / "cloud-run" / "worker-pool.yaml")
UNIT = DEPLOY / "systemd" / "convotic-worker@.service"


def container_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the worker's container."""
    (found,) = document["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what each platform sets."""
    yield "kubernetes", load(DEPLOY / "kubernetes" / "settings.yaml")["data"]
    yield "cloud-run", {each["name"]: each["value"] for each in container_of(WORKER_POOL)["env"]}
    lines = (DEPLOY / "systemd" / "worker.env").read_text().splitlines()
    (more,) = re.findall("^Environment=(.*)$", UNIT.read_text().replace("%i", "1"), re.MULTILINE)
    pairs = [line.split("=", 1) for line in [*lines, *more.split()] if "=" in line[1:]]
    yield "systemd", {name: value for name, value in pairs if not name.startswith("#")}


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_manifests_fit_the_schemas_of_kubernetes(path: Path) -> None:
    """Every field is one that Kubernetes has, with a value that it takes."""
    validate = str(Path(sys.executable).with_name("kubernetes-validate"))
    command = [validate, "--strict", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_what_belongs_together_is_of_one_name() -> None:
    """Selectors find the pods, references find what they name, kustomize finds the files."""
    template = DEPLOYMENT["spec"]["template"]
    labels = template["metadata"]["labels"]
    budget = load(DEPLOY / "kubernetes" / "disruption-budget.yaml")
    account = load(DEPLOY / "kubernetes" / "service-account.yaml")
    settings = load(DEPLOY / "kubernetes" / "settings.yaml")
    kustomization = load(DEPLOY / "kubernetes" / "kustomization.yaml")

    assert DEPLOYMENT["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert template["spec"]["serviceAccountName"] == account["metadata"]["name"]
    sources = container_of(DEPLOYMENT)["envFrom"]
    assert {"name": settings["metadata"]["name"]} in [s.get("configMapRef") for s in sources]
    assert kustomization["images"][0]["name"] == container_of(DEPLOYMENT)["image"]
    assert all((DEPLOY / "kubernetes" / name).exists() for name in kustomization["resources"])


def test_pods_have_no_rights() -> None:
    """No root, no writable root file system, no capability, no token for the cluster."""
    pod = DEPLOYMENT["spec"]["template"]["spec"]
    user = re.findall(r"--uid (\d+)", (ROOT / "Dockerfile").read_text())

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert [str(pod["securityContext"]["runAsUser"])] == user
    assert pod["automountServiceAccountToken"] is False
    assert container_of(DEPLOYMENT)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("document", [DEPLOYMENT, WORKER_POOL], ids=["kubernetes", "cloud-run"])
def test_probes_ask_the_health_port(document: dict[str, Any]) -> None:
    """Liveness asks whether only a restart helps, and gives a stall time to mend itself."""
    container = container_of(document)
    ports = {each["name"]: each["containerPort"] for each in container.get("ports", ())}
    startup, liveness = container["startupProbe"], container["livenessProbe"]

    for probe, path in ((startup, "/readyz"), (liveness, "/livez")):
        asked = probe["httpGet"]
        assert (asked["path"], ports.get(asked["port"], asked["port"])) == (path, PORT)
    assert startup["periodSeconds"] * startup["failureThreshold"] <= 240  # Cloud Run's limit
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 30


@pytest.mark.parametrize(
    ("platform", "values"), list(environments()), ids=lambda value: str(value)[:10]
)
def test_each_variable_is_a_setting(
    platform: str, values: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker starts with them, with nothing embedded; the port is the one that is probed."""
    assert values["CONVOTIC_ENV"] == "production"
    for name, value in values.items():
        monkeypatch.setenv(name, value)

    settings = Settings()

    settings.refuse_embedded_where_wrong()
    known = {f"CONVOTIC_{name.upper()}" for name in Settings.model_fields}
    assert set(values) <= known
    assert settings.health_port == (PORT if platform != "systemd" else 8081)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / UNIT.name
    celery = str(Path(sys.executable).with_name("celery"))
    unit.write_text(UNIT.read_text().replace("/srv/convotic/.venv/bin/celery", celery))

    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert unit.name.replace("@", "@i") not in done.stderr


def test_the_commands_are_the_images() -> None:
    """What the platforms run is the default command of the image."""
    (last,) = re.findall(r"^CMD (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1:]

    assert yaml.safe_load(last) == container_of(DEPLOYMENT)["args"]
    assert yaml.safe_load(last) == container_of(WORKER_POOL)["args"]


def test_autoscalers_ask_for_what_is_answered() -> None:
    """KEDA's and CREMA's query, the HPA's metric; all scale these files' workers."""
    keda, crema, hpa = (load(AUTOSCALING / f"{n}.yaml")["spec"] for n in ("keda", "crema", "hpa"))
    (scaled,) = crema["scaledObjects"]
    service = load(DEPLOY / "kubernetes" / "scaling-service.yaml")
    scaling = load(DEPLOY / "kubernetes" / "scaling.yaml")
    name, namespace = service["metadata"]["name"], "convotic"
    (port,) = {each["port"] for each in service["spec"]["ports"]}
    workers = DEPLOYMENT["metadata"]["name"]

    addresses = []
    for each in (keda, scaled["spec"]):
        (trigger,) = each["triggers"]
        assert (trigger["type"], trigger["metadata"]["threshold"]) == ("prometheus", "1")
        assert trigger["metricType"] == "AverageValue"
        assert trigger["metadata"]["query"] in SCALING_METRICS
        addresses.append(trigger["metadata"]["serverAddress"])
    assert addresses == [f"http://{name}.{namespace}.svc:{port}", f"http://localhost:{port}"]
    assert hpa["metrics"][0]["external"]["metric"]["name"] in SCALING_METRICS
    assert keda["scaleTargetRef"]["name"] == hpa["scaleTargetRef"]["name"] == workers
    assert scaled["spec"]["scaleTargetRef"]["name"].endswith(WORKER_POOL["metadata"]["name"])
    beside = load(AUTOSCALING / "crema-service.yaml")["spec"]["template"]["spec"]["containers"][1]
    assert beside["args"] == container_of(scaling)["args"]
    assert beside["args"][-1] == str(port)


def test_crema_takes_its_file() -> None:
    """Its parser refuses fields that it does not know, and its defaults are not those of an HPA."""
    spec = load(AUTOSCALING / "crema.yaml")["spec"]

    assert set(spec) <= {"scaledObjects", "triggerAuthentications", "pollingInterval"}
    for each in spec["scaledObjects"]:
        assert set(each) == {"spec"}
        assert "pollingInterval" not in each["spec"], "there is one for all"
        scaling = each["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert scaling["scaleDown"]["selectPolicy"] == "Max", "else one instance at a time"


def test_a_rollout_kills_no_run_that_the_grace_lets_finish() -> None:
    """Kubernetes and systemd wait a minute; on Cloud Run there are 10 s, and the file says so."""
    stop = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    pool = (DEPLOY / "cloud-run" / "worker-pool.yaml").read_text()

    assert DEPLOYMENT["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 60
    assert int(stop[0]) >= 60
    told = {platform: values["CONVOTIC_SHUTDOWN_GRACE"] for platform, values in environments()}
    assert told == {"kubernetes": "60", "cloud-run": "10", "systemd": stop[0]}
    assert "10 s from SIGTERM to SIGKILL" in pool
