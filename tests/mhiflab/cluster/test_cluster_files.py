"""The templates of clusters: valid for their readers, guarded by a token, bound to no wide address.

KubeRay's own schema was not at hand offline; its manifest is checked by the structure that we know.
"""

import copy
import ipaddress
import re

import pytest
import yaml
from jsonschema import ValidationError
from places import ROOT
from ray.autoscaler._private.util import prepare_config, validate_config

from mhiflab.cluster.doctor import locked_versions

LAUNCHER = [ROOT / "cluster.yaml", ROOT / "experiments" / "clusters" / "aws.yaml"]
KUBERAY = ROOT / "experiments" / "clusters" / "kuberay.yaml"
HOST = re.compile(r"--(?:dashboard-)?host[= ](\S+)")
OWN = {"$head", "$(POD_IP)"}
"""A node's own address on the cluster's network, as the shell or Kubernetes puts it in."""


@pytest.mark.parametrize("path", LAUNCHER, ids=lambda p: p.stem)
def test_launcher_files_are_valid_and_unknown_keys_are_not(path):
    config = yaml.safe_load(path.read_text())
    validate_config(prepare_config(copy.deepcopy(config)))
    with pytest.raises(ValidationError, match="head_start_commands"):
        validate_config(prepare_config({**config, "head_start_commands": []}))
    del config["provider"]["type"]
    with pytest.raises((ValidationError, KeyError)):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("path", LAUNCHER, ids=lambda p: p.stem)
def test_launcher_files_start_guarded_nodes(path):
    config = yaml.safe_load(path.read_text())
    starts = [
        words
        for part in ("head_start_ray_commands", "worker_start_ray_commands")
        for words in config[part]
        if "ray start" in words
    ]
    assert len(starts) == 2
    for words in starts:
        assert "RAY_AUTH_MODE=token" in words
        assert "--disable-usage-stats" in words
        assert "PATH=/opt/mhiflab/bin" in words
    assert "~/.ray/auth_token" in config["file_mounts"]


@pytest.mark.parametrize("path", [*LAUNCHER, KUBERAY], ids=lambda p: p.stem)
def test_no_server_binds_to_every_address(path):
    text = path.read_text()
    hosts = [host.strip(",\"'") for host in HOST.findall(text.replace("--host, ", "--host "))]
    hosts += re.findall(r"dashboard-host: (\S+)", text)
    assert len(hosts) >= 2
    for host in hosts:
        assert host in OWN or ipaddress.ip_address(host).is_loopback
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert "0.0.0.0" not in code
    assert not re.search(r"postgresql://\w+:\w+@|password", code)


def test_kuberay_manifest_has_the_structure_that_kuberay_reads():
    documents = list(yaml.safe_load_all(KUBERAY.read_text()))
    kinds = {(d["apiVersion"], d["kind"]): d for d in documents}
    assert len(documents) == 6
    claims = {d["metadata"]["name"] for d in documents if d["kind"] == "PersistentVolumeClaim"}
    cluster = kinds["ray.io/v1", "RayCluster"]["spec"]
    assert set(cluster) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert cluster["rayVersion"] == locked_versions()["ray"]
    assert f"rayproject/ray:{locked_versions()['ray']}" in KUBERAY.read_text()
    head = cluster["headGroupSpec"]
    ports = {p["name"]: p["containerPort"] for p in only_container(head)["ports"]}
    assert ports == {"gcs-server": 6379, "dashboard": 8265}
    for group in (head, *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        container = only_container(group)
        values = {e["name"]: e.get("value") or e["valueFrom"] for e in container["env"]}
        assert values["RAY_AUTH_MODE"] == "token"
        secret = {"name": "mhiflab-token", "key": "auth_token"}
        assert values["RAY_AUTH_TOKEN"] == {"secretKeyRef": secret}
        assert values["RAY_USAGE_STATS_ENABLED"] == "0"
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["volumeMounts"] == [{"name": "lab", "mountPath": "/shared"}]
        (volume,) = group["template"]["spec"]["volumes"]
        assert volume["name"] == "lab"
        assert volume["persistentVolumeClaim"]["claimName"] in claims
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    server = only_container(kinds["apps/v1", "Deployment"]["spec"])
    service = kinds["v1", "Service"]
    uri = next(
        e["value"] for e in only_container(head)["env"] if e["name"] == "MLFLOW_TRACKING_URI"
    )
    port = server["ports"][0]["containerPort"]
    assert uri == f"http://{service['metadata']['name']}:{port}"
    assert service["spec"]["ports"][0]["port"] == port
    labels = kinds["apps/v1", "Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels


def only_container(group: dict) -> dict:
    (container,) = group["template"]["spec"]["containers"]
    return container
