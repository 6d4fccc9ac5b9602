"""Sweeps: Ray Tune schedules, Optuna searches, W&B tracks. No other package imports the three."""

import os

# Read by Ray when it is imported, which only modules of this package do: so they are set first,
# whichever of them is imported first.
_ENVIRONMENT = {
    # Under `uv run`, Ray would build a second environment for its workers.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Workers keep the driver's folder, so relative paths mean the same.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Results go into the mask database; Tune's own CSV, JSON and TensorBoard files are not written.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A trial without a share of a GPU sees none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # Ctrl-C is ours: Tune's handler would wait for every running step.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune's new console prints a header even when told to be silent; progress is ours.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Failures are shown once, by us.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Tune's snapshots of the experiment are never read: the mask database is the truth.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    # A searcher's trials would start one at a time; how many may run is decided by our searcher.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
