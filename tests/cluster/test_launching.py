"""`ray up`, `ray submit`, `ray job submit` and `ray down` for real, over ssh to this machine.

`cluster/local.yaml` is launched as it is, but for addresses, ports and the installation. The head's
home is a folder; its `ray` adds ports and a folder of our own, and its `ray stop` ends what uses
that folder, where Ray's would end every Ray on the machine.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.sweep.reaper import reap

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
MISSING = [name for name in ("rsync", "nc", "ssh", "ssh-keygen") if shutil.which(name) is None]
SECRETS = {  # as someone has them in the environment of the head
    "WANDB_API_KEY": "0123456789planted" * 2 + "wandb0",
    "AWS_SECRET_ACCESS_KEY": "planted-secret-of-a-cloud",
    "AWS_SESSION_TOKEN": "planted-session-of-a-cloud",
    "POSTGRES_PASSWORD": "planted-password-of-a-database",
}
SHIM = """#!/usr/bin/env bash
case $1 in
stop) exec {python} -c 'from pathlib import Path; from ticketsweep.sweep.reaper import reap
reap(Path("{folder}"), spare=0)' ;;
start) exec {ray} "$@" --temp-dir={folder} --port={gcs} --dashboard-port={dashboard} \
--object-manager-port=0 --dashboard-agent-listen-port={agent} --ray-client-server-port={client} \
--num-cpus=2 --num-gpus=0 --object-store-memory=100000000 ;;
*) exec {ray} "$@" ;;
esac
"""
SSHD_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {root}/host_key
AuthorizedKeysFile {root}/key.pub
PidFile {root}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv HOME={root}/home
"""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("", 0))
        return int(listening.getsockname()[1])


class Laptop:
    """Where a user sits; the machine that is reached by ssh is this one."""

    def __init__(self, root: Path) -> None:
        self.root, self.home = root, root / "laptop"
        self.dashboard = free_port()
        self.ray_folder = root / "ray"
        self.seen: list[str] = []

    @property
    def cluster(self) -> str:
        return str(self.root / "local.yaml")

    def ray(self, *arguments: str, seconds: float = 280) -> str:
        """Ray's command line, from the clone's root; what it said, which must be a success."""
        ended = subprocess.run(
            [str(RAY), *arguments], cwd=ROOT, env=self.environment(), timeout=seconds, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    def environment(self) -> dict[str, str]:
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TICKETSWEEP_"))}
        return {
            **plain,
            "HOME": str(self.home),
            "RAY_AUTH_MODE": "token",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        }

    @property
    def token(self) -> str:
        return (self.home / ".ray" / "auth_token").read_text().strip()

    def write_cluster(self, port: int) -> None:
        written = yaml.safe_load((ROOT / "cluster" / "local.yaml").read_text())
        token, installation, path = written["setup_commands"]
        assert "uv sync" in installation
        written |= {
            "cluster_name": self.root.name,
            "provider": {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []},
            "auth": {
                "ssh_user": getpass.getuser(),
                "ssh_private_key": str(self.root / "key"),
                "ssh_proxy_command": f"nc 127.0.0.1 {port}",
            },
            "setup_commands": [token, f"cp -r {self.root}/venv ~/ticketsweep/.venv", path],
        }
        Path(self.cluster).write_text(yaml.safe_dump(written))

    def write_installation(self) -> None:
        """What stands in for the head's virtual environment."""
        folder = self.root / "venv" / "bin"
        folder.mkdir(parents=True)
        gcs = free_port()
        shim = SHIM.format(
            python=sys.executable, ray=RAY, folder=self.ray_folder, gcs=gcs,
            dashboard=self.dashboard, agent=free_port(), client=free_port(),
        )  # fmt: skip
        # `auto` is the only Ray of a machine; this one may have others.
        plain = f"""#!/usr/bin/env bash
export RAY_ADDRESS=${{RAY_ADDRESS:-127.0.0.1:{gcs}}}
exec {sys.executable} "$@"
"""
        for name, text in (("ray", shim), ("python", plain)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        exports = [f"export {name}={value}\n" for name, value in SECRETS.items()]
        home = self.root / "home"
        home.mkdir()
        # What runs is what `ray up` has sent.
        exports += ["export OMP_NUM_THREADS=1\n", f"export PYTHONPATH={home}/ticketsweep\n"]
        (home / ".bash_profile").write_text("".join(exports))

    def secrets(self) -> dict[str, bytes]:
        return {name: value.encode() for name, value in SECRETS.items()} | {
            "Ray's token": self.token.encode()
        }

    def watch_processes(self, stop: threading.Event) -> None:
        """Write down every process that has a secret on its command line."""
        while not stop.wait(0.2):
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    said = (process / "cmdline").read_bytes()
                    found = [name for name, value in self.secrets().items() if value in said]
                    self.seen += [f"{name}: {said!r}" for name in found]


@pytest.fixture
def laptop() -> Iterator[Laptop]:
    if SSHD is None or MISSING:
        pytest.skip(f"needs {', '.join(['sshd'] * (SSHD is None) + MISSING)}")
    root = Path(tempfile.mkdtemp(prefix="tl-", dir="/tmp"))  # short: Ray's sockets lie below
    made, port = Laptop(root), free_port()
    for name in ("key", "host_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name)], check=True
        )
    (root / "sshd_config").write_text(SSHD_CONFIG.format(port=port, root=root))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd gives up its rights
    made.home.mkdir()
    made.write_installation()
    made.write_cluster(port)
    with (root / "sshd.log").open("wb") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(root / "sshd_config")], stderr=log)
    try:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.1)
        yield made
    finally:
        reap(made.ray_folder, spare=os.getpid())
        server.terminate()
        server.wait()
        for left in (Path(tempfile.gettempdir()) / "ray").glob(f"cluster-{root.name}.*"):
            left.unlink()
        shutil.rmtree(root)


def status_of(url: str, token: str | None) -> int:
    request = urllib.request.Request(url)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def statuses(storage: Path) -> list[str]:
    rows = Database(Storage.open(str(storage), create=False)).trials("quickstart").to_pylist()
    return [row["status"] for row in rows]


def files_with(secrets: dict[str, bytes], folder: Path, but: set[Path]) -> list[str]:
    """Every file that holds a secret."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path not in but:
            content = path.read_bytes()
            found += [f"{name}: {path}" for name, value in secrets.items() if value in content]
    return found


@pytest.mark.exhaustive
def test_a_cluster_is_started_used_in_both_ways_and_ended_and_tells_no_secret(
    laptop: Laptop,
) -> None:
    storage = laptop.root / "storage"
    sweep = ["run", "search_spaces/quickstart.yaml", "--set", "train.steps=40", "--set",
             "replicates.init=2", "--set", "replicates.data=2", "--storage", str(storage),
             "--wandb", "offline"]  # fmt: skip

    laptop.ray("get-auth-token", "--generate")
    laptop.ray("up", "-y", "--no-config-cache", laptop.cluster)

    home = laptop.root / "home"
    assert (home / ".ray" / "auth_token").read_text() == laptop.token
    assert stat.S_IMODE((home / ".ray" / "auth_token").stat().st_mode) == 0o600
    api = f"http://127.0.0.1:{laptop.dashboard}"
    assert status_of(f"{api}/api/jobs/", None) == 401
    assert status_of(f"{api}/api/jobs/", laptop.token) == 200

    stop = threading.Event()
    watching = threading.Thread(target=laptop.watch_processes, args=[stop])
    watching.start()
    try:
        # By ssh.
        said = laptop.ray(
            "submit", "--no-config-cache", laptop.cluster, "cluster/launch.py", "--", *sweep,
            "--samples", "3",
        )  # fmt: skip
        assert "quickstart: 3 of 3 trials complete" in said
        assert statuses(storage) == ["complete"] * 3

        # By the dashboard's address, which `ray dashboard` brings to the laptop; it goes on.
        said = laptop.ray(
            "job", "submit", "--address", api, "--working-dir", "cluster", "--",
            "python", "launch.py", *sweep, "--samples", "4",
        )  # fmt: skip
        assert "resuming: 3 of 4 trials already stored" in said
        assert statuses(storage) == ["complete"] * 4
    finally:
        stop.set()
        watching.join()

    allowed = {laptop.home / ".ray" / "auth_token", home / ".ray" / "auth_token"}
    allowed |= {home / ".bash_profile"}
    assert files_with(laptop.secrets(), laptop.root, allowed) == []
    assert laptop.seen == []

    laptop.ray("down", "-y", laptop.cluster)
    assert not laptop.ray_folder.exists()
