"""An exported ticket is the one that the database knows: it scores just what stands there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import scipy.sparse
import torch
from torch import nn
from torch.nn.utils import prune

from ticketsweep import exchange
from ticketsweep.config import FAMILY_FORMATS, TrialConfig
from ticketsweep.errors import ExchangeError
from ticketsweep.exchange.forms import Ticket
from ticketsweep.planning import identify, load_data
from ticketsweep.store.checkpoints import CheckpointFile
from ticketsweep.store.database import Database
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.data import Dataset
from ticketsweep.train.models import build_model

KINDS = ["frozen", "rewound", "joint", "units", "norms", "unit-norms", "convolutions", "bf16"]
Trials = tuple[Database, dict[str, str]]


@pytest.fixture(scope="module")
def tickets(trials: Trials) -> dict[str, Ticket]:
    database, ids = trials
    assert list(ids) == KINDS
    return {kind: exchange.ticket(database, ids[kind], replicate=1) for kind in KINDS}


def plain_model(config: TrialConfig, dataset: Dataset) -> nn.Module:
    return build_model(
        config.model,
        input_shape=dataset.input_shape,
        classes=dataset.classes,
        width=config.width,
        activation=config.activation,
    ).eval()


def accuracy_of(model: nn.Module, dataset: Dataset, about: dict[str, Any]) -> float:
    """With nothing of the package's but the images: what a stranger would write."""
    mean, std = (torch.tensor(json.loads(about[key])) for key in ("pixel_mean", "pixel_std"))
    pixels = torch.from_numpy(np.array(dataset.test_images)).float()
    images = (pixels - mean[:, None, None]) / std[:, None, None]
    is_bf16 = about["precision"] == "bf16"
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16):
        predicted = torch.cat([model(batch).argmax(dim=1) for batch in images.split(100)])
    assert len(predicted.unique()) > 1  # else any network would score alike
    return float((predicted.numpy() == dataset.test_labels).mean())


def config_of(database: Database, trial_id: str) -> TrialConfig:
    (row,) = [r for r in database.trials().to_pylist() if r["trial_id"] == trial_id]
    return TrialConfig.model_validate_json(row["config"])


def strong_accuracies(database: Database, trial_id: str) -> list[float]:
    rows = database.replicates(trial=trial_id).sort_by("replicate")
    return rows["strong_accuracy"].to_pylist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_exported_model_scores_just_what_the_database_says(
    trials: Trials, tickets: dict[str, Ticket], tmp_path: Path, kind: str
) -> None:
    database, ids = trials
    config, out = config_of(database, ids[kind]), tmp_path / "ticket.safetensors"
    ticket = tickets[kind]
    exchange.export(ticket, "safetensors", out)
    dataset = load_data(config)
    model = plain_model(config, dataset)
    model.load_state_dict(safetensors.torch.load_file(out))
    with safetensors.safe_open(out, framework="pt") as file:
        about = file.metadata()
    accuracy = accuracy_of(model, dataset, about)
    assert accuracy == strong_accuracies(database, ids[kind])[1]
    assert (float(about["test_accuracy"]), ticket.notes) == (accuracy, ())
    assert (about["trial_id"], about["replicate"]) == (ids[kind], "1")
    assert list(tmp_path.iterdir()) == [out]


def test_lenet_on_mnist_scores_just_what_the_database_says(
    real_data: Path, storage, run_small, tmp_path: Path
) -> None:
    settings = {
        "model": "lenet-300-100",
        "dataset": "mnist",
        "data_root": str(real_data),
        "rewind_step": 5,
        "train": {"steps": 25, "batch_size": 64},
        "replicates": {"init": 1, "data": 1, "gate": 1},
    }
    database, trial_id = Database(storage), run_small(storage, settings, "mnist")
    ticket = exchange.ticket(database, trial_id, replicate=0)
    config = config_of(database, trial_id)
    dataset = load_data(config)
    model = plain_model(config, dataset)
    model.load_state_dict(ticket.state_dict())
    about = {
        **ticket.about,
        **{k: json.dumps(ticket.about[k]) for k in ("pixel_mean", "pixel_std")},
    }
    assert accuracy_of(model, dataset, about) == strong_accuracies(database, trial_id)[0] > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_masks_leave_out_is_zero_and_nothing_else(tickets, trials, kind: str) -> None:
    database, ids = trials
    ticket, state = tickets[kind], tickets[kind].state_dict()
    for name, mask in ticket.masks.kept.items():
        assert np.array_equal(state[name].numpy() != 0, mask & (ticket.weights[name].numpy() != 0))
    if not kind.startswith("unit"):
        stored = database.ticket(ids[kind], replicate=1)
        assert ticket.masks.gated == tuple(stored)
        assert all(np.array_equal(ticket.masks.kept[name], mask) for name, mask in stored.items())
    kept = [ticket.masks.kept[name] for name in ticket.masks.gated]
    share = sum(mask.sum() for mask in kept) / sum(mask.size for mask in kept)
    assert share == pytest.approx(ticket.about["density"], abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_masks_alone_are_those_of_the_whole_ticket(tickets, trials, kind: str) -> None:
    database, ids = trials
    masks = exchange.stored_masks(database, exchange.choose(database, ids[kind], replicate=1))
    whole = tickets[kind].masks
    assert masks.gated == whole.gated
    assert masks.kept.keys() == whole.kept.keys()
    assert all(np.array_equal(masks.kept[name], whole.kept[name]) for name in whole.kept)


def pruned_module(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    owner, _, leaf = name.rpartition(".")
    return model.get_submodule(owner), leaf


@pytest.mark.parametrize("kind", ["rewound", "units", "unit-norms", "convolutions"])
def test_torchs_own_pruning_takes_the_masks_and_the_state(tickets, trials, tmp_path, kind) -> None:
    database, ids = trials
    config, ticket = config_of(database, ids[kind]), tickets[kind]
    dataset = load_data(config)
    plain, pruned, masked = (plain_model(config, dataset) for _ in range(3))
    plain.load_state_dict(ticket.state_dict())

    exchange.export(ticket, "prune", tmp_path / "state")
    state = safetensors.torch.load_file(tmp_path / "state")
    for name in [key.removesuffix("_mask") for key in state if key.endswith("_mask")]:
        prune.identity(*pruned_module(pruned, name))
    pruned.load_state_dict(state)

    exchange.export(ticket, "masks", tmp_path / "masks")
    masked.load_state_dict({**ticket.weights, **ticket.buffers})
    for name, mask in safetensors.torch.load_file(tmp_path / "masks").items():
        module, leaf = pruned_module(masked, name.removesuffix("_mask"))
        prune.custom_from_mask(module, leaf, mask)

    images = torch.randn(5, *dataset.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = plain(images)
        assert torch.equal(pruned(images), wanted)
        assert torch.equal(masked(images), wanted)
    for name in ticket.masks.gated:
        module, leaf = pruned_module(pruned, name)
        prune.remove(module, leaf)
        assert torch.equal(getattr(module, leaf), ticket.state_dict()[name])


@pytest.mark.parametrize("kind", ["frozen", "convolutions", "unit-norms"])
@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_scipy_reads_the_matrices(tickets, tmp_path: Path, kind: str, layout: str) -> None:
    ticket, out = tickets[kind], tmp_path / "matrices"
    exchange.export(ticket, layout, out)
    about, state = json.loads((out / "ticket.json").read_text()), ticket.state_dict()
    assert [each["layer"] for each in about["layers"]] == list(ticket.masks.gated)
    for each in about["layers"]:
        matrix = scipy.sparse.load_npz(out / each["file"])
        dense = state[each["layer"]].numpy()
        assert matrix.format == layout
        assert np.array_equal(matrix.toarray().reshape(each["shape"]), dense)
        assert matrix.shape == (len(dense), dense.size // len(dense))
        assert matrix.nnz == ticket.masks.kept[each["layer"]].sum()  # kept zeros are entries
    assert {path.name for path in out.iterdir()} == {
        "ticket.json",
        *(each["file"] for each in about["layers"]),
    }


def test_no_file_holds_a_pickle(tickets, tmp_path: Path) -> None:
    for what in ("coo", "csr"):
        exchange.export(tickets["frozen"], what, tmp_path / what)
        for path in (tmp_path / what).glob("*.npz"):
            with np.load(path, allow_pickle=False) as arrays:
                assert all(arrays[name].dtype != object for name in arrays)


def test_weights_that_a_checkpoint_still_has_are_taken(storage, run_small) -> None:
    database = Database(storage)
    trial_id = run_small(storage, {"model": "fc-16", "rewind_step": 5}, "s")
    trained = exchange.ticket(database, trial_id, replicate=1)
    slot = CheckpointFile(storage, trial_id)
    left = Checkpoints(slot)
    count = sum(weight.numel() for weight in trained.weights.values())
    rows = torch.arange(2.0)[:, None].expand(2, count).contiguous()
    left.finish("pretrain", {"gated": rows, "rest": torch.zeros(2, 0)})
    left.save("gates", {"step": torch.tensor(3)})
    left.close()
    before = slot.read()
    taken = exchange.ticket(database, trial_id, replicate=1)
    assert all((weight == 1).all() for weight in taken.weights.values())
    assert len(taken.notes) == 1  # it scores something else, and says so
    assert "when it was found on cpu" in taken.notes[0]
    assert slot.read() == before


def test_a_ticket_whose_trial_would_be_another_today_is_refused(trials: Trials) -> None:
    database, ids = trials
    with pytest.raises(ExchangeError, match=r"a setting has changed since"):
        exchange.ticket(database, ids["frozen"], settings=["train.steps=3"])
    same = exchange.ticket(database, ids["frozen"], replicate=0, settings=["data_root=elsewhere"])
    assert same.notes == ()


def test_a_ticket_of_an_earlier_version_of_its_familys_fingerprints_is_exported(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, ids = trials
    monkeypatch.setitem(FAMILY_FORMATS, "gaussian", FAMILY_FORMATS["gaussian"] + 2)
    config = config_of(database, ids["frozen"])
    assert identify(config, load_data(config)) != ids["frozen"]
    assert exchange.ticket(database, ids["frozen"], replicate=0).notes == ()
    with pytest.raises(ExchangeError, match=r"a setting has changed since"):
        exchange.ticket(database, ids["frozen"], settings=["train.steps=3"])


def test_masks_of_other_layers_than_the_models_are_refused(trials, monkeypatch) -> None:
    database, ids = trials
    monkeypatch.setattr(database, "ticket", lambda *_, **__: {"fc9.weight": np.ones((2, 2), bool)})
    with pytest.raises(ExchangeError, match=r"do not fit model fc-16: they differ in fc1"):
        exchange.ticket(database, ids["frozen"])


def test_masks_alone_make_no_state_dictionary(trials: Trials, tmp_path: Path) -> None:
    database, ids = trials
    masks = exchange.stored_masks(database, exchange.choose(database, ids["frozen"]))
    for what in ("safetensors", "prune"):
        with pytest.raises(ExchangeError, match="needs a ticket with its weights"):
            exchange.export(masks, what, tmp_path / "out")
    exchange.export(masks, "csr", tmp_path / "ones")
    matrix = scipy.sparse.load_npz(tmp_path / "ones/fc1.weight.npz")
    assert np.array_equal(matrix.toarray() == 1, masks.kept["fc1.weight"])
    assert "ones" in json.loads((tmp_path / "ones/ticket.json").read_text())["values"]


def test_the_functions_are_there_and_nothing_else() -> None:
    assert all(callable(getattr(exchange, name)) for name in exchange.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'exprot'"):
        exchange.exprot  # noqa: B018
