"""Commands in this process, and a storage that a real trial on digits has filled."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ticketsweep.cli import main

SMALL = ["--set", "model=fc-16", "--set", "train.steps=30", "--set", "train.batch_size=32"]


@dataclass(frozen=True)
class Ended:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(monkeypatch, capfd, tmp_path) -> Command:
    """Runs the command line in an empty folder, with nothing of the user's environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TICKETSWEEP_STORAGE", raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["ticketsweep", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        return Ended(int(exit_.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def stored(tmp_path_factory) -> Path:
    """A storage with one small real trial of four replicates; only to be read."""
    folder = tmp_path_factory.mktemp("stored") / "storage"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ticketsweep", "trial", *SMALL, "--storage", str(folder)])
        with pytest.raises(SystemExit) as exit_:
            main()
    assert not exit_.value.code
    return folder
