"""The Kubernetes manifests.

By the schemas of Kubernetes, by its `restricted` standard, and fitting one another.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml

from cavendish.store.fleet import EVERY, GONE_AFTER
from cavendish_worker.cli import alive
from deployed import DEPLOY, KUBERNETES, OURS, ROOT, in_kubernetes, manifests, of_kind, read

WORKLOADS = of_kind("Deployment", "StatefulSet")
POLICIES = of_kind("NetworkPolicy", "PodDisruptionBudget", "Service")
#: The oldest and the newest that the schemas know of.
RELEASES = ("1.29", "1.37")


def called(one: dict[str, Any]) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


def pods(labels: dict[str, str]) -> list[dict[str, Any]]:
    """The workloads whose pods have these labels."""
    return [
        one
        for one in WORKLOADS
        if labels.items() <= one["spec"]["template"]["metadata"]["labels"].items()
    ]


@cache
def built(overlay: str) -> tuple[dict[str, Any], ...]:
    """What kustomize makes of a folder."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES / overlay)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize(
    "one", [one for one in manifests() if one["kind"] != "ScaledObject"], ids=called
)
def test_every_object_is_one_by_the_schema_of_kubernetes(one: dict[str, Any]) -> None:
    for release in RELEASES:
        kubernetes_validate.validate(one, release, strict=True)


def test_a_misspelt_field_is_noticed() -> None:
    wrong = WORKLOADS[0] | {"spec": WORKLOADS[0]["spec"] | {"replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, RELEASES[0], strict=True)


@pytest.mark.parametrize("one", WORKLOADS, ids=called)
def test_a_pod_may_do_nothing_that_the_restricted_standard_forbids(one: dict[str, Any]) -> None:
    pod = one["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for box in pod["containers"]:
        wanted = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert box["securityContext"] == wanted
        assert set(box["resources"]) == {"requests", "limits"}


@pytest.mark.parametrize("one", WORKLOADS, ids=called)
def test_kubernetes_tells_a_pod_of_no_services_which_would_poll_like_settings(
    one: dict[str, Any],
) -> None:
    assert one["spec"]["template"]["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("one", of_kind("Deployment"), ids=called)
def test_what_is_set_in_the_secret_wins_over_the_map(one: dict[str, Any]) -> None:
    """Kubernetes takes the later of two sources.

    An empty value of the secret is taken too, so none may be made.
    """
    (box,) = one["spec"]["template"]["spec"]["containers"]
    assert [next(iter(source)) for source in box["envFrom"]] == ["configMapRef", "secretRef"]
    page = (KUBERNETES / "base" / "kustomization.yaml").read_text()
    assert "grep -E '^[A-Z_]+=.' cavendish.env" in page
    lines = [
        line
        for line in (DEPLOY / "env.example").read_text().splitlines()
        if re.match("[A-Z_]+=.", line)
    ]
    assert not any(line.endswith("=") for line in lines)


def test_redis_asks_for_a_password_of_a_secret_and_every_part_says_it() -> None:
    (redis,) = of_kind("StatefulSet")
    (box,) = redis["spec"]["template"]["spec"]["containers"]
    (password,) = box["env"]
    assert password["valueFrom"] == {"secretKeyRef": {"name": "cavendish-redis", "key": "password"}}
    assert f'--requirepass "${password["name"]}"' in box["args"][-1]
    assert box["args"][-1].startswith("exec redis-server ")
    (one,) = read(KUBERNETES / "components" / "redis" / "kustomization.yaml")
    (patch,) = one["patches"]
    secret, url = (step["value"] for step in yaml.safe_load(patch["patch"]))
    assert secret["valueFrom"] == password["valueFrom"]
    assert url == {
        "name": "CAVENDISH_REDIS_URL",
        "value": f"redis://:$({secret['name']})@cavendish-redis:6379/0",
    }
    for deployment in of_kind("Deployment"):
        (part,) = deployment["spec"]["template"]["spec"]["containers"]
        assert isinstance(part["env"], list)  # or there would be nothing to add to


@pytest.mark.parametrize("one", WORKLOADS, ids=called)
def test_every_container_is_probed(one: dict[str, Any]) -> None:
    for box in one["spec"]["template"]["spec"]["containers"]:
        ports = {port["name"] for port in box.get("ports", ())}
        for kind in ("livenessProbe", "readinessProbe"):
            probe = box[kind]
            assert ("exec" in probe) != ("httpGet" in probe)
            if "httpGet" in probe:
                assert probe["httpGet"]["port"] in ports


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_a_probe_of_the_heartbeat_gives_the_heart_time_and_itself(name: str) -> None:
    (pod,) = pods({"app.kubernetes.io/component": name})
    (box,) = pod["spec"]["template"]["spec"]["containers"]
    living, ready, first = box["livenessProbe"], box["readinessProbe"], box["startupProbe"]
    assert (
        living["exec"]["command"]
        == first["exec"]["command"]
        == ["cavendish", "alive", "--role", name]
    )
    assert ready["exec"]["command"] == [*living["exec"]["command"], "--ready"]
    assert all(probe["timeoutSeconds"] >= 2 * alive.PATIENCE for probe in (living, ready, first))
    assert living["periodSeconds"] * living["failureThreshold"] >= GONE_AFTER + 4 * EVERY


@pytest.mark.parametrize("one", POLICIES, ids=called)
def test_what_selects_pods_finds_some(one: dict[str, Any]) -> None:
    spec = one["spec"]
    chosen = spec["podSelector"]["matchLabels"] if "podSelector" in spec else spec["selector"]
    found = pods(chosen.get("matchLabels", chosen))
    assert found
    if one["kind"] == "PodDisruptionBudget":
        assert all(spec["minAvailable"] < pod["spec"]["replicas"] for pod in found)
    boxes = [box for pod in found for box in _boxes(pod)] if one["kind"] == "Service" else []
    names = {port["name"] for box in boxes for port in box["ports"]}
    assert (
        {port["targetPort"] for port in spec.get("ports", ())} == names
        if one["kind"] == "Service"
        else True
    )


def test_what_must_not_be_gone_has_two_and_a_budget() -> None:
    assert {called(one) for one in of_kind("PodDisruptionBudget")} == {
        "PodDisruptionBudget cavendish-worker",
        "PodDisruptionBudget cavendish-beat",
    }
    for name in ("worker", "beat"):
        assert pods({"app.kubernetes.io/component": name})[0]["spec"]["replicas"] == 2


def test_a_deployment_selects_its_own_pods() -> None:
    for one in WORKLOADS:
        assert pods(one["spec"]["selector"]["matchLabels"]) == [one]


def test_the_redis_of_the_component_has_the_same_settings_as_the_one_of_compose() -> None:
    assert (KUBERNETES / "components" / "redis" / "redis.conf").read_text() == (
        DEPLOY / "redis.conf"
    ).read_text()


def test_the_base_is_built_with_its_settings_in_place_and_without_a_secret() -> None:
    kinds = [one["kind"] for one in built("base")]
    assert kinds.count("Deployment") == 5
    assert "Secret" not in kinds
    names = {one["metadata"]["name"] for one in built("base") if one["kind"] == "ConfigMap"}
    used = set(re.findall(r"'name': '(cavendish-[0-9a-z]{10})'", str(built("base"))))
    assert used == names


def test_the_overlay_adds_redis_and_leaves_the_number_of_workers_to_keda() -> None:
    objects = {called(one): one for one in built("overlays/whole")}
    assert "replicas" not in objects["Deployment cavendish-worker"]["spec"]
    assert objects["Deployment cavendish-beat"]["spec"]["replicas"] == 2
    images = {
        box["image"]
        for one in objects.values()
        if one["kind"] == "Deployment"
        for box in _boxes(one)
    }
    assert images == {f"registry.example.com/{OURS}"}
    (settings,) = [
        one["data"]
        for one in objects.values()
        if one["kind"] == "ConfigMap" and "CAVENDISH_LOG_FORMAT" in one["data"]
    ]
    assert "CAVENDISH_REDIS_URL" not in settings
    for one in objects.values():
        if one["kind"] == "Deployment":
            names = [line["name"] for line in _boxes(one)[0]["env"]]
            assert names[-2:] == ["REDIS_PASSWORD", "CAVENDISH_REDIS_URL"]
    assert {
        one["metadata"].get("namespace") for one in objects.values() if one["kind"] != "Namespace"
    } == {"cavendish"}


def _boxes(one: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = one["spec"]["template"]["spec"]["containers"]
    return found


# --- KEDA: no schema of it is at hand, so its fields by hand (keda.sh/v1alpha1)

SCALED = {
    "scaleTargetRef",
    "minReplicaCount",
    "maxReplicaCount",
    "pollingInterval",
    "cooldownPeriod",
    "advanced",
    "triggers",
}


def test_keda_scales_the_workers_within_bounds_by_fields_that_it_has() -> None:
    (scaled,) = of_kind("ScaledObject")
    spec = scaled["spec"]
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    assert set(spec) == SCALED
    assert spec["scaleTargetRef"] == {"name": "cavendish-worker"}
    assert (
        pods({"app.kubernetes.io/component": "worker"})[0]["metadata"]["name"] == "cavendish-worker"
    )
    assert 2 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
    behavior = {
        "minReplicas": 1,
        "maxReplicas": 2,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"},
    }
    behavior |= spec["advanced"]["horizontalPodAutoscalerConfig"]
    hpa = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "x"},
        "spec": behavior,
    }
    kubernetes_validate.validate(hpa, RELEASES[-1], strict=True)


def test_keda_asks_prometheus_for_numbers_that_are_told() -> None:
    (scaled,) = of_kind("ScaledObject")
    triggers = scaled["spec"]["triggers"]
    assert [trigger["name"] for trigger in triggers] == [
        "pending",
        "oldest-pending",
        "due-lag",
    ]
    asked = set()
    for trigger in triggers:
        assert (trigger["type"], set(trigger)) == (
            "prometheus",
            {"type", "name", "metricType", "metadata"},
        )
        assert trigger["metricType"] in ("Value", "AverageValue")
        assert set(trigger["metadata"]) == {"serverAddress", "query", "threshold"}
        assert float(trigger["metadata"]["threshold"]) > 0
        query = trigger["metadata"]["query"]
        assert (query.count("("), query[-1]) == (query.count(")"), ")")
        asked |= set(re.findall(r"cavendish_(\w+)", query))
    assert {"webhooks_pending", "due_lag_seconds"} <= asked
    told = "\n".join(
        path.read_text()
        for path in (ROOT / "worker/cavendish_worker/telemetry/metrics").glob("*.py")
    )
    assert {
        name
        for name in asked
        if not any(
            f'"{word}"' in told
            for word in (name, f"cavendish_{name}", name.removeprefix("endpoint_"))
        )
    } == set()


def test_the_restricted_standard_is_enforced_where_it_runs() -> None:
    (namespace,) = of_kind("Namespace")
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}


def test_whatever_answers_on_a_port_may_be_reached_there_or_is_meant_not_to() -> None:
    (ours,) = [one for one in of_kind("NetworkPolicy") if one["metadata"]["name"] == "cavendish"]
    open_ports = {port["port"] for rule in ours["spec"]["ingress"] for port in rule["ports"]}
    boxes = {one["metadata"]["name"]: box for one in of_kind("Deployment") for box in _boxes(one)}
    ports = {
        name: {port["containerPort"] for port in box.get("ports", ())}
        for name, box in boxes.items()
    }
    assert ports.pop("cavendish-flower").isdisjoint(open_ports)
    assert set().union(*ports.values()) == open_ports
    for part in in_kubernetes():
        for port in re.findall(
            r"0\.0\.0\.0:(\d+)", " ".join([*part.command, *part.environment.values()])
        ):
            assert int(port) in open_ports


def test_every_kustomization_names_files_that_are_there_and_leaves_none_out() -> None:
    for folder in ("base", "components/redis", "components/keda", "overlays/whole"):
        (one,) = read(KUBERNETES / folder / "kustomization.yaml")
        named = [*one.get("resources", ()), *one.get("components", ())]
        assert all((KUBERNETES / folder / name).exists() for name in named)
        there = {path.name for path in (KUBERNETES / folder).glob("*.yaml")} - {
            "kustomization.yaml",
            "secret.example.yaml",
        }
        assert there == {name for name in named if name.endswith(".yaml")}
