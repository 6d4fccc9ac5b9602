"""Stored tickets compared: against plain models, planted truth, and the trial's own figures."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from ticketsweep.analysis.matching import permuted
from ticketsweep.errors import TrialFailure
from ticketsweep.planning import load_data
from ticketsweep.results.function import ALIGN, CONNECTIVITY, KINDS, PREDICTIONS, TRANSFER
from ticketsweep.revisit.bench import Bench
from ticketsweep.revisit.comparing import compare_trial
from ticketsweep.revisit.jobs import config_now
from ticketsweep.revisit.matching import aligned, symmetry_of, transferred
from ticketsweep.revisit.pairs import Work, work_of
from ticketsweep.revisit.tickets import TicketPack
from ticketsweep.store.database import Database
from ticketsweep.train.pack import Weights


def plain_accuracy(pack: TicketPack, weights: Weights, row: int) -> float:
    """Of a plain model with these weights, one image after another."""
    network, test = pack.bench.network, pack.bench.test
    device = test.labels.device
    model = pack.bench.plan.build().to(device).eval()
    layers = zip(
        (*network.gated.names, *network.rest.names),
        (*network.gated.split(weights.gated), *network.rest.split(weights.rest)),
        strict=True,
    )
    with torch.no_grad():
        for name, layer in layers:
            model.get_parameter(name).copy_(layer[row])
        images, labels = test.take(torch.arange(len(test.labels), device=device))
        right = [
            int(model(x[None]).argmax()) == int(y) for x, y in zip(images, labels, strict=True)
        ]
    return float(np.mean(right))


def run(storage, job, ended) -> tuple[str, ...]:
    config = config_now(job.row, [])
    return ended(compare_trial(storage, job, config=config, dataset=load_data(config)))


def stored_rows(storage) -> dict[tuple[int, int], dict[str, float]]:
    rows = Database(storage).comparisons().to_pylist(maps_as_pydicts="strict")
    return {(row["first"], row["second"]): row["measures"] for row in rows}


def test_tickets_made_again_are_as_good_as_when_they_were_found(stored, pack) -> None:
    strong = Database(stored).replicates("s")["strong_accuracy"].to_pylist()
    for at, accuracy in enumerate(strong):
        assert plain_accuracy(pack, pack.tickets, at) == pytest.approx(accuracy)


def test_weights_are_trained_in_the_packs_of_the_trial(stored, pack, ended) -> None:
    alone = {**pack.row, "packs": 4.0}
    every = ended(pack.bench.rewound(stored, alone, pack.replicates, planned=pack.replicates))
    for at, each in enumerate(pack.replicates):
        one = ended(pack.bench.rewound(stored, alone, [each], planned=[each]))
        assert torch.equal(every.gated[at], one.gated[0])
        torch.testing.assert_close(every.gated[at], pack.weights.gated[at])


def test_too_little_memory_for_pre_training_is_a_sentence(
    stored, job_of, ended, monkeypatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Bench, "rewound", full)
    with pytest.raises(TrialFailure, match="out of memory at the tickets of trial"):
        run(stored, job_of(stored, PREDICTIONS), ended)


def test_a_mask_on_other_weights_is_a_plain_model_with_them(pack, ended) -> None:
    work = work_of(TRANSFER, pack.replicates, {})
    found = ended(transferred(pack, work))
    assert len(found) == 8
    for (first, second), measures in list(zip(work.pairs, found, strict=True))[::3]:
        of, by = pack.row_of(second), pack.row_of(first)
        under = pack.weights.rows([of]).where(pack.kept.rows([by]))
        assert measures["accuracy"] == pytest.approx(plain_accuracy(pack, under, 0))
        assert measures["own_accuracy"] == pytest.approx(plain_accuracy(pack, pack.tickets, of))
        assert measures["source_accuracy"] == pytest.approx(plain_accuracy(pack, pack.tickets, by))


def test_a_mask_on_its_own_weights_is_the_ticket(pack, ended) -> None:
    own = tuple((each, each) for each in pack.replicates)
    for measures in ended(transferred(pack, Work(TRANSFER, own, {}))):
        assert measures["accuracy"] == measures["own_accuracy"] == measures["source_accuracy"]
        assert measures["matched_accuracy"] == measures["own_accuracy"]


@pytest.fixture
def relabelled(pack) -> TicketPack:
    """Its third and fourth tickets are the first and second, their units in another order."""
    symmetry = symmetry_of(pack)
    assert symmetry is not None
    network, rng = pack.bench.network, np.random.default_rng(0)
    orders = {group.name: rng.permutation(group.units) for group in symmetry}

    def with_copies(weights: Weights) -> Weights:
        flat = []
        for at in (0, 1):
            parts = zip((network.gated, network.rest), (weights.gated, weights.rest), strict=True)
            arrays = {
                name: layer[at].cpu().numpy()
                for layout, tensor in parts
                for name, layer in zip(layout.names, layout.split(tensor), strict=True)
            }
            moved = permuted(arrays, orders, symmetry)
            flat.append({name: torch.from_numpy(array) for name, array in moved.items()})
        device = weights.gated.device
        return Weights(
            torch.cat([weights.gated[:2], network.gated.flatten(flat).to(device)]),
            torch.cat([weights.rest[:2], network.rest.flatten(flat).to(device)]),
        )

    kept = with_copies(pack.kept)
    return dataclasses.replace(
        pack,
        weights=with_copies(pack.weights),
        kept=kept,
        gates=kept.gated,
        classes=pack.classes[[0, 1, 0, 1]],
    )


def test_a_network_permuted_on_purpose_is_matched_exactly(relabelled, ended) -> None:
    work = work_of(TRANSFER, relabelled.replicates, {})
    for measures in ended(transferred(relabelled, work)):
        assert measures["matched_accuracy"] == pytest.approx(measures["source_accuracy"])
        assert measures["accuracy"] < measures["source_accuracy"] - 0.2
    own = Work(ALIGN, ((relabelled.replicates[0], relabelled.replicates[2]),), {})
    (measures,) = ended(aligned(relabelled, own))
    assert measures["matched_overlap"] == 1
    assert measures["matched_corrected"] == pytest.approx(1)
    assert measures["overlap"] < 0.9


def test_all_kinds_are_stored_and_not_computed_again(storage, run_fast, job_of, ended) -> None:
    run_fast(storage)
    assert run(storage, job_of(storage, *KINDS), ended) == ()
    assert job_of(storage, *KINDS) is None
    again = job_of(storage, *KINDS, steps=5)
    assert [work.kind for work in again.works] == [CONNECTIVITY]
    rows = stored_rows(storage)
    assert len(rows) == 4 + 2 + 8  # with itself, of the same init, and of others both ways
    replicates = Database(storage).replicates("s").to_pylist(maps_as_pydicts="strict")
    errors = [1 - each["retrained_accuracy"] for each in replicates]
    measures = rows[0, 1]
    assert measures["connectivity.test_error"] == pytest.approx(np.mean(errors[:2]))
    assert 0 <= measures["connectivity.test_barrier"] <= 1
    assert measures["predictions.agreement"] > 0.3
    assert not any(name.startswith(("transfer", "align")) for name in measures)
    assert rows[2, 0]["transfer.source_accuracy"] == replicates[2]["strong_accuracy"]
    assert "connectivity.test_barrier" in rows[3, 3]


def test_what_is_cut_off_goes_on_where_it_was(storage, run_fast, job_of, ended) -> None:
    run_fast(storage)
    job = job_of(storage, PREDICTIONS, CONNECTIVITY)
    config = config_now(job.row, [])
    steps = compare_trial(storage, job, config=config, dataset=load_data(config))
    while next(steps).stage != "connectivity-1":
        pass
    steps.close()
    rest = job_of(storage, PREDICTIONS, CONNECTIVITY)
    assert [work.kind for work in rest.works] == [CONNECTIVITY]
    run(storage, rest, ended)
    settings = Database(storage).comparisons()["settings"].to_pylist()
    assert {frozenset(json.loads(each)) for each in settings} == {
        frozenset({"predictions", "connectivity"}),
        frozenset({"predictions"}),
        frozenset({"connectivity"}),
    }


def test_tickets_of_whole_units_are_matched_too(storage, run_fast, job_of, ended) -> None:
    units = {"family": "gaussian", "l0_strength": 0.2, "granularity": "neuron"}
    run_fast(storage, "units", gate=units, rewind_step=0)
    job = job_of(storage, TRANSFER, PREDICTIONS, sweep="units")
    assert run(storage, job, ended) == ()
    found = stored_rows(storage)[0, 2]
    assert 0 <= found["transfer.matched_accuracy"] <= 1


class Odd(nn.Module):
    """A model whose structure is not known."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.inside = nn.Linear(features, 8)
        self.outside = nn.Linear(8, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.outside(torch.tanh(self.inside(images.flatten(1))))


def odd(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Odd(int(np.prod(input_shape)), classes)


def test_without_a_known_symmetry_there_are_no_matched_figures(
    storage, run_fast, job_of, ended
) -> None:
    run_fast(storage, model=f"{__name__}:odd", replicates={"init": 2, "data": 1, "gate": 1})
    run(storage, job_of(storage, TRANSFER, ALIGN), ended)
    measures = stored_rows(storage)
    assert "transfer.accuracy" in measures[0, 1]
    assert not any("matched" in name or "align" in name for name in measures[0, 1])
    assert job_of(storage, TRANSFER, ALIGN) is None
