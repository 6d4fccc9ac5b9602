"""The suite on two cores: its workers, which tests stay together, and one thread for each."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

import ticketsweep.sweep  # noqa: F401  # Ray's environment, before a test imports Ray itself

# Before anything imports a library that reads them. The workers, and every process that a test
# starts, inherit them: two workers of two threads each would take turns on two cores.
for _name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ[f"{_name}_NUM_THREADS"] = "1"

# How fast an example is tried says what else the machine does.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# Two Rays at once would wait for each other's processors, and past the limits that tests set.
STARTING_RAY = (
    "tests/sweep/test_kills.py",
    "tests/sweep/test_faults.py",
    "tests/sweep/test_runner.py",
    "tests/sweep/test_comparing.py",
    "tests/sweep/test_postgresql.py",
    "tests/sweep/test_forgetting.py",
    "tests/sweep/test_nodes.py",
    "tests/sweep/test_nodes_lost.py",
    "tests/sweep/test_time_limit.py",
    "tests/cluster/test_launching.py",
    "tests/cluster/test_slurm.py",
    "tests/cli/test_process.py",
    "tests/test_readme.py",
    "tests/cli/test_rehearsed.py",
    "tests/test_api.py",
)
BROWSING = "tests/report/test_browser.py"  # one browser and one sweep for all of it


EVERYTHING = "TICKETSWEEP_TEST_EVERYTHING"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The suite stays under ten minutes without the tests that take minutes by themselves."""
    if not os.environ.get(EVERYTHING):
        for item in items:
            if "exhaustive" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=f"takes minutes (set {EVERYTHING}=1)"))


@pytest.hookimpl
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two workers, and none for a single file or `-s`: they cost seconds and swallow the output."""
    files = {argument.partition("::")[0] for argument in config.args}
    alone = len(files) == 1 and files.pop().endswith(".py")
    return 0 if alone or config.option.capture == "no" else 2


class _RayOnOneWorker(LoadScopeScheduling):
    """What starts Ray runs first, in order, on one worker, and so does what a browser opens, on
    the other; every other test runs wherever is room.

    (The mark `xdist_group` would say so too, but xdist 3.8 does not see it under pytest 9.2.)
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(BROWSING):
            return BROWSING
        return "Ray" if nodeid.startswith(STARTING_RAY) else nodeid


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _RayOnOneWorker:
    """The scheduler of the workers."""
    return _RayOnOneWorker(config, log)
