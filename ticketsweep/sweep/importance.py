"""Which settings decide an objective: Optuna's evaluators, on a study made of stored trials."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.trial import FrozenTrial, TrialState

from ticketsweep.results.ranking import Objectives
from ticketsweep.results.report import Importance
from ticketsweep.results.rows import Row
from ticketsweep.sweep.search import thaw

MIN_TRIALS = 10
"""Complete trials that an estimate is made from; fewer say nothing of use."""

MOST_TRIALS = 300
"""Of more complete trials an evenly spaced part is taken: fANOVA's time grows with them."""

_SEED = 0  # of fANOVA's forest: the same report from the same trials


def importances(rows: Sequence[Row], objectives: Objectives) -> list[Importance]:
    """The importance of every setting that all trials have, for each objective and evaluator.

    Parameters
    ----------
    rows: of `trials`, of one sweep; those the search did not ask for, or that have not all
        objectives, are left out. Of more than 300 an evenly spaced part is taken.

    Returns
    -------
    Nothing from fewer than ten trials, or for an objective that no setting can explain: it is the
    same in all of them, but for rounding, or every setting is.
    """
    trials = [frozen for row in rows if (frozen := thaw(row, objectives)) is not None]
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if len(complete) < MIN_TRIALS:
        return []
    step = max(1, -(-len(complete) // MOST_TRIALS))
    complete = complete[::step]
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # no line for every study
    try:
        return _importances(complete, objectives)
    finally:
        optuna.logging.set_verbosity(said)


def _importances(complete: Sequence[FrozenTrial], objectives: Objectives) -> list[Importance]:
    found = []
    for at, (objective, way) in enumerate(objectives.items()):
        values = [trial.values[at] for trial in complete]
        if len(set(values)) < 2:
            continue
        study = optuna.create_study(direction="maximize" if way == "max" else "minimize")
        study.add_trials(
            [
                optuna.trial.create_trial(
                    value=value, params=trial.params, distributions=trial.distributions
                )
                for trial, value in zip(complete, values, strict=True)
            ]
        )
        try:
            found += [each for each in _of_study(study, objective) if each.shares]
        except RuntimeError:
            # fANOVA: zero variance in every tree. PED-ANOVA would give shares of the rounding.
            continue
    return found


def _of_study(study: optuna.Study, objective: str) -> list[Importance]:
    found = []
    for name, evaluator in _evaluators():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an experiment to Optuna, and of few trials
            shares = get_param_importances(study, evaluator=evaluator)
        own = {key: float(share) for key, share in shares.items()}
        found.append(Importance(objective, name, own, len(study.trials)))
    return found


def _evaluators() -> list[tuple[str, BaseImportanceEvaluator]]:
    return [
        ("fANOVA (Hutter et al. 2014)", FanovaImportanceEvaluator(n_trees=32, seed=_SEED)),
        ("PED-ANOVA (Watanabe et al. 2023)", PedAnovaImportanceEvaluator()),
    ]
