from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ticketsweep.cli.completion import COMPLETERS, complete
from ticketsweep.config import TrialConfig
from ticketsweep.results.rows import dotted_keys, setting_of
from ticketsweep.store.database import open_database

COMMAND = Path(sys.executable).with_name("ticketsweep")


def in_shell(script: str, folder: Path, shell: str = "bash") -> list[str]:
    """What a shell prints."""
    path = f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [shell, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, "PATH": path, "TICKETSWEEP_STORAGE": ""},
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_press_of_the_tabulator_in_bash_offers_the_sweeps_of_a_storage(
    stored: Path, tmp_path: Path
) -> None:
    asked = (
        "source <(_TICKETSWEEP_COMPLETE=source_bash ticketsweep); COMP_WORDS=({}); COMP_CWORD={}; "
        '_ticketsweep_completion ticketsweep; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    line = f"ticketsweep status --storage {stored} s"
    assert in_shell(asked.format(line, 4), tmp_path) == ["single"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_answered_in_their_own_way(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = subprocess.run(
        [COMMAND], capture_output=True, text=True, check=True,
        env={**os.environ, "_TICKETSWEEP_COMPLETE": f"source_{shell}"},
    ).stdout  # fmt: skip
    assert f"complete_{shell}" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        in_shell(f"{shell} -n script", tmp_path)
    answer = subprocess.run(
        [COMMAND], capture_output=True, text=True, check=True,
        env={
            **os.environ,
            "_TICKETSWEEP_COMPLETE": f"complete_{shell}",
            "_TYPER_COMPLETE_ARGS": "ticketsweep trial --set train.st",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    )  # fmt: skip
    assert "train.steps=" in answer.stdout
    assert answer.stderr == ""


def test_trials_are_offered_by_their_ids(stored: Path) -> None:
    (trial,) = open_database(str(stored)).trials()["trial_id"].to_pylist()
    given = {"storage": str(stored)}
    assert complete("trial", given, trial[:3]) == [trial]
    assert complete("trial", {**given, "sweep": "single"}, "") == [trial]
    assert complete("trial", {**given, "sweep": "other"}, "") == []
    assert complete("sweep", {"storage": "s3://bucket"}, "") == []


def test_every_setting_is_offered_and_none_that_there_is_not() -> None:
    config = TrialConfig().model_dump()
    leaves = {key for key in dotted_keys(config) if not isinstance(setting_of(config, key), dict)}
    offered = set(complete("by", {}, ""))
    assert offered >= leaves
    assert all(key.startswith("gate.") for key in offered - leaves)
    assert complete("settings", {}, "train.st") == ["train.steps="]
    assert complete("settings", {}, "train.steps=5") == []


def test_spaces_are_offered_from_here_and_a_folder_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.yaml", "spaces/b.yaml", "spaces/deep/c.yaml", ".hidden/d.yaml", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    assert complete("space", {}, "") == ["a.yaml", "spaces/b.yaml"]
    assert complete("space", {}, "spaces/") == ["spaces/b.yaml", "spaces/deep/c.yaml"]
    assert complete("space", {}, "nowhere/") == []


def test_nothing_slow_is_imported_to_complete() -> None:
    code = (
        "import sys; from ticketsweep.cli.completion import COMPLETERS, complete\n"
        "for each in COMPLETERS: complete(each, {}, '')\n"
        "print(*({'torch', 'pyarrow', 'duckdb', 'ray', 'rich.console'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert {"name", "sweep", "trial", "space"} <= set(COMPLETERS)
