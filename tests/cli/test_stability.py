"""The command that compares tickets: computes what is lacking, stores it, and shows it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copied(stored: Path, tmp_path: Path) -> Path:
    """A storage of one's own, with a trial of four replicates."""
    return Path(shutil.copytree(stored, tmp_path / "copied"))


def test_comparisons_are_computed_once_and_then_shown(command, copied: Path) -> None:
    flags = ("--predictions", "--transfer")
    first = command("stability", "single", *flags, "--storage", copied)
    assert (first.code, "testing masks on other weights" in first.err) == (0, True)
    assert "Do the tickets predict the same?" in first.out
    assert "Does a ticket's mask work on other initial weights?" in first.out
    assert (copied / "comparisons/sweep=single").is_dir()
    again = command("stability", "single", *flags, "--storage", copied)
    assert (again.code, again.err, again.out) == (0, "", first.out)
    shown = command("stability", "single", "--storage", copied, "--format", "json")
    records = json.loads(shown.out)["comparisons"]
    assert {each["kind"] for each in records} == {"predictions", "transfer"}
    agreement = [each for each in records if each["measure"] == "agreement"]
    assert [each["differs"] for each in agreement] == ["data", "init", "init+data"]
    assert all(each["least"] <= each["mean"] <= each["most"] for each in records)
    csv = command("stability", "single", flags[0], "--storage", copied, "--format", "csv")
    header, *lines = csv.out.splitlines()
    assert header.startswith("kind,differs,measure,mean,")
    assert lines
    assert all(line.startswith("predictions,") for line in lines)
    by_layer = command("stability", "single", "--by", "model", "--storage", copied)
    assert "fc-16" in by_layer.out.partition("Do the tickets predict the same?")[2]


def test_retraining_and_units_are_shown_with_how_they_were_made(command, copied: Path) -> None:
    flags = ("--connectivity", "--retrain-steps", "8", "--align")
    found = command("stability", "single", *flags, "--storage", copied)
    assert found.code == 0
    assert "Do retrained tickets lie in one basin?" in found.out
    assert "Retrained for 8 steps." in " ".join(found.out.split())
    assert "Are tickets of other initial weights the same, relabelled?" in found.out


def test_what_is_stored_is_shown_though_nothing_could_be_compared(
    command, copied: Path, monkeypatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("ticketsweep.revisit.comparing.remade_tickets", full)
    found = command("stability", "single", "--predictions", "--storage", copied)
    assert found.code == 1
    assert "fc1" in found.out
    assert "of 1 trial could not be compared: out of memory" in " ".join(found.err.split())


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--connectivity",), "--retrain-steps must be given where retrain.steps is 0"),
        (("--retrain-steps", "8", "--align"), "--retrain-steps goes with --connectivity"),
        (("--address", "auto"), "--address goes with a comparison"),
        (("--set", "device=cpu"), "--set goes with a comparison"),
        (("--predictions", "--set", "seed=1"), "a setting has changed since"),
        (("--predictions", "--trial", "zz"), "--trial 'zz' begins the id of none"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(command, stored: Path, flags, complaint) -> None:
    ended = command("stability", "single", *flags, "--storage", stored)
    assert (ended.code, ended.out) == (2, "")
    (error,) = [line for line in ended.err.splitlines() if line.startswith("Error: ")]
    assert complaint in error
