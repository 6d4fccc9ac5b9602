from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from ticketsweep.cli import machine, software
from ticketsweep.cli.doctor import examine
from ticketsweep.store.paths import Storage
from ticketsweep.train.gates.kernels import choose

DOCTOR = [str(Path(sys.executable).with_name("ticketsweep")), "doctor"]


@pytest.fixture(autouse=True)
def a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for name in ("TICKETSWEEP_STORAGE", "TICKETSWEEP_DATA", "RAY_ADDRESS", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    yield
    assert not list(tmp_path.glob("ticketsweep-storage"))


def test_a_machine_that_is_well_has_no_fault_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    done = subprocess.run([*DOCTOR, "--format", "json"], capture_output=True, text=True, check=True)
    findings = json.loads(done.stdout)["findings"]
    assert {each["what"] for each in findings} == {
        "python", "packages", "torch", "torchvision", "gates", "overlaps", "compilers",
        "processors", "memory", "room", "clock", "ray", "tracking", "browser", "data", "storage",
    }  # fmt: skip
    assert all(each["state"] != "fault" for each in findings)
    assert done.stderr == ""
    assert "a key is configured: runs are online" in done.stdout
    assert "aaaa" not in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_table_fits_a_terminal_of_80_columns_and_a_fault_is_told_by_the_exit_code(
    tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TICKETSWEEP_DATA", "nowhere")
    (tmp_path / "file").write_text("")
    done = command("doctor", "--storage", "file/storage")
    assert done.code == 1
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    faults = [line.split()[1] for line in lines if line.startswith("fault")]
    assert faults == ["data", "storage"]


def test_a_broken_installation_is_examined_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(library: str) -> None:
        raise OSError(f"{library}: undefined symbol: aoti_torch_dtype_float8")

    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(torch.ops, "load_library", broken)
    faults = [each for each in examine(None) if each.state == "fault"]
    assert [each.what for each in faults] == ["torchvision", "ray"]
    assert all(each.remedy for each in faults)


def test_what_computes_gates_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert software.gates().found == "compiled for cpu by numba"
    monkeypatch.setitem(sys.modules, "numba", None)
    choose.cache_clear()
    try:
        found = software.gates()
    finally:
        choose.cache_clear()
    assert found.state == "note"
    assert found.found.startswith("plain on cpu: numba cannot be used (")


def test_versions_that_do_not_fit_are_named_with_what_wants_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert software.packages().state == "ok"
    true = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "2.9.1" if name == "torch" else true(name)
    )
    found = software.packages()
    assert found.state == "fault"
    assert "ticketsweep needs torch >=2.11, installed is 2.9.1" in found.found
    assert "torchvision needs torch >=" in found.found
    assert "uv sync" in found.remedy

    def absent(name: str) -> str:
        if name == "duckdb":
            raise importlib.metadata.PackageNotFoundError(name)
        return true(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert software.packages().found == "ticketsweep needs duckdb, which is not installed"


def test_an_online_run_without_a_key_is_a_fault_and_a_silent_server_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert software.tracking().state == "ok"
    assert "wandb login" in software.tracking().remedy
    monkeypatch.setenv("WANDB_MODE", "online")
    assert software.tracking().state == "fault"
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # discard: nobody listens
    found = software.server()
    assert (found.state, "cannot be reached" in found.found) == ("note", True)


def test_little_room_is_told_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    rooms = {str(tmp_path): 2**40, "/dev/shm": 2**40}
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(rooms.get(str(place), 2**40)))
    assert machine.room("new").state == "ok"
    rooms["/dev/shm"] = 64 * 2**20  # as in a container
    found = machine.room("new")
    assert (found.state, "64 MiB in /dev/shm" in found.found) == ("note", True)
    assert "--shm-size" in found.remedy
    rooms[str(tmp_path)] = 2**20
    assert machine.room("new").state == "fault"


def test_a_storage_is_written_to_only_if_there_is_one(tmp_path: Path) -> None:
    def found(place: str) -> tuple[str, str]:
        finding = machine.storage(place)
        return finding.state, finding.found

    assert found("new") == ("ok", "new is made by the first sweep")
    assert not (tmp_path / "new").exists()
    Storage.open("there", create=True)
    before = sorted(tmp_path.rglob("*"))
    assert found("there") == ("ok", "there can be read and written")
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    for place in ("empty", f"file://{tmp_path}/new"):
        assert found(place) == ("ok", f"{place} is made by the first sweep")
    assert not list((tmp_path / "empty").iterdir())


def test_data_is_told_with_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETSWEEP_DATA", "nowhere")
    found = machine.data()
    assert found.state == "fault"
    assert "'nowhere'" in found.found
    assert "correct it" in found.remedy
    monkeypatch.setenv("TICKETSWEEP_DATA", str(tmp_path))
    assert machine.data().found == f"nothing yet in {tmp_path}"
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    names = [Path(name).stem for name, _ in datasets.MNIST.resources]
    for name in names[1:]:
        (raw / name).touch()
    found = machine.data()
    assert (found.state, found.found.endswith(f"MNIST lacks {names[0]}")) == ("note", True)
    (raw / names[0]).touch()
    assert (machine.data().state, machine.data().found) == ("ok", f"MNIST in {tmp_path}")


def test_the_files_of_a_data_set_are_those_of_torchvision(tmp_path: Path) -> None:
    for kind in ("CIFAR10", "CIFAR100"):
        reader = getattr(datasets, kind)
        folder = tmp_path / reader.base_folder
        folder.mkdir()
        assert machine.missing_files(tmp_path)[kind]
        for name, _ in (*reader.train_list, *reader.test_list):
            (folder / name).touch()
        (folder / reader.meta["filename"]).touch()
        assert machine.missing_files(tmp_path)[kind] == []
    for kind in ("MNIST", "FashionMNIST"):
        raw = tmp_path / kind / "raw"
        raw.mkdir(parents=True)
        for name, _ in getattr(datasets, kind).resources:
            (raw / name).touch()
        assert machine.missing_files(tmp_path)[kind] == []
