"""`report` writes one whole file, or says in a line why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from ticketsweep.errors import UserError
from ticketsweep.report.files import find_chrome


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


def test_figures_are_written_beside_the_page_and_again_in_their_place(
    command, stored: Path
) -> None:
    try:
        find_chrome()
    except UserError as error:
        pytest.skip(str(error))
    svg = ["--figures", "figures", "--figure-format", "svg"]
    ended = command("report", "single", *svg, "--storage", stored)
    assert ended.code == 0, ended.err
    assert ended.out == ""
    assert ended.err.splitlines()[-1].endswith("as svg, with their tables as csv and tex, "
                                               "written to figures")  # fmt: skip
    assert {path.name for path in Path.cwd().iterdir()} == {"single.html", "figures"}
    names = {path.name for path in Path("figures").iterdir()}
    stems = {Path(name).stem for name in names if name.endswith(".svg")}
    assert any(stem.startswith("pareto-") for stem in stems)
    tables = {f"{stem}.{suffix}" for stem in stems for suffix in ("svg", "csv", "tex")}
    assert names == {"figures.json", *tables}
    (Path("figures") / "notes.txt").touch()
    ended = command("report", "single", *svg, "--storage", stored)
    assert ended.code == 2
    assert "holds what no report has written: 'notes.txt'" in ended.err


def test_what_cannot_be_drawn_is_refused_before_anything_is_written(
    command, stored: Path, monkeypatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/not/there")
    monkeypatch.setattr("pathlib.Path.home", Path.cwd)
    for arguments, complaint in (
        (["--all-figures"], "go with --figures DIR"),
        (["--figure-format", "svg"], "go with --figures DIR"),
        (["--figures", "not/there"], "there is no folder"),
        (["--figures", "new"], "needs Chrome or Chromium"),
    ):
        ended = command("report", "single", *arguments, "--storage", stored)
        assert ended.code == 2
        assert complaint in ended.err
        assert ended.err.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []
