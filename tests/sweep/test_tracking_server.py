"""W&B with a server that works, fails and comes back; drivers that are killed; a full disk."""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ticketsweep.sweep.tracking.wandb_files import last_step, records, run_files

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(200)]

HERE = Path(__file__).parent
KEY = "0123456789abcdef0123456789abcdef01234567"
STEPS = list(range(10, 100, 10))
Server = runpy.run_path(str(HERE / "wandb_server.py"))["Server"]
FAULTS = (
    ("hangs", 0),
    ("is slow", 0),
    ("resets", 6),
    ("hangs", 9),
    ("errors", 14),
)  # after so many


@pytest.fixture
def server() -> Iterator[Any]:
    running = Server()
    yield running
    assert running.mistakes == []
    running.heal()
    running.shutdown()
    running.server_close()


def environment(url: str, *, key: str | None = KEY) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    known |= {"WANDB_BASE_URL": url, "NETRC": "/nowhere"}
    return known | ({"WANDB_API_KEY": key} if key else {})


def drive(
    storage: Path,
    url: str,
    *,
    mode: str = "online",
    trials: int = 3,
    die_after: int | None = None,
    key: str | None = KEY,
) -> dict[str, list[str]]:
    """What the driver says, by the first word; its standard error must be empty."""
    given = [str(storage), mode, "wandb", str(trials)] + ([str(die_after)] if die_after else [])
    done = subprocess.run(
        [sys.executable, str(HERE / "tracked.py"), *given],
        env=environment(url, key=key),
        cwd=HERE.parents[1],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == (-9 if die_after else 0), done.stderr
    assert done.stderr == ""
    assert KEY not in done.stdout
    said: dict[str, list[str]] = {"warning": []}
    for line in done.stdout.splitlines():
        said.setdefault(line.split(" ")[0], []).append(line.partition(" ")[2])
    return said


def upload(command: str, url: str) -> None:
    """What the driver says to type."""
    given = shlex.split(command)
    assert given[:2] == ["wandb", "sync"]
    wandb = Path(sys.executable).with_name("wandb")
    subprocess.run(
        [wandb, *given[1:]],
        env=environment(url),
        cwd=given[-1],
        check=True,
        capture_output=True,
        timeout=60,
    )


def steps(rows: list[dict[str, Any]], *, again: bool) -> list[int]:
    found = [row["_step"] for row in rows if "loss/mean" in row]
    return sorted(set(found)) if again else found


def check_complete(server: Any, *, again: bool = False) -> None:
    """Every step of every trial is there once and in order, with its ending, in one run.

    Parameters
    ----------
    again: lines may be there twice: `wandb sync` sends all of a run whose upload was given up, also
        what had arrived.
    """
    ids = [f"s-{index:016x}" for index in range(3)]
    assert set(server.runs) == {"s", *ids}
    for name, status, code in zip(ids, ("complete", "stopped", "failed"), (0, 0, 1), strict=True):
        run = server.runs[name]
        assert steps(run.rows, again=again) == STEPS, name
        assert run.summary["status"] == status
        assert run.exit_code == code
    assert server.runs["s"].summary["trials/complete"] == 1
    assert server.runs["s"].exit_code == 0


def test_rows_summaries_and_artifacts_arrive(server: Any, tmp_path: Path) -> None:
    said = drive(tmp_path / "storage", server.url)
    assert said["warning"] == []
    assert said["upload"] == [""]
    check_complete(server)
    run = server.runs["s-0000000000000000"]
    assert run.about["groupName"] == "s"
    assert run.about["tags"] == ["fc-16", "digits", "gaussian"]
    assert run.config["gate.l0_strength"]["value"] == 1
    assert run.summary["undecided"] == 0.25
    assert server.runs["s"].about["jobType"] == "sweep"
    kinds = [artifact["artifactTypeName"] for artifact in server.artifacts]
    assert kinds.count("masks") == 2
    manifests = [text for name, text in server.files.items() if name.startswith("manifest")]
    masks = (tmp_path / "storage/masks/sweep=s/0000000000000000.parquet").as_uri()
    assert any(masks.encode() in text for text in manifests)
    assert not any(name.endswith(".parquet") for name in server.files)


def suffer(root: Path, fault: str, after: int) -> None:
    server = Server(fault, after)
    began = time.monotonic()
    said = drive(root / "storage", server.url)
    assert time.monotonic() - began < 100
    assert float(said["told"][0]) < 5
    assert len(said["warning"]) <= 1
    server.heal()
    if said["upload"] == [""]:
        assert fault == "is slow"
    else:
        assert "offline" in said["warning"][0]
        upload(said["upload"][0], server.url)
    check_complete(server, again=fault == "is slow")
    server.shutdown()
    server.server_close()
    assert server.mistakes == []


def test_whatever_the_server_does_nothing_hangs_and_a_sync_completes_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:  # they wait, each for its own server
        suffering = {
            (fault, after): pool.submit(suffer, tmp_path / f"{fault}-{after}", fault, after)
            for fault, after in FAULTS
        }
    errors = {fault: each.exception() for fault, each in suffering.items()}
    assert {fault: repr(error) for fault, error in errors.items() if error} == {}


@pytest.mark.parametrize("key", [KEY, None], ids=["with a key", "without a key"])
def test_without_a_server_everything_is_recorded_offline(
    server: Any, key: str | None, tmp_path: Path
) -> None:
    said = drive(tmp_path / "storage", "http://127.0.0.1:9", key=key)
    assert float(said["told"][0]) < 5
    assert len(said["warning"]) == 1
    assert "offline" in said["warning"][0]
    for file in (tmp_path / "storage/tracking").rglob("*"):
        assert file.is_dir() or KEY.encode() not in file.read_bytes(), file
    upload(said["upload"][0], server.url)
    check_complete(server)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_driver_that_is_killed_goes_on_in_the_same_runs(
    server: Any, tmp_path: Path, mode: str
) -> None:
    storage = tmp_path / "storage"
    drive(storage, server.url, mode=mode, die_after=4)
    if mode == "offline":
        files = run_files(storage / "tracking")["s-0000000000000002"]
        assert [last_step(file) for file in files] == [40]
    said = drive(storage, server.url, mode=mode)
    assert said["warning"] == []
    if mode == "offline":
        upload(said["upload"][0], server.url)
    else:
        assert said["upload"] == [""]
    check_complete(server)


def test_what_a_full_disk_did_not_take_is_said_and_told_again(server: Any, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    folder = storage / "tracking"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small file system")
    try:
        (folder / "filler").write_bytes(bytes(200 * 1024))
        said = drive(storage, server.url, mode="offline")
        (warning,) = said["warning"]
        assert "added when it is run again" in warning
        left = shutil.copytree(folder, tmp_path / "left")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    (left / "filler").unlink()
    shutil.copytree(left, folder, dirs_exist_ok=True)
    again = drive(storage, server.url, mode="offline")
    assert again["warning"] == []
    for index in range(2):  # the failed one has no stored curve
        files = run_files(folder)[f"s-{index:016x}"]
        found = [r for f in files for r in records(f) if r.WhichOneof("record_type") == "history"]
        assert len(found) >= len(STEPS)
        assert max(map(last_step, files)) >= STEPS[-1]
