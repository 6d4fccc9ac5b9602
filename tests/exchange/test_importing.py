"""Imported masks are a trial of the database, of which no more is said than is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from ticketsweep import exchange
from ticketsweep.errors import ConfigError, ExchangeError, StorageError, SweepError
from ticketsweep.results.comparison import stability_by
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.verify import verify
from ticketsweep.store.writer import write_sweep

SHAPES = {"layers.0.weight": (16, 64), "layers.1.weight": (10, 16)}  # of fc-16 on digits
Write = Callable[..., Path]


@pytest.fixture
def level(tmp_path: Path) -> Write:
    """Writes one of open_lth's levels."""

    def write(name: str, *, seed: int = 0, shapes: dict[str, tuple[int, ...]] = SHAPES) -> Path:
        rng = np.random.default_rng(seed)
        folder = tmp_path / "files" / name
        folder.mkdir(parents=True)
        masks = {key: torch.from_numpy(rng.random(shape) < 0.4) for key, shape in shapes.items()}
        torch.save({key: mask.int() for key, mask in masks.items()}, folder / "mask.pth")
        return folder

    return write


@pytest.fixture
def checkpoint(tmp_path: Path) -> Write:
    """Writes a checkpoint of hidden-networks, linear layers being 1x1 convolutions."""

    def write(name: str, *, seed: int = 0, **entries: object) -> Path:
        generator = torch.Generator().manual_seed(seed)
        state = {
            f"linear.{2 * at}.scores": torch.randn(*shape, 1, 1, generator=generator)
            for at, shape in enumerate(SHAPES.values())
        }
        torch.save({"epoch": 1, "arch": "FC", "state_dict": state, **entries}, tmp_path / name)
        return tmp_path / name

    return write


def test_what_a_file_tells_is_stored_and_the_rest_is_null(storage: Storage, level: Write) -> None:
    files = [level("one"), level("two", seed=1)]
    found = exchange.import_masks(storage, files, sweep="lth")
    assert (found.replicates, found.stored, found.project) == (2, True, "open_lth")
    database = Database(storage)
    (trial,) = database.trials().to_pylist()
    known = {name for name, value in trial.items() if value is not None and value != []}
    assert known == {
        "sweep", "trial_id", "status", "granularity", "config", "density", "sparsity", "version",
    }  # fmt: skip
    origin = json.loads(trial["config"])["imported"]
    assert [each["file"] for each in origin["files"]] == [str(file) for file in files]
    replicates = database.replicates().to_pylist()
    for at, (file, replicate) in enumerate(zip(files, replicates, strict=True)):
        known = {name for name, value in replicate.items() if value is not None and value != []}
        assert known == {"sweep", "trial_id", "replicate", "density", "sparsity"}
        masks = torch.load(file / "mask.pth", weights_only=True)
        ticket = database.ticket(found.trial_id, at)
        assert list(ticket) == list(masks) == list(SHAPES)
        assert all(np.array_equal(ticket[name], masks[name].numpy() == 1) for name in masks)
        share = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
        assert replicate["density"] == pytest.approx(share)
    assert trial["density"] == pytest.approx(np.mean([each["density"] for each in replicates]))
    checked = verify(storage, report=lambda *_: None)
    assert (checked.sound, checked.trials) == (True, 1)


def test_what_hidden_networks_reports_is_kept_as_its_own_figure(storage, checkpoint) -> None:
    files = [checkpoint("a", curr_acc1=90.0), checkpoint("b", seed=1, curr_acc1="Not evaluated")]
    found = exchange.import_masks(storage, files, sweep="popup", prune_rate=0.25)
    database = Database(storage)
    (trial,) = database.trials().to_pylist()
    assert (trial["gate_family"], trial["strong_accuracy"]) == ("edge_popup", None)
    assert dict(trial["metrics"]) == {"reported_accuracy": 0.9}
    figures = [dict(each["metrics"]) for each in database.replicates().to_pylist()]
    assert figures == [{"reported_accuracy": 0.9}, {}]
    assert found.density == pytest.approx(0.25, abs=1e-3)


def test_a_trials_id_is_its_content(storage: Storage, level: Write, tmp_path: Path) -> None:
    one, two = level("one"), level("two", seed=1)

    def imported(*files: Path, **named: str) -> tuple[str, bool]:
        found = exchange.import_masks(storage, files, **{"sweep": "lth", **named})
        return found.trial_id, found.stored

    first, stored = imported(one)
    assert stored
    moved = one.rename(tmp_path / "elsewhere")
    assert imported(moved) == (first, False)
    assert imported(moved, sweep="other") == (first, True)
    fitted = {"model": "fc-16", "dataset": "digits"}
    others = [imported(two), imported(moved, two), imported(two, moved), imported(moved, **fitted)]
    assert all(stored for _, stored in others)
    assert len({first, *(identity for identity, _ in others)}) == 5
    assert len(Database(storage).trials("lth")) == 5


@pytest.mark.parametrize("project", ["open_lth", "hidden-networks"])
def test_masks_get_the_names_and_shapes_of_the_model(storage, level, checkpoint, project) -> None:
    file, rate = (level("one"), None) if project == "open_lth" else (checkpoint("a"), 0.5)
    plain = exchange.import_masks(storage, [file], sweep="plain", prune_rate=rate)
    fitted = exchange.import_masks(
        storage, [file], sweep="fitted", prune_rate=rate, model="fc-16", dataset="digits"
    )
    database = Database(storage)
    theirs = list(database.ticket(plain.trial_id).values())
    ours = database.ticket(fitted.trial_id)
    assert {name: mask.shape for name, mask in ours.items()} == {
        "fc1.weight": (16, 64),
        "fc2.weight": (10, 16),
    }
    for mask, other in zip(ours.values(), theirs, strict=True):
        assert np.array_equal(mask.reshape(other.shape), other)
    assert list(fitted.layers) == list(ours)
    (row,) = database.trials("fitted").to_pylist()
    assert (row["model"], row["dataset"]) == ("fc-16", "digits")


def test_imported_masks_are_compared_with_ones_own(storage, level, run_small) -> None:
    run_small(storage, {"model": "fc-16"}, "own")
    exchange.import_masks(storage, [level("one")], sweep="lth", model="fc-16", dataset="digits")
    answer = Database(storage).sql(
        "select a.layer, avg(mask_jaccard(a.bits, b.bits)) as jaccard from masks a join masks b "
        "using (layer) where a.sweep = 'own' and b.sweep = 'lth' group by 1 order by 1"
    )
    assert answer["layer"].to_pylist() == ["fc1.weight", "fc2.weight"]
    assert all(0 < each < 1 for each in answer["jaccard"].to_pylist())


@pytest.mark.parametrize(
    ("named", "complaint"),
    [
        ({"model": "fc-16"}, "--model and --dataset go together"),
        ({"dataset": "digits"}, "--model and --dataset go together"),
        (
            {"model": "fc-17", "dataset": "digits"},
            r"do not fit model fc-17: it has fc1.weight 17x64",
        ),
        ({"model": "fc-16-16", "dataset": "digits"}, r"fit model .* \(3 layers\), .* \(2 layers\)"),
        ({"sweep": "../x"}, "sweep's name must be"),
        ({"model": "fc_16", "dataset": "digits"}, "must be a model this version has"),
    ],
)
def test_a_wrong_request_is_refused_and_leaves_nothing(storage, level, named, complaint) -> None:
    with pytest.raises((ExchangeError, StorageError, ConfigError), match=complaint):
        exchange.import_masks(storage, [level("one")], **{"sweep": "s", **named})
    assert len(Database(storage).trials()) == 0


def test_files_of_one_trial_must_agree(storage: Storage, level: Write, checkpoint: Write) -> None:
    one = level("one")
    wide = level("wide", shapes={**SHAPES, "layers.0.weight": (17, 64)})
    with pytest.raises(ExchangeError, match=r"has other layers than .*one: layers.0.weight"):
        exchange.import_masks(storage, [one, wide], sweep="s")
    with pytest.raises(ExchangeError, match=r"--prune-rate is for checkpoints"):
        exchange.import_masks(storage, [checkpoint("a"), one], sweep="s", prune_rate=0.5)
    with pytest.raises(ExchangeError, match=r"there must be a file"):
        exchange.import_masks(storage, [], sweep="s")


def test_a_sweep_that_was_run_takes_no_imports(storage: Storage, level: Write) -> None:
    row = {"sweep": "s", "created_at": datetime(2026, 1, 1, tzinfo=UTC), "samples": 3, "seed": 0}
    write_sweep(storage, {**row, "objectives": {"val_accuracy": "max"}})
    with pytest.raises(SweepError, match="sweep s was run here"):
        exchange.import_masks(storage, [level("one")], sweep="s")


def test_stability_says_that_it_does_not_know_the_seeds(storage: Storage, level: Write) -> None:
    exchange.import_masks(storage, [level("one"), level("two", seed=1)], sweep="lth")
    database, told = Database(storage), []
    rows = database.trials().to_pylist()
    for layer in (None, "layers.0.weight"):
        assert stability_by(database, rows, keys=[], layer=layer, warn=told.append) == {}
    assert len(told) == 2
    assert all("it was imported, and which seeds differ" in line for line in told)


def test_an_imported_ticket_leaves_as_masks_but_not_with_weights(storage, level, tmp_path) -> None:
    found = exchange.import_masks(storage, [level("one")], sweep="lth")
    database = Database(storage)
    with pytest.raises(ExchangeError, match=r"was imported, and its weights are not in"):
        exchange.ticket(database, found.trial_id)
    masks = exchange.stored_masks(database, exchange.choose(database, found.trial_id))
    exchange.export(masks, "masks", tmp_path / "masks")
    exchange.export(masks, "coo", tmp_path / "coo")
    assert masks.about["imported"]["project"] == "open_lth"
    assert "init_seed" not in masks.about


def test_files_of_the_projects_themselves_fit_lenet(
    storage, foreign: Path, real_data: Path
) -> None:
    named = {"model": "lenet-300-100", "dataset": "mnist"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TICKETSWEEP_DATA", str(real_data))
        exchange.import_masks(storage, [foreign / "open_lth/level_3"], sweep="lth", **named)
        exchange.import_masks(
            storage,
            [foreign / "hidden-networks/initial.state"],
            sweep="popup",
            prune_rate=0.5,
            **named,
        )
    kept = Database(storage).sql("select sweep, layer, kept from masks order by 1, layer_index")
    lth, popup = kept["kept"].to_pylist()[:3], kept["kept"].to_pylist()[3:]
    assert kept["layer"].to_pylist() == ["fc1.weight", "fc2.weight", "fc3.weight"] * 2
    assert (sum(lth), popup) == (136291, [117600, 15000, 500])
    assert verify(storage, report=lambda *_: None).sound
