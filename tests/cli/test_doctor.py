from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ticketsweep.cli.doctor import examine
from ticketsweep.store.paths import Storage
from ticketsweep.train.gates.kernels import choose

DOCTOR = [str(Path(sys.executable).with_name("ticketsweep")), "doctor"]


@pytest.fixture(autouse=True)
def a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for name in ("TICKETSWEEP_STORAGE", "TICKETSWEEP_DATA", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    yield
    assert not list(tmp_path.glob("ticketsweep-storage"))


def found(storage: str | None = None) -> dict[str, tuple[str, str, str]]:
    return {each.what: (each.state, each.found, each.remedy) for each in examine(storage)}


def test_a_machine_that_is_well_has_no_fault_and_nothing_is_written() -> None:
    done = subprocess.run([*DOCTOR, "--format", "json"], capture_output=True, text=True, check=True)
    findings = json.loads(done.stdout)["findings"]
    assert {each["what"] for each in findings} == {
        "python", "torch", "torchvision", "gates", "overlaps", "memory", "ray", "tracking", "data",
        "storage",
    }  # fmt: skip
    assert all(each["state"] != "fault" for each in findings)
    assert done.stderr == ""


def test_a_table_fits_a_terminal_of_80_columns_and_a_fault_is_told_by_the_exit_code(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [*DOCTOR, "--storage", "file/storage"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "fault" in done.stdout
    assert "--storage" in done.stdout


def test_what_computes_gates_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found()["gates"] == ("ok", "compiled for cpu by numba", "")
    monkeypatch.setitem(sys.modules, "numba", None)
    choose.cache_clear()
    try:
        state, what, _ = found()["gates"]
    finally:
        choose.cache_clear()
    assert state == "note"
    assert what.startswith("plain on cpu: numba cannot be used (")


def test_a_storage_is_written_to_only_if_there_is_one(tmp_path: Path) -> None:
    assert found("new")["storage"][:2] == ("ok", "new is made by the first sweep")
    assert not (tmp_path / "new").exists()
    Storage.open("there", create=True)
    before = sorted(tmp_path.rglob("*"))
    assert found("there")["storage"] == ("ok", "there can be read and written", "")
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    for place in ("empty", f"file://{tmp_path}/new"):
        assert found(place)["storage"][:2] == ("ok", f"{place} is made by the first sweep")
    assert not list((tmp_path / "empty").iterdir())


def test_data_that_is_named_and_not_there_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKETSWEEP_DATA", "nowhere")
    state, what, remedy = found()["data"]
    assert state == "fault"
    assert "'nowhere'" in what
    assert "correct it" in remedy
    (tmp_path / "MNIST").mkdir()
    monkeypatch.setenv("TICKETSWEEP_DATA", str(tmp_path))
    assert found()["data"] == ("ok", f"MNIST in {tmp_path}", "")
