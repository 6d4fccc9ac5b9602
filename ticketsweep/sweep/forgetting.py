"""What Tune keeps of trials that have ended, and what a long sweep is spared of it.

Tune holds on to every trial, some 30 KiB each, for snapshots of its experiment, for the table of
results that it returns and for the lines that it would print, and writes all of them at the
end. None of it is ever read: the mask database is the truth.
"""

from __future__ import annotations

from typing import Any

from ray.tune.progress_reporter import TrialProgressCallback

# Ended trials that stay: going through the lists for a few would cost more than they do.
_KEPT = 100


def forget_ended(controller: Any) -> None:
    """Drop all but the latest of the ended trials from the controller's lists, and its printer.

    Tune has no name for this in public. To be called again and again; it costs something once in
    `_KEPT` trials.

    Parameters
    ----------
    controller: Tune's `TuneController`.
    """
    callbacks = controller._callbacks._callbacks
    callbacks[:] = [each for each in callbacks if not isinstance(each, TrialProgressCallback)]
    trials = controller._trials
    if len(trials) <= len(controller._live_trials) + _KEPT:
        return
    ended = [
        trial
        for trial in trials[:-1]  # of none at all Tune would look for a snapshot
        if trial.is_finished() and trial not in controller._trial_to_actor
    ]
    gone = set(ended)
    trials[:] = [trial for trial in trials if trial not in gone]
    for those in (
        controller._stopped_trials,
        controller._failed_trials,
        controller._live_trials,
        controller._trials_to_cache,
    ):
        those -= gone
    for trial in ended:
        controller._trial_metadata.pop(trial.trial_id, None)
