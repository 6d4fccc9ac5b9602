"""What suggests configurations, and how much of a long sweep it is shown.

TPE goes through all that it is shown at each suggestion, some 20 microseconds a trial on one core:
with 100,000 trials that would be two seconds, while 1,000 GPUs ask for one or two suggestions a
second. So from some length on it is shown a part.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Sequence
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState

# So many of the latest finished trials TPE is shown at least; at half as many more, those before
# are left out. Shorter sweeps are shown whole.
SHOWN = 1000
# And so many of the best of those before: as many as TPE ever counts as good.
_GOOD = 25
_TOLD = (TrialState.COMPLETE, TrialState.PRUNED)


def make_sampler(name: str, samples: int, seed: int) -> BaseSampler:
    """The sampler of a sweep: `tpe`, `nsga2`, or by uniform chance.

    Parameters
    ----------
    samples: number of trials of the whole sweep.
    seed: below 2^32.
    """
    if name == "tpe":
        # Ten random trials, Optuna's default, would be most of a short sweep.
        startup = min(10, max(4, samples // 4))
        with warnings.catch_warnings():
            # `group` (conditional spaces) has been in Optuna since 2.8, as an experiment.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return BoundedTPE(
                seed=seed,
                n_startup_trials=startup,
                multivariate=True,
                group=True,
                constant_liar=True,  # keeps away from what is running, too
            )
    if name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=max(4, min(50, samples // 4)))
    return RandomSampler(seed=seed)


class BoundedTPE(TPESampler):
    """Optuna's TPE, which sees of a long study what is running, what came last, and the best."""

    _window: _Window | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As Optuna's."""
        return super().infer_relative_search_space(self._part_of(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's."""
        return super().sample_relative(self._part_of(study), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """As Optuna's."""
        part = self._part_of(study)
        return super().sample_independent(part, trial, param_name, param_distribution)

    def _part_of(self, study: optuna.Study) -> optuna.Study:
        if self._window is None or self._window.study is not study:
            self._window = _Window(study)
        return cast(optuna.Study, self._window)


class _Window:
    """A study of which the sampler is shown a part; all else is the study's own."""

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self._since = 0  # from this number on, all trials are shown
        self._earlier: list[int] = []  # of those before, these

    def __getattr__(self, name: str) -> Any:
        return getattr(self.study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: ARG002  # TPE never asks for copies
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        """What TPE calls to look at the study."""
        every = self.study._get_trials(deepcopy=False, use_cache=use_cache)
        if len(every) - self._since > SHOWN * 3 // 2:
            self._move(every)
        part = [every[number] for number in self._earlier] + every[self._since :]
        return part if states is None else [trial for trial in part if trial.state in states]

    def _move(self, every: Sequence[FrozenTrial]) -> None:
        """Begin to leave out what came earlier, but for the best and what is running."""
        since = len(every) - SHOWN
        before = [every[number] for number in self._earlier] + list(every[self._since : since])
        told = [trial for trial in before if trial.state in _TOLD]
        best, _ = _split_trials(self.study, told, min(_GOOD, len(told)))
        kept = [trial.number for trial in before if trial.state == TrialState.RUNNING]
        self._earlier = sorted(kept + [trial.number for trial in best])
        self._since = since
