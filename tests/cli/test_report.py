"""`report` writes one whole file, or says in a line why it cannot."""

from __future__ import annotations

from pathlib import Path


def test_a_report_is_written_here_under_the_sweeps_name(command, stored: Path) -> None:
    ended = command("report", "single", "--storage", stored)
    assert ended.code == 0, ended.err
    assert ended.out == ""
    assert "report of sweep single written to single.html" in ended.err
    assert Path("single.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.name for path in Path.cwd().iterdir()] == ["single.html"]


def test_what_is_no_file_and_what_is_no_sweep_is_refused(command, stored: Path) -> None:
    Path("folder").mkdir()
    for arguments, complaint in (
        (["single", "--out", "folder"], "--out must be a file, got folder"),
        (["single", "--out", "not/there.html"], "there is no folder not (make it first)"),
        (["sungle"], "no sweep 'sungle'"),
    ):
        ended = command("report", *arguments, "--storage", stored)
        assert ended.code == 2
        assert complaint in ended.err
        assert ended.err.count("\n") == 1
    assert [path.name for path in Path.cwd().iterdir()] == ["folder"]
