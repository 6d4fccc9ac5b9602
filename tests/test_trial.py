from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ticketsweep import trial
from ticketsweep.config import TrialConfig, parse_config
from ticketsweep.errors import DataError, ModelError, StorageError, UserError
from ticketsweep.planning import identify, load_data
from ticketsweep.progress import Alive, Progress, StageProgress
from ticketsweep.store.checkpoints import CheckpointFile
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import unpack_mask
from ticketsweep.train import learning
from ticketsweep.train.data import Dataset, load_dataset
from ticketsweep.train.sources import source_digest
from ticketsweep.trial import TrialOutcome, run_trial


@pytest.fixture(scope="module")
def digits() -> Dataset:
    torch.set_num_threads(1)
    return load_dataset("digits", data_root=Path())


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(str(tmp_path / "storage"), create=True)


def small(**changes: object) -> TrialConfig:
    raw = {
        "model": "fc-16",
        "dataset": "digits",
        "weight_scale": 1.5,
        "rewind_step": 5,
        "train": {"steps": 60, "batch_size": 64},
        "replicates": {"init": 2, "data": 2, "gate": 1},
    }
    return parse_config(raw | changes, source="test")


def finish(
    config: TrialConfig, digits: Dataset, storage: Storage, *, sweep: str = "s", **how: object
) -> tuple[TrialOutcome, list[Progress]]:
    trial = run_trial(config, dataset=digits, storage=storage, sweep=sweep, **how)
    seen = []
    while True:
        try:
            report = next(trial)
        except StopIteration as stop:
            return stop.value, seen
        if isinstance(report, Progress):
            seen.append(report)


def files(storage: Storage) -> set[str]:
    assert storage.local is not None
    return {p.relative_to(storage.local).as_posix() for p in storage.local.rglob("*.parquet*")}


@pytest.fixture(scope="module")
def done(
    digits: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Storage, TrialOutcome, list[Progress]]:
    storage = Storage.open(str(tmp_path_factory.mktemp("done")), create=True)
    return (storage, *finish(small(), digits, storage, search='{"params": {}}'))


def test_a_trial_is_stored_with_every_row_it_should_have(done) -> None:
    storage, outcome, progress = done
    database = Database(storage)
    (row,) = database.trials("s").to_pylist()
    assert not outcome.reused
    assert row["status"] == "complete"
    assert row["steps_done"] == 60
    assert row["search"] == '{"params": {}}'
    assert len(database.replicates("s")) == 4
    assert len(database.masks("s")) == 4 * 2
    assert database.curves("s")["step"].unique().to_pylist() == [p.step for p in progress]
    assert len(database.curves("s")) == 4 * len(progress)
    assert (progress[-1].step, progress[-1].steps) == (60, 60)
    assert json.loads(row["config"]) == small().model_dump(mode="json")
    assert row["wall_seconds"] > dict(row["metrics"])["train_seconds"] > 0


def test_stored_figures_are_those_of_the_stored_masks(done) -> None:
    storage, outcome, _ = done
    database = Database(storage)
    (row,) = database.trials("s").to_pylist()
    replicates = database.replicates("s").to_pylist()
    for replicate in replicates:
        masks = [
            unpack_mask(m["bits"], m["shape"])
            for m in database.masks("s").to_pylist()
            if m["replicate"] == replicate["replicate"]
        ]
        kept = sum(m.sum() for m in masks) / sum(m.size for m in masks)
        assert replicate["density"] == pytest.approx(kept, abs=1e-6)
        assert replicate["sparsity"] == pytest.approx(1 - kept, abs=1e-6)
    for name in ("val_accuracy", "strong_accuracy", "density", "sparsity"):
        assert row[name] == pytest.approx(np.mean([r[name] for r in replicates]), abs=1e-9)
        assert outcome.row[name] == row[name]
    for name in ("loss", "undecided"):
        mean = np.mean([r[name] for r in replicates])
        assert dict(row["metrics"])[name] == pytest.approx(mean, abs=1e-9)


def test_stability_is_the_overlap_of_tickets_with_the_same_init(done) -> None:
    storage, outcome, _ = done
    database = Database(storage)
    rows = sorted(database.masks("s").to_pylist(), key=lambda m: m["layer_index"])
    inits = {r["replicate"]: r["init_seed"] for r in database.replicates("s").to_pylist()}
    masks: dict[int, list[np.ndarray]] = {}
    for row in rows:
        masks.setdefault(row["replicate"], []).append(unpack_mask(row["bits"], row["shape"]))
    pairs = [(a, b) for a in masks for b in masks if a < b and inits[a] == inits[b]]
    assert len(pairs) == 2
    scores = []
    for a, b in pairs:
        layers = list(zip(masks[a], masks[b], strict=True))
        chance = [x.sum() * y.sum() / x.size for x, y in layers]
        beyond = sum((x & y).sum() - c for (x, y), c in zip(layers, chance, strict=True))
        most = sum(min(x.sum(), y.sum()) - c for (x, y), c in zip(layers, chance, strict=True))
        scores.append(beyond / most)
    assert outcome.row["stability"] == pytest.approx(np.mean(scores), abs=1e-9)


def test_the_same_trial_twice_finds_the_same_masks_bit_for_bit(
    done, digits: Dataset, storage: Storage
) -> None:
    finish(small(), digits, storage, sweep="again")
    first, second = (Database(s).masks().drop_columns(["sweep"]) for s in (done[0], storage))
    assert first.sort_by([("layer", "ascending"), ("replicate", "ascending")]).equals(
        second.sort_by([("layer", "ascending"), ("replicate", "ascending")])
    )


def test_a_stored_trial_is_not_trained_again(done, digits: Dataset) -> None:
    storage, outcome, _ = done
    again, progress = finish(small(), digits, storage)
    assert again.reused
    assert progress == []
    assert again.row["started_at"] == outcome.row["started_at"]
    assert len(Database(storage).trials("s")) == 1


def test_a_trial_of_another_sweep_is_copied_with_all_its_rows(
    digits: Dataset, storage: Storage
) -> None:
    config = small(replicates={"init": 1, "data": 1, "gate": 1})
    finish(config, digits, storage, sweep="first", search="a")
    copy, progress = finish(config, digits, storage, sweep="second", search="b")
    assert copy.reused
    assert progress == []
    assert copy.row["search"] == "b"
    database = Database(storage)
    for table in (database.masks, database.replicates, database.curves):
        theirs, ours = (table(sweep).drop_columns(["sweep"]) for sweep in ("first", "second"))
        assert len(ours) > 0
        assert ours.equals(theirs)


def test_a_trial_whose_source_is_damaged_is_trained(digits: Dataset, storage: Storage) -> None:
    config = small(replicates={"init": 1, "data": 1, "gate": 1})
    finish(config, digits, storage, sweep="first")
    path = Path(storage.trial_file("curves", "first", identify(config, digits)))
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF  # in a page: the footer stays sound
    path.write_bytes(content)
    outcome, progress = finish(config, digits, storage, sweep="second")
    assert not outcome.reused
    assert progress


def test_a_single_replicate_has_no_stability(digits: Dataset, storage: Storage) -> None:
    outcome, _ = finish(small(replicates={"init": 1, "data": 1, "gate": 1}), digits, storage)
    assert outcome.stability is None
    assert outcome.row["stability"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_scale": 1000.0, "model": "fc-" + "-".join(["64"] * 24)},
        {"rewind_step": 9, "pretrain": {"lr": 1000.0}, "model": "fc-" + "-".join(["64"] * 24)},
    ],
    ids=["forward", "pre-training"],
)
def test_a_trial_that_diverges_is_stored_as_failed(
    digits: Dataset, storage: Storage, changes: dict[str, object]
) -> None:
    config = small(**changes)
    outcome, _ = finish(config, digits, storage)
    (row,) = Database(storage).trials("s").to_pylist()
    assert row["status"] == outcome.row["status"] == "failed"
    assert "diverged" in row["error"]
    assert dict(row["metrics"]) == {"failures": 1.0}
    assert len(Database(storage).masks("s")) == 0
    finish(config, digits, storage, failures=1)
    (row,) = Database(storage).trials("s").to_pylist()
    assert dict(row["metrics"]) == {"failures": 2.0}
    ok, _ = finish(small(seed=1), digits, storage)
    assert ok.row["status"] == "complete"


def test_what_a_trial_raises_is_stored_in_one_line(digits: Dataset, storage: Storage) -> None:
    classes = dataclasses.replace(digits, classes=3)  # labels up to 9: torch refuses them
    outcome, _ = finish(small(), classes, storage)
    assert outcome.row["status"] == "failed"
    error = str(outcome.row["error"])
    assert error.startswith("RuntimeError: index ")
    assert "\n" not in error


@pytest.mark.parametrize(
    ("gate", "columns"),
    [
        ({"family": "hard_concrete"}, (1.0, 2 / 3, 2 / 3)),
        ({"family": "sigmoid", "l0_strength": 2}, (2.0, 1.0, 0.005)),
        ({"family": "edge_popup", "density": 0.2}, (None, None, None)),
        ({"family": "magnitude", "rounds": 3}, (None, None, None)),
        ({"family": "random", "density": 0.2}, (None, None, None)),
    ],
    ids=lambda value: value.get("family") if isinstance(value, dict) else "",
)
def test_every_family_is_stored_whole(
    digits: Dataset, storage: Storage, gate: dict[str, object], columns: tuple[float | None, ...]
) -> None:
    config = small(gate=gate)
    outcome, progress = finish(config, digits, storage)
    database = Database(storage)
    (row,) = database.trials("s").to_pylist()
    steps = 0 if config.gate.family == "random" else 60
    assert (row["status"], row["gate_family"]) == ("complete", config.gate.family)
    assert (row["l0_strength"], row["temperature"], row["temperature_end"]) == columns
    assert row["steps_done"] == steps
    assert set(database.masks("s")["step"].to_pylist()) == {steps}
    assert len(database.masks("s")) == 4 * 2
    assert len(database.curves("s")) == 4 * len(progress)
    assert outcome.stability is not None
    again, _ = finish(config, digits, storage)
    assert again.reused


def test_pruned_weights_are_trained_as_in_pretraining(digits: Dataset, storage: Storage) -> None:
    """`train.lr`, its optimizer and its schedule are the gates', and there are none."""
    magnitude = {"family": "magnitude", "rounds": 2}
    masks = []
    for number, changes in enumerate(
        [
            {},
            {"train": {"steps": 60, "batch_size": 64, "lr": 1.0, "optimizer": "sgd"}},
            {"pretrain": {"lr": 0.1}},
        ]
    ):
        config = small(gate=magnitude, rewind_step=0, **changes)
        finish(config, digits, storage, sweep=f"s{number}")
        masks.append(Database(storage).masks(f"s{number}")["digest"].to_pylist())
    assert masks[0] == masks[1] != masks[2]


def test_the_data_lies_in_data_root_or_in_the_environments_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    monkeypatch.setenv("TICKETSWEEP_DATA", str(there))
    for config, folder in [
        (small(dataset="mnist", data_root=str(here)), here),
        (small(dataset="mnist"), there),
    ]:
        with pytest.raises(DataError, match=f"must name a folder that exists, got '{folder}'"):
            load_data(config)
    assert list(tmp_path.iterdir()) == []
    assert load_data(small(data_root=str(here))).name == "digits"  # which needs no folder


def test_a_users_mistake_is_raised_and_not_stored(digits: Dataset, storage: Storage) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="device must be auto or cpu here, got 'cuda'"):
        finish(small(device="cuda"), digits, storage)
    assert files(storage) == set()


def test_a_trial_has_the_first_of_the_gpus_that_are_visible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert trial._devices("cuda", 1) == ["cuda"]  # torch's own choice, which is the first
    assert trial._devices("cuda", 2) == ["cuda:0", "cuda:1"]
    assert trial._devices("cpu", 2) == ["cpu"]


def test_a_storage_that_breaks_in_mid_trial_is_named(digits: Dataset, storage: Storage) -> None:
    trial = run_trial(small(), dataset=digits, storage=storage, sweep="s")
    next(trial)
    assert storage.local is not None
    shutil.rmtree(storage.local / "replicates")
    (storage.local / "replicates").write_text("no folder")
    with pytest.raises(StorageError, match=r"cannot write .*/replicates/"):
        for _ in trial:
            pass
    assert len(Database(storage).trials()) == 0


def test_a_trial_that_is_dropped_leaves_nothing(digits: Dataset, storage: Storage) -> None:
    trial = run_trial(small(), dataset=digits, storage=storage, sweep="s")
    next(trial)
    trial.close()
    assert files(storage) == set()


def test_a_trial_that_was_cut_off_goes_on_from_its_checkpoint(
    done, digits: Dataset, storage: Storage
) -> None:
    """With the masks that it would have had, and nothing left behind."""
    config = small(checkpoint_seconds=0)
    trial = run_trial(config, dataset=digits, storage=storage, sweep="s")
    seen = []
    while len(seen) < 4:
        report = next(trial)
        seen += [report] if isinstance(report, Progress) else []
    trial.close()
    checkpoint = CheckpointFile(storage, identify(config, digits))
    assert checkpoint.read() is not None
    trained: list[int] = []
    original = learning.training_batches

    def record(*args: object, first: int, **named: object) -> object:
        trained.append(first)
        return original(*args, first=first, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "training_batches", record)
        outcome, progress = finish(config, digits, storage)
    assert trained == [seen[-1].step]
    assert progress[:4] == seen
    assert checkpoint.read() is None
    first, again = (Database(where).masks("s").to_pylist() for where in (done[0], storage))
    assert [mask["digest"] for mask in again] == [mask["digest"] for mask in first]
    assert outcome.row["val_accuracy"] == done[1].row["val_accuracy"]


def test_a_damaged_checkpoint_costs_time_and_nothing_else(
    done, digits: Dataset, storage: Storage
) -> None:
    CheckpointFile(storage, identify(small(), digits)).write(b"not a checkpoint")
    finish(small(), digits, storage)
    first, again = (Database(where).masks("s").to_pylist() for where in (done[0], storage))
    assert [mask["digest"] for mask in again] == [mask["digest"] for mask in first]


def test_every_stage_leaves_its_figures_with_each_replicate(
    digits: Dataset, storage: Storage
) -> None:
    config = small(
        weights="joint",
        retrain={"steps": 10, "batch_size": 32},
        controls=["random_mask", "shuffled_mask", "reinitialized"],
    )
    trial = run_trial(config, dataset=digits, storage=storage, sweep="s")
    stages = []
    while True:
        try:
            report = next(trial)
        except StopIteration as stop:
            outcome = stop.value
            break
        if isinstance(report, StageProgress) and report.stage not in stages:
            stages.append(report.stage)
    assert stages == [
        "pretrain",
        "retrained",
        "dense",
        "pretrain-reinitialized",
        "shuffled_mask_retrained",
        "reinitialized_retrained",
        "random_mask_retrained",
    ]
    (row,) = Database(storage).trials("s").to_pylist()
    replicates = Database(storage).replicates("s").to_pylist()
    controls = ("shuffled_mask", "reinitialized", "random_mask")
    for name in ("joint", "retrained", "dense", *controls):
        assert all(0 <= replicate[f"{name}_accuracy"] <= 1 for replicate in replicates)
        figures = [replicate[f"{name}_accuracy"] for replicate in replicates]
        assert dict(row["metrics"])[f"{name}_accuracy"] == pytest.approx(np.mean(figures))
        assert f"{name}_val_accuracy" in dict(replicates[0]["metrics"])
    for name in controls:
        assert f"{name}_retrained_accuracy" in dict(replicates[0]["metrics"])
    assert dict(row["metrics"])["diverged"] == 0.0
    assert outcome.row["status"] == "complete"


def test_masks_of_units_are_stored_one_bit_a_unit(digits: Dataset, storage: Storage) -> None:
    config = small(gate={"granularity": "neuron", "inputs": True})
    finish(config, digits, storage)
    database = Database(storage)
    shapes = {mask["layer"]: mask["shape"] for mask in database.masks("s").to_pylist()}
    assert shapes == {"input": [1, 8, 8], "fc1.weight": [16]}
    (row,) = database.trials("s").to_pylist()
    kept = {
        layer: sum(m["kept"] for m in database.masks("s").to_pylist() if m["layer"] == layer) / 4
        for layer in shapes
    }
    assert row["granularity"] == "neuron"
    assert 0 < kept["fc1.weight"] <= 16
    assert row["density"] <= kept["fc1.weight"] / 16 + 1e-9


def test_ones_own_model_is_another_trial_when_its_source_changes(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    ids = []
    for number, source in enumerate(("# one", "# two", "# one")):
        Path(f"mynet{number}.py").write_text(source)
        ids.append(identify(small(model=f"mynet{number}:net"), digits))
    assert len(set(ids)) == 3  # the name is part of it
    Path("parquet.py").write_text("# a module may have the name of a folder's scheme")
    before = identify(small(model="parquet:net"), digits)
    source_digest.cache_clear()
    Path("parquet.py").write_text("# changed")
    assert identify(small(model="parquet:net"), digits) != before
    source_digest.cache_clear()
    Path("mynet0.py").write_text("# changed")
    assert identify(small(model="mynet0:net"), digits) != ids[0]
    with pytest.raises(ModelError, match="absent:net cannot be imported"):
        identify(small(model="absent:net"), digits)


def test_execution_does_not_change_the_id_and_science_does(digits: Dataset) -> None:
    own = identify(small(), digits)
    assert identify(small(device="cpu", data_root="/elsewhere"), digits) == own
    assert identify(small(seed=1), digits) != own


def test_the_stored_file_says_what_it_is(done) -> None:
    storage, outcome, _ = done
    path = storage.trial_file("trials", "s", str(outcome.row["trial_id"]))
    assert pq.read_metadata(path).metadata[b"ticketsweep.table"] == b"trials"


def test_a_trial_shows_signs_of_life_while_its_storage_is_away(
    digits: Dataset, storage: Storage
) -> None:
    root = storage.local
    assert root is not None
    root.rename(root.with_name("away"))
    trial = run_trial(small(), dataset=digits, storage=storage, sweep="s", patience=60)
    report = next(trial)
    assert isinstance(report, Alive)
    assert "is away" in report.waiting
    root.with_name("away").rename(root)
    assert isinstance(next(trial), (Progress, StageProgress))
    trial.close()
