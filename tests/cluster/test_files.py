"""The files of `cluster/` are what Ray, Kubernetes and Slurm take, and leave nothing open."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from ray.autoscaler import _private
from ray.autoscaler._private.util import prepare_config, validate_config

import ticketsweep

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHED = ("aws", "gcp", "local")  # by `ray up`
SCHEMA = Path(_private.__path__[0]).parent / "ray-schema.json"


def config(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    return read


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_takes_it_as_it_is_and_completed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    as_written = config(name)
    Draft7Validator(json.loads(SCHEMA.read_text())).validate(as_written)
    completed = prepare_config(as_written)
    validate_config(completed)
    assert completed["head_node_type"] in completed["available_node_types"]


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_cluster_wants_a_token_and_shows_its_dashboard_to_the_head_alone(name: str) -> None:
    written = config(name)
    assert written["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for which in ("head", "worker"):
        (start,) = [line for line in written[f"{which}_start_ray_commands"] if "ray start" in line]
        assert start.index("export RAY_AUTH_MODE=token;") < start.index("ray start")
    start = written["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start


@pytest.mark.parametrize("name", LAUNCHED)
def test_what_is_sent_to_the_machines_is_there_and_is_all_that_an_installation_reads(
    name: str,
) -> None:
    mounts = {
        Path(there).name: here
        for there, here in config(name)["file_mounts"].items()
        if there.startswith("~/ticketsweep/")
    }
    assert all((ROOT / here).exists() for here in mounts.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    assert wanted | {"ticketsweep", "search_spaces"} == set(mounts)


@pytest.mark.parametrize("name", LAUNCHED)
def test_all_machines_get_one_python_and_the_pinned_versions(name: str) -> None:
    sync = " ".join(config(name)["setup_commands"])
    assert re.search(r"uv sync .*--python 3\.\d+ .*--extra cluster", sync)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "cluster" in project["project"]["optional-dependencies"]
    for command in config(name)["setup_commands"]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_workers_in_a_cloud_start_from_none_and_go_when_idle(name: str) -> None:
    written = config(name)
    worker = written["available_node_types"]["gpu_worker"]
    assert worker["min_workers"] == 0
    assert written["idle_timeout_minutes"] <= 10
    assert written["provider"]["cache_stopped_nodes"] is False
    assert written["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert "spot" in json.dumps(worker["node_config"]).lower()
    assert "spot" not in json.dumps(written["available_node_types"]["head"]).lower()


def test_the_security_group_lets_in_nothing_but_ssh() -> None:
    from ray.autoscaler._private.aws.config import _create_default_inbound_rules

    group = config("aws")["provider"]["security_group"]
    assert "IpPermissions" not in group  # which are let in beside Ray's own, that is:
    outside = [rule for rule in _create_default_inbound_rules(["sg"]) if "IpRanges" in rule]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in outside] == [(22, 22)]


def test_the_rayjob_starts_from_no_workers_with_a_token_and_the_installed_ray() -> None:
    job, policy = yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    # Fields as KubeRay's reference of its API names them.
    assert set(job["spec"]) <= {
        "entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
        "rayClusterSpec",
    }  # fmt: skip
    cluster = job["spec"]["rayClusterSpec"]
    assert set(cluster) <= {
        "rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions",
        "headGroupSpec", "workerGroupSpecs",
    }  # fmt: skip
    assert set(cluster["autoscalerOptions"]) <= {"version", "idleTimeoutSeconds"}
    assert set(cluster["headGroupSpec"]) <= {"serviceType", "rayStartParams", "template"}
    (workers,) = cluster["workerGroupSpecs"]
    assert set(workers) <= {
        "groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template",
    }  # fmt: skip
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert (workers["replicas"], workers["minReplicas"]) == (0, 0)
    pins = (ROOT / "pyproject.toml").read_text()
    assert f'"ray=={cluster["rayVersion"]}"' in pins
    pods = [cluster["headGroupSpec"]["template"]["spec"], workers["template"]["spec"]]
    images = {container["image"] for pod in pods for container in pod["containers"]}
    assert len(images) == 1
    assert images.pop().endswith(f":{ticketsweep.__version__}")
    assert policy["kind"] == "NetworkPolicy"
    everywhere = policy["spec"]["podSelector"]
    assert everywhere == policy["spec"]["ingress"][0]["from"][0]["podSelector"]


def test_the_launcher_carries_the_version_of_its_clone() -> None:
    written = (CLUSTER / "launch.py").read_text()
    assert f'VERSION = "{ticketsweep.__version__}"' in written


def launch(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(home / "launch.py"), *arguments],
        env=os.environ | {"HOME": str(home)}, capture_output=True, text=True, cwd="/",
    )  # fmt: skip


def test_the_launcher_runs_any_command_where_the_project_lies(tmp_path: Path) -> None:
    (tmp_path / "launch.py").write_text((CLUSTER / "launch.py").read_text())
    (tmp_path / "ticketsweep" / "search_spaces").mkdir(parents=True)
    ended = launch(tmp_path, "run", "search_spaces/none.yaml")
    assert ended.returncode == 2
    assert "search_spaces/none.yaml" in ended.stderr
    assert launch(tmp_path, "list", "gates").returncode == 0


def test_the_launcher_refuses_another_version(tmp_path: Path) -> None:
    text = (CLUSTER / "launch.py").read_text()
    (tmp_path / "launch.py").write_text(text.replace(ticketsweep.__version__, "0.0.9"))
    ended = launch(tmp_path, "list", "gates")
    assert ended.returncode == 1
    assert f"got {ticketsweep.__version__} on the head and 0.0.9 here" in ended.stderr


def test_no_file_of_a_cluster_holds_a_secret_or_ends_the_users_other_rays_unasked() -> None:
    slurm = (CLUSTER / "slurm.sh").read_text()
    commands = [line for line in slurm.splitlines() if not line.lstrip().startswith("#")]
    assert not [line for line in commands if "ray stop" in line]
    for path in CLUSTER.iterdir():
        if path.suffix in (".yaml", ".sh", ".py"):
            assert not re.search(r"AKIA[0-9A-Z]{16}|api.key\s*[:=]\s*\w{20}", path.read_text())


def test_each_step_of_slurm_is_given_the_jobs_processors() -> None:
    script = (CLUSTER / "slurm.sh").read_text().replace("\\\n", "")
    steps = [line for line in script.splitlines() if line.strip().startswith("srun ")]
    assert len(steps) == 2
    assert all('--cpus-per-task="$SLURM_CPUS_PER_TASK"' in step for step in steps)


def test_the_network_policy_lets_the_submitter_and_the_operator_in() -> None:
    job, policy = yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text())
    let_in = [
        of["podSelector"]["matchLabels"]
        for rule in policy["spec"]["ingress"]
        if "ports" in rule
        for of in rule["from"]
    ]
    assert let_in == [
        {"batch.kubernetes.io/job-name": job["metadata"]["name"]},
        {"app.kubernetes.io/component": "kuberay-operator"},
    ]
