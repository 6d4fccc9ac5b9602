from __future__ import annotations

import shutil
from pathlib import Path

from ticketsweep.sweep.tracking import TRACKERS
from ticketsweep.sweep.tracking.wandb_files import records, run_files

SPACE = Path(__file__).parents[2] / "search_spaces" / "quickstart.yaml"


def test_trackers_are_those_that_there_are(command) -> None:
    ended = command("run", SPACE, "--tracker", "paper")
    assert ended.code == 2
    assert all(f"'{name}'" in ended.err for name in TRACKERS)


def test_a_mode_of_wandb_without_wandb_is_refused(command) -> None:
    ended = command("run", SPACE, "--tracker", "jsonl", "--wandb", "online")
    assert ended.code == 2
    assert "--wandb online goes with --tracker wandb" in ended.err
    assert not Path("ticketsweep-storage").exists()


def test_a_report_becomes_an_artifact_of_the_sweeps_run(
    command, stored: Path, tmp_path: Path
) -> None:
    storage = shutil.copytree(stored, tmp_path / "storage")
    ended = command("report", "single", "--storage", storage, "--wandb", "offline")
    assert ended.code == 0
    assert f"wandb sync {storage / 'tracking' / 'wandb'}" in ended.err.replace("\n", " ")
    ((name, (file,)),) = run_files(storage / "tracking").items()
    assert name == "single"
    (artifact,) = (r.artifact for r in records(file) if r.WhichOneof("record_type") == "artifact")
    (page,) = artifact.manifest.contents
    assert (artifact.name, page.path) == ("report-single", "report.html")
    assert Path(page.local_path).read_bytes() == (tmp_path / "single.html").read_bytes()
