from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import scipy.sparse
import torch

from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.train.models import build_model

SHAPES = {"a.weight": (16, 64), "b.weight": (10, 16)}  # of fc-16 on digits


@pytest.fixture
def trial_id(stored: Path) -> str:
    (row,) = Database(Storage.open(str(stored), create=False)).trials().to_pylist()
    return str(row["trial_id"])


@pytest.fixture
def level(tmp_path: Path) -> Path:
    """A folder as open_lth's levels are."""
    rng = np.random.default_rng(0)
    (tmp_path / "level_2").mkdir()
    masks = {name: torch.from_numpy(rng.random(shape) < 0.4) for name, shape in SHAPES.items()}
    torch.save({name: m.int() for name, m in masks.items()}, tmp_path / "level_2/mask.pth")
    return tmp_path / "level_2"


def test_the_best_ticket_of_a_sweep_is_one_line(command, stored, trial_id, tmp_path):
    line = ["masks", "export", "--best", "single", "--out", "ticket.safetensors"]
    ended = command(*line, "--storage", stored)
    assert (ended.code, ended.out) == (0, "")
    assert f"of trial {trial_id} (fc-16, test accuracy " in ended.err
    assert ended.err.endswith("written to ticket.safetensors\n")
    model = build_model("fc-16", input_shape=(1, 8, 8), classes=10)
    model.load_state_dict(safetensors.torch.load_file(tmp_path / "ticket.safetensors"))
    again = command(*line, "--storage", stored)
    assert (again.code, again.out) == (2, "")
    assert again.err == "Error: ticket.safetensors is there already (--force replaces it)\n"
    assert command(*line, "--storage", stored, "--force").code == 0


@pytest.mark.parametrize("what", ["prune", "masks", "coo", "csr"])
def test_every_format_is_written_and_replaced_whole(command, stored, trial_id, tmp_path, what):
    line = ["masks", "export", trial_id[:6], "--replicate", 2, "--format", what, "--out", "x"]
    assert command(*line, "--storage", stored).code == 0
    if what in ("coo", "csr"):
        (tmp_path / "x/old.npz").write_text("")
    assert command(*line, "--storage", stored, "--force").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    if what in ("coo", "csr"):
        names = {path.name for path in (tmp_path / "x").iterdir()}
        assert names == {"fc1.weight.npz", "fc2.weight.npz", "ticket.json"}
        assert scipy.sparse.load_npz(tmp_path / "x/fc1.weight.npz").format == what
        assert json.loads((tmp_path / "x/ticket.json").read_text())["replicate"] == 2
    else:
        assert "fc1.weight_mask" in safetensors.torch.load_file(tmp_path / "x")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--out", "x"], "needs either TRIAL or --best SWEEP"),
        (["ID", "--best", "single", "--out", "x"], "needs either TRIAL or --best SWEEP"),
        (["ID", "--min-sparsity", 0.5, "--out", "x"], "--min-sparsity goes with --best"),
        (["0000", "--out", "x"], "no trial of storage"),
        (["--best", "sinlge", "--out", "x"], "did you mean 'single'?"),
        (["--best", "single", "--min-sparsity", 0.999, "--out", "x"], "the sparsest is"),
        (["ID", "--replicate", 4, "--out", "x"], "must be one of 0, 1, 2, 3 of trial"),
        (["ID", "--out", "nowhere/x"], "there is no folder nowhere"),
        (["ID", "--out", "folder"], "folder is a folder, but this format is one file"),
        (["ID", "--out", "folder", "--format", "csr"], "folder is there already"),
        (["ID", "--out", "folder", "--format", "csr", "--force"], "no export made it"),
        (["ID", "--out", "x", "--set", "train.steps=1"], "a setting has changed since"),
        (["ID", "--out", "x", "--set", "trian.steps=1"], "did you mean 'train'?"),
        (["ID", "--out", "x", "--storage", "nowhere"], "storage nowhere does not exist"),
    ],
)
def test_a_wrong_export_is_refused_and_leaves_nothing(
    command, stored, trial_id, tmp_path, arguments, complaint
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine.txt").write_text("mine")
    storage = [] if "--storage" in arguments else ["--storage", stored]
    given = [trial_id if each == "ID" else each for each in arguments]
    ended = command("masks", "export", *given, *storage)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err
    assert "Traceback" not in ended.err
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "mine.txt"]


@pytest.mark.parametrize("what", ["masks", "csr"])
def test_a_disk_that_is_full_leaves_what_was_there(
    command, stored, trial_id, tmp_path, monkeypatch, what
):
    line = ["masks", "export", trial_id, "--format", what, "--out", "x", "--storage", stored]
    assert command(*line).code == 0
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    ended = command(*line, "--force")
    assert ended.code == 2
    assert ended.err == "Error: x cannot be written: [Errno 28] No space left on device\n"
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_imported_masks_stand_beside_ones_own(command, level):
    line = ["masks", "import", level, level, "--sweep", "lth", "--storage", "st"]
    first = command(*line, "--model", "fc-16", "--dataset", "digits", "--format", "json")
    assert first.code == 0
    found = json.loads(first.out)
    assert (found["replicates"], found["stored"], found["project"]) == (2, True, "open_lth")
    assert found["layers"] == {"fc1.weight": "a.weight", "fc2.weight": "b.weight"}
    plain = command(*line)
    assert f"of sweep lth stored: {found['project']}, replicates 2" in plain.out
    assert "was stored already" in command(*line).out

    assert ": sound" in command("masks", "verify", "--storage", "st").out
    assert "sparsity" in command("status", "--storage", "st").out
    assert found["trial_id"][:8] in command("status", "lth", "--storage", "st").out
    asked = command("stability", "lth", "--storage", "st")
    assert (asked.code, "nothing to compare" in asked.out) == (0, True)
    assert "it was imported, and which seeds differ" in asked.err
    query = "select sum(kept) as n from masks where layer like 'fc%' group by replicate"
    assert command("query", query, "--storage", "st", "--format", "csv").code == 0

    export = ["masks", "export", found["trial_id"], "--storage", "st", "--out"]
    refused = command(*export, "x")
    assert (refused.code, "its weights are not in the database" in refused.err) == (2, True)
    assert command(*export, "masks", "--format", "masks").code == 0
    assert command(*export, "csr", "--format", "csr").code == 0


def test_a_sweep_is_not_run_among_imported_masks(command, level, tmp_path):
    assert command("masks", "import", level, "--sweep", "lth", "--storage", "st").code == 0
    (tmp_path / "space.yaml").write_text(
        "model: fc-4\ngate: {l0_strength: {uniform: [0.5, 2.0]}}\ntrain: {steps: 2}\n"
        "sweep: {name: lth, samples: 1}\n"
    )
    ended = command("run", "space.yaml", "--storage", "st")
    assert ended.code == 2
    assert "sweep lth holds imported masks" in ended.err


def test_a_wrong_import_is_refused_in_one_line(command, level, tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Path.cwd))
    torch.save({"state_dict": {"fc.scores": torch.randn(4, 4)}}, tmp_path / "popup.pth")
    for files, complaint in [
        (["nothing.pth"], "cannot be read"),
        (["evil.pth"], "evil.pth is refused"),
        (["popup.pth"], "--prune-rate is needed"),
        (["popup.pth", "--prune-rate", 2], "must lie in (0, 1]"),
        (["popup.pth", "--prune-rate", 0.5, "--model", "fc-16"], "go together"),
        ([level, "--sweep", ".x"], "sweep's name"),
    ]:
        sweep = [] if "--sweep" in files else ["--sweep", "s"]
        ended = command("masks", "import", *files, *sweep, "--storage", "st")
        assert (ended.code, ended.out) == (2, ""), files
        assert complaint in ended.err
        assert ended.err.startswith("Error: ")
        assert ended.err.count("\n") == 1
    assert not list((tmp_path / "st").rglob("*.parquet"))
