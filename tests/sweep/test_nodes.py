"""Machines of a cluster that differ: real Ray nodes, each in namespaces of its own.

A machine is a network namespace with an address, a host name and a view of the disk of its own, so
that what lies on it can differ from what the driver has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ticketsweep
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.sweep.nodes import differences, look

RAY = Path(sys.executable).with_name("ray")
TICKETSWEEP = [sys.executable, "-c", "from ticketsweep.cli import main; main()"]
NETWORK = f"10.231.{os.getpid() % 250}"
QUICK = """
model: fc-16
dataset: digits
weight_scale: {uniform: [1.0, 2.0]}
train: {steps: 40, batch_size: 64}
sweep: {name: s, samples: 500}
"""


def test_one_environment_does_not_differ_from_itself(tmp_path: Path) -> None:
    seen = look(None)
    assert differences(seen.versions, look(tmp_path).versions) == []
    assert set(seen.versions) >= {"Python", "ticketsweep", "ray", "torch", "optuna"}


def test_a_difference_names_both_versions() -> None:
    own = look(None).versions
    assert differences(own, {**own, "torch": "2.0.0"}) == [f"torch 2.0.0 (driver: {own['torch']})"]
    (changed,) = differences(own, {**own, "sources": "00000000"})
    assert changed.startswith(f"ticketsweep {ticketsweep.__version__} with other sources 00000000")
    # Other versions have other sources: that need not be said.
    assert differences(own, {**own, "ticketsweep": "9", "sources": "00000000"}) == [
        f"ticketsweep 9 (driver: {ticketsweep.__version__})"
    ]


def test_a_build_for_the_cpu_goes_with_one_for_cuda() -> None:
    assert not any("+" in version for version in look(None).versions.values())


def environment(**more: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TICKETSWEEP_"))}
    return {**plain, "RAY_AUTH_MODE": "token", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", **more}


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("", 0))
        return int(listening.getsockname()[1])


@dataclasses.dataclass
class Machines:
    """A head node on this machine, and others that are started one by one."""

    root: Path
    port: int
    stack: contextlib.ExitStack

    @property
    def address(self) -> str:
        return f"{NETWORK}.1:{self.port}"

    def start(self, *arguments: str, inside: str = "", cpus: int = 1) -> subprocess.Popen[bytes]:
        """A node that runs until the end; `inside` is what a shell does first."""
        command = [
            str(RAY), "start", *arguments, "--block", f"--num-cpus={cpus}", "--num-gpus=0",
            "--object-store-memory=100000000", "--disable-usage-stats",
            f"--dashboard-agent-listen-port={free_port()}",
        ]  # fmt: skip
        line = f"exec {inside} {shlex.join(command)}"
        log = self.stack.enter_context((self.root / "ray.log").open("ab"))
        process = subprocess.Popen(
            ["bash", "-c", line], stdout=log, stderr=log, cwd="/", env=environment(
                RAY_AUTH_TOKEN_PATH=str(self.root / "token"), OMP_NUM_THREADS="1"
            ), start_new_session=True,
        )  # fmt: skip
        self.stack.callback(end, process)
        return process

    def machine(self, name: str, number: int, mounts: str) -> None:
        """Another machine: `mounts` is done to its view of the disk before Ray starts there."""
        namespace = f"ts{os.getpid()}-{number}"
        outer, inner = f"ts{os.getpid() % 10**6}o{number}", f"ts{os.getpid() % 10**6}i{number}"
        for step in (
            f"ip netns add {namespace}",
            f"ip link add {outer} type veth peer name {inner} netns {namespace}",
            f"ip link set {outer} master {bridge()} up",
            f"ip -n {namespace} addr add {NETWORK}.{number}/24 dev {inner}",
            f"ip -n {namespace} link set {inner} up",
            f"ip -n {namespace} link set lo up",
        ):
            subprocess.run(step.split(), check=True)
            if "netns add" in step:
                self.stack.callback(subprocess.run, ["ip", "netns", "delete", namespace])
        setup = f"hostname {name}; {mounts}"
        self.start(
            f"--address={self.address}", f"--node-ip-address={NETWORK}.{number}",
            inside=f"ip netns exec {namespace} unshare --mount --uts bash -c "
            + shlex.quote(f'{setup}; exec "$0" "$@"'),
        )  # fmt: skip

    def run(self, storage: Path) -> subprocess.Popen[str]:
        (self.root / "space.yaml").write_text(QUICK)
        process = subprocess.Popen(
            [*TICKETSWEEP, "run", "space.yaml", "--address", self.address,
             "--storage", str(storage), "--wandb", "off"],
            cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(RAY_AUTH_TOKEN_PATH=str(self.root / "token"), OMP_NUM_THREADS="1"),
        )  # fmt: skip
        self.stack.callback(end, process)
        return process


def bridge() -> str:
    return f"tsbr{os.getpid() % 10**7}"


def end(process: subprocess.Popen[Any]) -> None:
    process.terminate()  # Ray, blocking, then ends all of its node
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def why_not() -> str:
    """Why no machines can be made here; empty if they can."""
    if not all(map(shutil.which, ("ip", "unshare"))):
        return "ip (iproute2) and unshare are wanted"
    try:
        probe = ["ip", "netns", "exec", "probe", "unshare", "--mount", "--uts", "true"]
        subprocess.run(["ip", "netns", "add", "probe"], check=True, capture_output=True)
        try:
            subprocess.run(probe, check=True, capture_output=True)
            add = ["ip", "link", "add", bridge(), "type", "bridge"]
            subprocess.run(add, check=True, capture_output=True)
            subprocess.run(["ip", "link", "delete", bridge()], check=True)
        finally:
            subprocess.run(["ip", "netns", "delete", "probe"])
    except subprocess.CalledProcessError as error:
        return f"namespaces are not allowed here: {error.stderr.decode().strip()}"
    return ""


@pytest.fixture
def machines() -> Iterator[Machines]:
    if reason := why_not():
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="tn-", dir="/tmp"))  # short: Ray's sockets lie below
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        subprocess.run(["ip", "link", "add", bridge(), "type", "bridge"], check=True)
        stack.callback(subprocess.run, ["ip", "link", "delete", bridge()])
        subprocess.run(["ip", "addr", "add", f"{NETWORK}.1/24", "dev", bridge()], check=True)
        subprocess.run(["ip", "link", "set", bridge(), "up"], check=True)
        (root / "token").write_text("0123456789abcdef" * 4)
        (root / "token").chmod(0o600)
        for name in ("shared", "private"):
            (root / name).mkdir()
        made = Machines(root, free_port(), stack)
        made.start(
            "--head", f"--port={made.port}", f"--node-ip-address={NETWORK}.1",
            f"--temp-dir={root}/ray", "--include-dashboard=false",
            f"--ray-client-server-port={free_port()}",
        )  # fmt: skip
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                socket.create_connection((f"{NETWORK}.1", made.port), 1).close()
                break
            time.sleep(0.1)
        yield made


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)


def hosts(storage: Path) -> set[str]:
    """Where the committed trials ran."""
    if not (storage / "trials").exists():
        return set()
    rows = Database(Storage.open(str(storage), create=False)).trials("s").to_pylist()
    return {str(row["host"]) for row in rows}


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_machines_that_differ_from_the_driver_are_refused_by_name(machines: Machines) -> None:
    root, package = machines.root, Path(ticketsweep.__file__).parent
    machines.machine("second", 2, f"mount -t tmpfs none {root}/private")

    # A folder that means another one there.
    refused = machines.run(root / "private" / "storage")
    _, err = refused.communicate(timeout=200)
    assert refused.returncode == 2, err
    (said,) = [line for line in err.splitlines() if "--storage must" in line]
    assert f"node {NETWORK}.2 has another folder" in said
    assert f"{root}/private/storage (give s3://BUCKET/PREFIX" in said
    assert "Traceback" not in err
    assert not list((root / "private").rglob("*.tmp"))

    # A folder that all share: every machine trains.
    running = machines.run(root / "shared")
    wait_for(lambda: hosts(root / "shared") >= {"second", socket.gethostname()}, 200)

    # A machine whose ticketsweep is another joins.
    changed = root / "seeds.py"
    changed.write_text((package / "seeds.py").read_text() + "# changed\n")
    machines.machine("third", 3, f"mount --bind {changed} {package}/seeds.py")
    _, err = running.communicate(timeout=200)
    assert running.returncode == 2, err
    version = ticketsweep.__version__
    expected = f"node {NETWORK}.3 must have the driver's versions, got ticketsweep {version} with"
    assert expected in err
    assert "Traceback" not in err
    rows = Database(Storage.open(str(root / "shared"), create=False)).trials("s").to_pylist()
    assert {row["status"] for row in rows} == {"complete"}
    assert not list((root / "shared").rglob("*.tmp"))
