"""What a stored trial trained with, made again: its model, its data, and the weights W_k.

The code that trained the trial makes the weights, so that on the machine that did they are the same
bit for bit.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ticketsweep import __version__
from ticketsweep.config import FAMILY_FORMATS, FINGERPRINT_FORMAT, TrialConfig
from ticketsweep.errors import ExchangeError
from ticketsweep.planning import identify, plan_of
from ticketsweep.progress import StageProgress
from ticketsweep.results.rows import Row, figure_of
from ticketsweep.revisit.jobs import wants_gpu
from ticketsweep.seeds import Replicate
from ticketsweep.store.checkpoints import CheckpointFile
from ticketsweep.store.paths import Storage
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.data import Dataset
from ticketsweep.train.division import evenly
from ticketsweep.train.images import Images, as_tensor, open_images
from ticketsweep.train.loop import Evaluator
from ticketsweep.train.pack import PackedModel, Weights, set_precision
from ticketsweep.train.plan import Network, Plan, network_of, split_rows
from ticketsweep.train.units import Units
from ticketsweep.train.weights import Passage, rewound_weights

_REPORTS = 12  # of pre-training

Gates = Mapping[str, NDArray[np.bool_]]


def plan_now(config: TrialConfig, dataset: Dataset, row: Row) -> Plan:
    """What the trial did. Raises ExchangeError if it would not be the same trial today.

    A family's fingerprints get a new version where its gates are trained otherwise. The weights and
    the masks, which are stored, do not depend on that.
    """
    now = identify(config, dataset)
    newest = FAMILY_FORMATS.get(config.gate.family, FINGERPRINT_FORMAT)
    earlier = (identify(config, dataset, version=each) for each in range(1, newest))
    if now != row["trial_id"] and row["trial_id"] not in earlier:
        raise ExchangeError(
            f"trial {row['trial_id']} would be {now} today: its data, the source of its model or "
            f"a setting has changed since (it ran under ticketsweep {row['version']}, "
            f"this is {__version__}; --set may only say where the same data lie)"
        )
    return plan_of(config, dataset)


def device_now(config: TrialConfig, row: Row) -> torch.device:
    """The kind of device that the trial ran on, if it is there and nothing else is asked for."""
    return torch.device("cuda" if wants_gpu(config, row) and torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Bench:
    """A plan's network and data on one device, as a trial has them."""

    plan: Plan
    network: Network
    packed: PackedModel
    train: Images
    test: Images
    rows: Tensor
    evaluator: Evaluator

    @classmethod
    def of(cls, plan: Plan, dataset: Dataset, device: torch.device) -> Bench:
        """The network and the data, put onto the device."""
        set_precision(plan.precision)
        rows, held_out = split_rows(plan, dataset)
        network = network_of(plan, dataset)
        packed = PackedModel(
            network.model.to(device), network.gated, network.rest, precision=plan.precision
        )
        train, test = open_images(dataset, rows, device)
        trained_on = as_tensor(rows, device)
        evaluator = Evaluator(
            packed,
            train,
            test,
            train_rows=trained_on,
            validation_rows=as_tensor(held_out, device),
            input_shape=dataset.input_shape,
        )
        return cls(plan, network, packed, train, test, trained_on, evaluator)

    def rewound(
        self,
        storage: Storage,
        row: Row,
        replicates: Sequence[Replicate],
        *,
        planned: Sequence[Replicate],
    ) -> Generator[StageProgress, None, Weights]:
        """W_k, a row for each of these replicates, from the trial's checkpoint if it has left one.

        What shares a pack changes rounding, so weights that are trained to the rewinding step are
        trained in the trial's own packs, without those that have none of these replicates.

        Parameters
        ----------
        row: of `trials`.
        replicates: by number.
        planned: all of the trial.
        """
        packs = packs_of(row, planned)
        found = []
        for pack in packs:
            wanted = [each.init_seed for each in replicates if each in pack]
            if not wanted:
                continue
            sharing = [each.init_seed for each in pack] if self.plan.rewind_step else wanted
            inits = list(dict.fromkeys(sharing))
            checkpoints = Checkpoints(None)
            if len(packs) == 1:
                checkpoints = _pretrained(storage, str(row["trial_id"]), self.rows.device)
            trained = yield from self._trained(inits, checkpoints)
            found.append(trained.rows([inits.index(seed) for seed in wanted]))
        return Weights(
            torch.cat([each.gated for each in found]), torch.cat([each.rest for each in found])
        )

    def _trained(
        self, seeds: Sequence[int], checkpoints: Checkpoints
    ) -> Generator[StageProgress, None, Weights]:
        """W_k, a row for each of these init seeds, trained together."""
        training = rewound_weights(
            self.packed,
            self.plan,
            self.train,
            self.rows,
            seeds=seeds,
            stage="pretrain",
            checkpoints=checkpoints,
            reports=_REPORTS,
        )
        while True:
            try:
                passage = next(training)
            except StopIteration as end:
                weights: Weights = end.value
                return weights
            if isinstance(passage, Passage):
                yield StageProgress(passage.stage, passage.step, passage.steps)


def packs_of(row: Row, replicates: Sequence[Replicate]) -> list[Sequence[Replicate]]:
    """Replicates in as many packs as the trial was trained in, as even as can be."""
    sizes = evenly(len(replicates), int(figure_of(row, "packs") or 1))
    ends = list(itertools.accumulate(sizes))
    return [replicates[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _pretrained(storage: Storage, trial_id: str, device: torch.device) -> Checkpoints:
    """The pre-trained weights of a checkpoint that the trial has left, if it has; never written."""
    slot = CheckpointFile(storage, trial_id)
    left = Checkpoints(slot, device=device.type).result("pretrain")
    found = Checkpoints(None)
    if left is not None:
        found.finish("pretrain", left)
    return found


@contextlib.contextmanager
def threads_of(row: Row) -> Iterator[None]:
    """As many threads of torch's as the trial had, since their number may change rounding."""
    before, count = torch.get_num_threads(), figure_of(row, "threads")
    torch.set_num_threads(before if count is None else max(1, int(count)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def flat_gates(network: Network, gates: Gates, row: Row) -> Tensor:
    """Stored gates of one replicate in a row, bool (1, U).

    Raises ExchangeError where they are not those of the trial's model.
    """
    units = _units(network)
    layout = units.layout if units else network.gated
    wanted = dict(zip(layout.names, layout.shapes, strict=True))
    stored = {name: tuple(mask.shape) for name, mask in gates.items()}
    if stored != wanted:
        odd = sorted(dict(stored.items() ^ wanted.items()))
        raise ExchangeError(
            f"the masks of trial {row['trial_id']} do not fit model {row['model']}: "
            f"they differ in {', '.join(odd[:5])}"
        )
    return layout.flatten([{name: torch.from_numpy(mask) for name, mask in gates.items()}])


def kept_by(network: Network, gates: Tensor) -> Weights:
    """What gates, bool (R, U), leave of every parameter: bool (R, G) and (R, O)."""
    units = _units(network)
    if units:
        return Weights(*units.keep(gates))
    rest = torch.ones((len(gates), network.rest.size), dtype=torch.bool, device=gates.device)
    return Weights(gates, rest)


def _units(network: Network) -> Units | None:
    return Units(network.sites, network.gated, network.rest) if network.sites else None
