"""A Ray cluster of several nodes on this machine, each of which can be killed by itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from ray.autoscaler._private.fake_multi_node import node_provider as fake_multi_node
from ray.util import get_node_ip_address

RAY = Path(sys.executable).with_name("ray")
ADDRESS = "127.0.0.1"
AUTOSCALING = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
OBJECT_STORE = 10**8  # bytes of each node
# Ray names them after their class, or their method while it runs.
TRIAL_WORKERS = ("ray::TrialWorker", "ray::ResourceTrainable")


def environment(root: Path) -> dict[str, str]:
    """That of every process of the cluster, and of who joins it."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TICKETSWEEP_"))}
    return plain | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(root / "token"),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "OMP_NUM_THREADS": "1",
    }


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("", 0))
        return int(listening.getsockname()[1])


def descendants(of: int) -> dict[int, str]:
    """The processes below one, or in its session, with their command lines."""
    above: dict[int, set[int]] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            names[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
            above[int(folder.name)] = {int(stat[1]), int(stat[3])}  # its parent, its session
    below, fresh = set[int](), {of}
    while fresh:
        fresh = {pid for pid, over in above.items() if over & fresh} - below - {of}
        below |= fresh
    return {pid: names[pid] for pid in below}


def send(number: int, *processes: int) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Node:
    """A running node: `ray start`, which stays, and all that it has started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    @property
    def workers(self) -> list[int]:
        """The processes of this node that hold a trial."""
        below = descendants(self.process.pid).items()
        return [pid for pid, name in below if name.startswith(TRIAL_WORKERS)]

    def kill(self) -> None:
        """As a machine whose plug is pulled: no process of it does anything more."""
        below = descendants(self.process.pid)
        send(signal.SIGSTOP, *below)  # so that none sees another one go
        send(signal.SIGKILL, self.process.pid, *below)
        self.process.wait()

    def drain(self, cluster: Raylets, seconds: int) -> None:
        """Warn that the machine will be taken back, as clouds that Ray knows do. Takes seconds."""
        (raylet,) = (
            name for name in descendants(self.process.pid).values() if "raylet/raylet" in name
        )
        identity = next(word for word in raylet.split("\0") if word.startswith("--node_id="))
        subprocess.run(
            [str(RAY), "drain-node", f"--address={cluster.address}",
             f"--node-id={identity.partition('=')[2]}",
             "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=taken back",
             f"--deadline-remaining-seconds={seconds}"],
            env=environment(cluster.root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            check=True,
        )  # fmt: skip


class Raylets(contextlib.AbstractContextManager["Raylets"]):
    """A head without processors for trials, and nodes that join it one by one.

    Parameters
    ----------
    root: a folder with a short path, since Ray's sockets lie below it.
    autoscaled: at most so many nodes of one processor are started for what waits, by Ray's own
        autoscaler, and ended when they have had nothing to do for some seconds.
    """

    def __init__(self, root: Path, *, autoscaled: int = 0) -> None:
        self.root, self.nodes = root, list[Node]()
        self._autoscaled = autoscaled
        token = root / "token"
        token.write_text("0123456789abcdef" * 4)
        token.chmod(0o600)
        self._log = (root / "ray.log").open("ab")
        for _ in range(3):  # another process may take the port before Ray does
            self.port = free_port()
            self._head = self._start(
                "--head", f"--port={self.port}", f"--temp-dir={root}/ray", "--num-cpus=0",
                "--include-dashboard=false", f"--ray-client-server-port={free_port()}",
                *([f"--autoscaling-config={self._autoscaling()}"] if autoscaled else []),
            )  # fmt: skip
            if self._is_up():
                return
            self._head.kill()
        raise RuntimeError((root / "ray.log").read_text())

    def _autoscaling(self) -> Path:
        """A cluster whose machines are processes: Ray's own provider of them for tests.

        (Under its own name it wants a file that Ray's wheels lack, and `AutoscalingCluster` of
        `ray.cluster_utils` ends every Ray on this machine first.)
        """
        nothing: dict[str, object] = {"auth": {}, "docker": {}, "file_mounts": {}}
        commands = ("initialization", "setup", "head_setup", "worker_setup")
        starts = ("head_start_ray", "worker_start_ray")
        nothing |= {f"{name}_commands": [] for name in (*commands, *starts)}
        nothing |= {name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")}
        small = {"object_store_memory": OBJECT_STORE}
        types = {
            "ray.head.default": {"resources": {"CPU": 0, **small}, "node_config": {}},
            "worker": {"resources": {"CPU": 1, **small}, "node_config": {}},
        }
        config = nothing | {
            "cluster_name": "tests",
            "max_workers": self._autoscaled,
            "provider": {
                "type": "external",
                "module": f"{fake_multi_node.__name__}.FakeMultiNodeProvider",
                "gcs_address": f"{get_node_ip_address()}:{self.port}",
                "launch_multiple": True,
                "disable_node_updaters": True,
                "use_node_id_as_ip": True,
            },
            "available_node_types": {
                name: {**kind, "min_workers": 0, "max_workers": self._autoscaled}
                for name, kind in types.items()
            },
            "head_node_type": "ray.head.default",
            "upscaling_speed": 1.0,
            "idle_timeout_minutes": 0.1,
            "file_mounts_sync_continuously": False,
        }
        path = self.root / "autoscaling.yaml"
        path.write_text(json.dumps(config))  # which is YAML, too
        return path

    def _is_up(self) -> bool:
        until = time.monotonic() + 120
        while self._head.process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError):
                socket.create_connection((ADDRESS, self.port), 1).close()
                return True
            time.sleep(0.1)
        return False

    def __exit__(self, *exception: object) -> None:
        for node in [*self.nodes, self._head]:
            node.kill()
        self._log.close()

    @property
    def address(self) -> str:
        return f"{ADDRESS}:{self.port}"

    def join(self, cpus: int = 1) -> Node:
        """One more node."""
        self.nodes.append(self._start(f"--address={self.address}", f"--num-cpus={cpus}"))
        return self.nodes[-1]

    def lose(self, node: Node) -> None:
        """One node less, from one moment to the next."""
        self.nodes.remove(node)
        node.kill()

    @property
    def head_processes(self) -> dict[int, str]:
        return descendants(self._head.process.pid)

    def _start(self, *arguments: str) -> Node:
        command = [
            str(RAY), "start", *arguments, "--block", f"--node-ip-address={ADDRESS}",
            "--num-gpus=0", f"--object-store-memory={OBJECT_STORE}", "--disable-usage-stats",
            "--min-worker-port=0", "--max-worker-port=0",
            f"--dashboard-agent-listen-port={free_port()}",
        ]  # fmt: skip
        # On a busy machine a node may take longer to start than Ray waits for it.
        again = 'for _ in 1 2 3 4 5; do "$@" && exit; done'
        process = subprocess.Popen(
            ["bash", "-c", again, "node", *command], stdout=self._log, stderr=self._log, cwd="/",
            start_new_session=True,
            env=environment(self.root) | (AUTOSCALING if self._autoscaled else {}),
        )  # fmt: skip
        return Node(process)
