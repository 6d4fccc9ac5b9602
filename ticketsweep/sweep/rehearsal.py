"""A sweep before it is run: everything is checked, and a few steps say how long it will take.

Nothing is written to the storage, and no Ray is started.
"""

from __future__ import annotations

import itertools
import os
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ticketsweep.config import TrialConfig
from ticketsweep.distributions import Uniform
from ticketsweep.results.rows import state_of
from ticketsweep.seeds import Replicate, replicate_plan
from ticketsweep.space import SweepSpec
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.sweep.halving import rungs_of
from ticketsweep.sweep.observer import Observer
from ticketsweep.sweep.resources import check_resources, concurrency, local_cpus
from ticketsweep.sweep.runner import (
    check_trials,
    load_datasets,
    refuse_if_changed,
    stored_rows,
)
from ticketsweep.sweep.stored import to_be_tried_again
from ticketsweep.sweep_settings import Asha

if TYPE_CHECKING:
    from ticketsweep.planning import DataKey
    from ticketsweep.train.data import Dataset
    from ticketsweep.train.pace import Pace

DRAWN = 10
"""How many configurations are drawn."""

MOST_COUNTED = 100_000
"""Distinct configurations of a space are counted no further."""

_SECONDS_OF_MEASURING = 2.0  # after which no other kind of trial is measured
# To start Ray and its workers, and to end them: on two cores with nothing else to do, and as a
# multiple of what it takes this process to import what each of them imports too.
_SECONDS_OF_RAY, _IMPORTS_OF_RAY = 8.0, 4.0
_SECONDS_OF_STORING = 0.1  # a trial


@dataclass(frozen=True)
class Drawn:
    """A configuration as the sampler draws it.

    Attributes
    ----------
    seconds: that its trial takes; 0 if it is stored already.
    stored_in: the sweep that has the complete trial; empty if none has.
    """

    trial_id: str
    config: TrialConfig
    seconds: float
    stored_in: str


@dataclass(frozen=True)
class Memory:
    """Bytes that a trial takes, and what there is.

    Attributes
    ----------
    trial: with its process, where it trains on the CPU.
    available: to a trial; None where that cannot be told.
    packs: replicates in each of the packs that fit.
    """

    trial: int
    available: int | None
    packs: tuple[int, ...]


@dataclass(frozen=True)
class Rehearsal:
    """What a run of a sweep would be.

    Attributes
    ----------
    states: stored trials of the sweep by their state.
    lacking: trials that would be run.
    possible: distinct configurations; None where there is no end of them, and at most
        `MOST_COUNTED`.
    replicates: of a trial of those drawn, the fewest and the most.
    concurrency, threads: trials at once on this machine, and processors of each.
    device: cpu | cuda.
    seconds: of the whole run on this machine.
    stops_early: whether `seconds` counts on a scheduler that stops trials.
    measured, kinds: how many kinds of trials were measured, of those drawn.
    """

    name: str
    samples: int
    states: Mapping[str, int]
    lacking: int
    possible: int | None
    replicates: tuple[int, int]
    concurrency: int
    threads: int
    device: str
    drawn: tuple[Drawn, ...]
    memory: Memory | None
    seconds: float
    stops_early: bool
    measured: int
    kinds: int

    def as_plain(self) -> dict[str, Any]:
        """Plain values under the same names, the sweep's own under `sweep`."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        drawn = [{**vars(each), "config": each.config.model_dump(mode="json")}
                 for each in self.drawn]  # fmt: skip
        memory = None if self.memory is None else vars(self.memory)
        states = dict(self.states)
        return {"sweep": plain.pop("name"), **plain, "states": states, "drawn": drawn,
                "memory": memory}  # fmt: skip


def rehearse(
    spec: SweepSpec,
    *,
    storage: Storage | None,
    address: str | None,
    retry_failed: bool,
    observer: Observer,
) -> Rehearsal:
    """Check a sweep as `run_sweep` does, draw from it, and reckon what its run takes.

    Parameters
    ----------
    storage: which is read alone; None: there is none yet.
    address: of the cluster that it would run on, whose resources are not looked at.
    retry_failed: whether trials that have failed for good would be run again.

    Raises
    ------
    UserError: whatever `run_sweep` would refuse before it starts Ray.
    """
    settings = spec.settings
    stored = [] if storage is None else stored_rows(spec, storage, observer)
    if address is None:
        check_resources(spec)
    began = time.perf_counter()
    import optuna
    import torch

    from ticketsweep.planning import data_key, identify
    from ticketsweep.sweep.search import Search
    from ticketsweep.train.packs import find_tickets  # noqa: F401  # what every worker imports

    importing = time.perf_counter() - began
    datasets = load_datasets(spec, observer)
    refuse_if_changed(spec, stored, datasets)
    check_trials(spec, datasets)
    observer.phase("training a few steps")
    gpus = torch.cuda.device_count()
    device = "cuda" if gpus and settings.resources.gpus else "cpu"
    threads = max(1, int(settings.resources.cpus))
    possible = _possible(spec)
    again = to_be_tried_again(stored, settings, retry_failed=retry_failed)
    wanted = settings.samples if possible is None else min(settings.samples, possible)
    lacking = max(0, wanted - len(stored)) + len(again)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = Search(
        spec,
        identify=lambda config: identify(config, datasets[data_key(config)]),
        journal=None,
    )
    search.restore(stored)
    suggestions = list(itertools.islice(iter(search.ask, None), DRAWN))
    configs = [each.config for each in suggestions]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        own_gpus = int(settings.resources.gpus) if device == "cuda" else 1
        timed = _Timed(configs, datasets, device, devices=max(1, own_gpus))
        memory = timed.memory()
    finally:
        torch.set_num_threads(before)
    database = None if storage is None else Database(storage)
    drawn = []
    for suggestion in suggestions:
        found = None if database is None else database.find_complete(suggestion.trial_id)
        seconds = 0.0
        if found is None:
            seconds = _SECONDS_OF_STORING + timed.seconds(suggestion.config)
            if settings.scheduler is not None:
                seconds *= _share(settings.scheduler.asha, suggestion.config.train.steps)
        drawn.append(Drawn(suggestion.trial_id, suggestion.config, seconds, found or ""))
    at_once = concurrency(spec, local_cpus(), gpus, grows=False)
    counts = [len(_replicates(config)) for config in configs] or [0]
    return Rehearsal(
        name=settings.name,
        samples=settings.samples,
        states=Counter(map(state_of, stored)),
        lacking=lacking,
        possible=possible,
        replicates=(min(counts), max(counts)),
        concurrency=at_once,
        threads=threads,
        device=device,
        drawn=tuple(drawn),
        memory=memory,
        seconds=_whole([each.seconds for each in drawn], lacking, at_once, importing),
        stops_early=settings.scheduler is not None,
        measured=timed.measured,
        kinds=timed.kinds,
    )


def _possible(spec: SweepSpec) -> int | None:
    if any(isinstance(each, Uniform) for each in spec.distributions().values()):
        return None
    return sum(1 for _ in itertools.islice(spec.grid(), MOST_COUNTED))


def _whole(drawn: Sequence[float], lacking: int, places: int, importing: float) -> float:
    """What the run takes, of trials like those drawn."""
    if not lacking or not drawn:
        return 0.0
    expected = list(drawn[:lacking])
    in_all = sum(expected) + (lacking - len(expected)) * statistics.mean(expected)
    at_once = min(places, lacking)
    ray = max(_SECONDS_OF_RAY, _IMPORTS_OF_RAY * importing)
    return ray + importing + max(in_all / at_once, max(expected))


def _share(asha: Asha, steps: int) -> float:
    """The share of its steps that a trial is expected to do, where one in so many goes on."""
    share, alive, last = 0.0, 1.0, 0
    for rung in (*rungs_of(asha, steps), steps):
        share += alive * (rung - last) / steps
        alive, last = alive / asha.reduction_factor, rung
    return share


def _replicates(config: TrialConfig) -> tuple[Replicate, ...]:
    counts = config.replicates
    return replicate_plan(config.seed, init=counts.init, data=counts.data, gate=counts.gate)


class _Timed:
    """What trials take: one of each kind is measured, as far as the time allows."""

    def __init__(
        self,
        configs: Sequence[TrialConfig],
        datasets: Mapping[DataKey, Dataset],
        device: str,
        *,
        devices: int,
    ) -> None:
        self._datasets, self._device, self._devices = datasets, device, devices
        self._paces: dict[str, Pace] = {}
        kinds: dict[str, list[TrialConfig]] = {}
        for config in configs:
            kinds.setdefault(_kind(config), []).append(config)
        self.kinds = len(kinds)
        self._representative = {
            kind: max(group, key=lambda config: (config.rewind_step > 0, config.retrain.steps > 0))
            for kind, group in kinds.items()
        }
        began = time.perf_counter()
        for kind in sorted(kinds, key=lambda kind: -len(kinds[kind])):
            self._paces[kind] = self._measure(self._representative[kind])
            if time.perf_counter() - began > _SECONDS_OF_MEASURING:
                break

    @property
    def measured(self) -> int:
        """Kinds that were measured."""
        return len(self._paces)

    def _measure(self, config: TrialConfig) -> Pace:
        from ticketsweep.planning import data_key, plan_of
        from ticketsweep.train.pace import measured_pace

        dataset = self._datasets[data_key(config)]
        return measured_pace(
            plan_of(config, dataset),
            dataset,
            _replicates(config),
            device=self._device,
        )

    def seconds(self, config: TrialConfig) -> float:
        """What the trial takes."""
        from ticketsweep.planning import CURVE_POINTS, data_key, plan_of
        from ticketsweep.train.pace import trial_seconds

        kind, scale = self._like(config)
        plan = plan_of(config, self._datasets[data_key(config)])
        seconds = trial_seconds(
            plan, self._paces[kind], _replicates(config), log_points=CURVE_POINTS
        )
        sizes = self._sizes(config)
        busiest = sum(sizes[:: self._devices]) / sum(sizes)  # of what all packs take one by one
        return scale * seconds * busiest

    def _like(self, config: TrialConfig) -> tuple[str, float]:
        """A measured kind, and how many times as much this trial computes in a step."""
        own = _kind(config)
        if own in self._paces:
            return own, 1.0
        measured = {kind: self._representative[kind] for kind in self._paces}
        same = [kind for kind, each in measured.items() if each.model == config.model]
        kind = (same or list(measured))[0]
        return kind, _images(config) / _images(measured[kind])

    def _sizes(self, config: TrialConfig) -> tuple[int, ...]:
        """Of the packs that its replicates are trained in."""
        import torch

        from ticketsweep.train.division import fitting as fitting_packs
        from ticketsweep.train.division import sizes_of, spread
        from ticketsweep.train.memory import available_memory

        replicates = len(_replicates(config))
        if config.pack is not None:
            return sizes_of(replicates, largest=config.pack)
        kind, _ = self._like(config)
        available = available_memory(torch.device(self._device))
        fit = fitting_packs(replicates, self._paces[kind].demand, available=available)
        return spread(fit, self._devices)

    def memory(self) -> Memory | None:
        """That of the kind that takes most; None if no trial was drawn."""
        import torch

        from ticketsweep.train.memory import available_memory

        needs = []
        for kind in self._paces:
            demand, sizes = self._paces[kind].demand, self._sizes(self._representative[kind])
            needs.append((max(sizes) * demand.each + demand.fixed, sizes))
        if not needs:
            return None
        most, sizes = max(needs)
        process = _resident() if self._device == "cpu" else 0
        return Memory(process + most, available_memory(torch.device(self._device)), sizes)


def _kind(config: TrialConfig) -> str:
    """Trials of one kind take the same time for a step."""
    gate, train = config.gate, config.train
    return repr(
        (
            (config.model, config.width, config.activation, config.dataset, config.image_size),
            (gate.family, gate.granularity, gate.inputs, gate.include, gate.exclude),
            (config.weights, train.optimizer, train.augment, train.precision, train.batch_size),
            (config.pretrain.batch_size, config.retrain.batch_size, config.replicates),
        )
    )


def _images(config: TrialConfig) -> int:
    return len(_replicates(config)) * config.train.batch_size


def _resident() -> int:
    """Bytes of memory that this process has, with all that a worker loads too."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
