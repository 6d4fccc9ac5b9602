"""What a trial's training loop costs beyond its steps: the same steps in a bare loop."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ticketsweep.config import TrialConfig, parse_config
from ticketsweep.families import GateSection
from ticketsweep.planning import load_data
from ticketsweep.seeds import replicate_plan
from ticketsweep.store.paths import Storage
from ticketsweep.train.data import Dataset, split_validation
from ticketsweep.train.gates.gaussian import GaussianSettings
from ticketsweep.train.images import BatchOrder, Images, channel_statistics
from ticketsweep.train.models import build_model, initial_parameters, prunable
from ticketsweep.train.optimizers import OPTIMIZERS
from ticketsweep.train.pack import Layout, PackedModel
from ticketsweep.trial import run_trial

MNIST = Path("../shared/data")


@dataclass(frozen=True)
class Case:
    name: str
    config: TrialConfig
    dataset: Dataset


def cases() -> Iterator[Case]:
    torch.set_num_threads(1)
    yield _case("digits, fc-100-50, R = 4, 500 steps", {
        "model": "fc-100-50", "train": {"steps": 500, "batch_size": 64},
    })  # fmt: skip
    if MNIST.exists():
        yield _case("MNIST, LeNet-300-100, R = 4, 600 steps", {
            "dataset": "mnist", "data_root": str(MNIST), "train": {"steps": 600},
        })  # fmt: skip


def _case(name: str, settings: dict) -> Case:
    config = parse_config(settings, source=name)
    return Case(name, config, load_data(config))


def trial_seconds(case: Case) -> float:
    """Seconds a step between a trial's first and last logged step, evaluations included."""
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage.open(folder, create=True)
        training = run_trial(case.config, dataset=case.dataset, storage=storage, sweep="bench")
        marks = [(progress.step, time.perf_counter()) for progress in training]
    (first, began), (last, ended) = marks[0], marks[-1]
    return (ended - began) / (last - first)


def bare_seconds(case: Case) -> float:
    """Seconds a step over the same pack, with nothing between the steps."""
    config, dataset = case.config, case.dataset
    counts, gate = config.replicates, config.gate
    plan = replicate_plan(config.seed, init=counts.init, data=counts.data, gate=counts.gate)
    build = functools.partial(
        build_model, config.model, input_shape=dataset.input_shape, classes=dataset.classes
    )
    model = build()
    layout = Layout.of(model, prunable(model))
    packed = PackedModel(model, layout, Layout((), (), ()))
    weights = layout.flatten(
        [
            initial_parameters(build, layout.names, weight_init=config.weight_init,
                               weight_scale=config.weight_scale, seed=replicate.init_seed)
            for replicate in plan
        ]
    )  # fmt: skip
    rows, _ = split_validation(dataset.train_labels, share=config.validation)
    mean, std = (torch.from_numpy(a) for a in channel_statistics(dataset.train_images, rows))
    images = Images(torch.from_numpy(dataset.train_images),
                    torch.from_numpy(dataset.train_labels), mean, std)  # fmt: skip
    orders = [
        BatchOrder(torch.from_numpy(rows), batch_size=config.train.batch_size, seed=r.data_seed)
        for r in plan
    ]
    fields = gate.model_dump(exclude={"family", *GateSection.model_fields})
    gates = GaussianSettings(**fields).gates(weights, layout, plan, steps=config.train.steps)
    update = OPTIMIZERS[config.train.optimizer](gates.parameter)
    began = time.perf_counter()
    for step in range(config.train.steps):
        batches = [images.take(order.next()) for order in orders]
        pixels = torch.stack([batch for batch, _ in batches])
        labels = torch.stack([label for _, label in batches])
        logits = packed(gates.sample(step), pixels)
        loss = (
            torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), reduction="sum"
            )
            / config.train.batch_size
        )
        torch.autograd.grad(loss, gates.parameter)
        update(config.train.lr)
    return (time.perf_counter() - began) / config.train.steps
