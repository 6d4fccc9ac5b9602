"""Figures as files: drawn by a browser, with the tables behind them, in a folder of their own."""

from __future__ import annotations

import csv
import json
import re
import struct
from pathlib import Path

import plotly.graph_objects as go
import pytest

from ticketsweep.errors import UserError
from ticketsweep.report import files
from ticketsweep.report.contents import sections
from ticketsweep.report.drawn import Cell, Drawn, Section
from ticketsweep.report.files import ABOUT, check_folder, find_chrome, on_paper, shown_first
from ticketsweep.report.latex import escaped, latex_table
from ticketsweep.report.text import cell

NASTY = r"\input{x} $a_b^c$ 50 % & #1 ~ <b> | [*]"
INCHES = 5.5


def figure(name: str, *, menu: str = "", columns=("layer",), rows=(("fc1",),)) -> Drawn:
    drawn = go.Figure(layout={"height": 200})
    drawn.add_scatter(x=[1, 2], y=[2, 1], name=NASTY)
    choice = {"Trial": menu} if menu else {}
    return Drawn(name, "What & why", "A caption\nof two lines.", drawn, columns, rows, choice)


def lines(columns: tuple[str, ...], *rows: tuple[Cell, ...]) -> list[str]:
    """Those of the table that hold cells, without the ends of the lines."""
    table = latex_table(figure("t", columns=columns, rows=rows))
    return [line.removesuffix(r" \\") for line in table.splitlines() if line.endswith(r"\\")]


@pytest.fixture(scope="module")
def chrome() -> str:
    try:
        return find_chrome()
    except UserError as error:
        pytest.skip(str(error))


def test_the_folder_holds_each_figure_in_each_format_and_its_tables(sweep, chrome, tmp_path):
    sweep.add()
    sweep.add(shared=0.2)
    chosen = [each for each in shown_first(sections(sweep.data())) if each.name != "parallel"][:2]
    folder = tmp_path / "figures"
    check_folder(folder)
    counted: list[None] = []
    files.write_figures(
        folder,
        chosen,
        sweep="s",
        formats=["png", "svg", "pdf"],
        browser=chrome,
        drawn=lambda: counted.append(None),
    )
    assert len(counted) == 3 * len(chosen)
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    assert [each["name"] for each in about["figures"]] == [each.name for each in chosen]
    names = {name for each in about["figures"] for name in each["files"]}
    assert {path.name for path in folder.iterdir()} == {ABOUT, *names}
    for each in chosen:
        png = (folder / f"{each.name}.png").read_bytes()
        assert struct.unpack(">I", png[16:20])[0] == INCHES * 300
        svg = (folder / f"{each.name}.svg").read_text(encoding="utf-8")
        assert f'width="{INCHES * 96:.0f}"' in svg
        assert "http" not in svg.replace("http://www.w3.org/", "")
        pdf = (folder / f"{each.name}.pdf").read_bytes()
        assert re.search(rb"MediaBox \[0 0 396 ", pdf)
        assert pdf.count(b"/Type /Page\n") == 1
        with (folder / f"{each.name}.csv").open(encoding="utf-8", newline="") as stream:
            head, *rows = csv.reader(stream)
        assert head == list(each.columns)
        assert rows == [["" if c is None else str(c) for c in row] for row in each.rows]
    check_folder(folder)  # what a report has written it may replace


def test_a_figure_on_paper_is_white_and_legible_and_leaves_the_pages_own_alone(sweep):
    sweep.add()
    for each in shown_first(sections(sweep.data())):
        before = json.loads(each.figure.to_json())
        paper = on_paper(each.figure)
        assert json.loads(each.figure.to_json()) == before
        assert paper.layout.width == INCHES * 96
        assert paper.layout.template.layout.paper_bgcolor == "#ffffff"
        sizes = [float(size) for size in re.findall(r'"size":([\d.]+)', paper.layout.to_json())]
        assert min(sizes, default=99) >= 8 * 96 / 72


def test_what_the_page_shows_first_is_each_lone_figure_and_the_first_of_each_menu():
    shown = shown_first(
        [
            Section("a", "", "", [figure("a1", menu="1"), figure("a2", menu="2"), figure("a3")]),
            Section("b", "", "", []),
            Section("c", "", "", [figure("c1", menu="1")]),
        ]
    )
    assert [each.name for each in shown] == ["a3", "a1", "c1"]


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("not/there", "there is no folder"),
        ("file", "must be a folder, got"),
        (".", "must be a folder of its own"),
        ("others", "holds what no report has written: 'mine.txt'"),
        ("older", "holds what no report has written: 'mine.txt'"),
    ],
)
def test_no_folder_is_replaced_that_holds_what_is_not_ours(
    tmp_path, monkeypatch, place: str, complaint: str
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for name in ("others", "older", "empty"):
        Path(name).mkdir()
    for name in ("others", "older"):
        (Path(name) / "mine.txt").touch()
    (Path("older") / ABOUT).write_text('{"figures": [{"files": ["a.png"]}]}')
    with pytest.raises(UserError, match=complaint) as error:
        check_folder(Path(place))
    assert "\n" not in str(error.value)
    check_folder(Path("empty"))
    check_folder(Path("new"))


def test_without_a_browser_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "chrome"))
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    with pytest.raises(UserError, match="needs Chrome or Chromium") as error:
        find_chrome()
    assert "\n" not in str(error.value)


def test_an_interval_stands_in_brackets_behind_its_figure_as_the_page_has_it():
    columns = ("layer", "corrected", "low", "high", "p")
    assert lines(columns, ("fc1", 0.4123, -0.05, 0.44, 0.0277), ("fc2", 0.1, None, None, None)) == [
        "layer & corrected & p",
        "fc1 & 0.41 [$-$0.05, 0.44] & 0.0277",
        "fc2 & 0.10 & --",
    ]
    columns = ("trial", "stability", "sparsity", "stability_low", "stability_high")
    assert lines(columns, ("a1", 0.5, 0.761, 0.4, 0.6))[1] == r"a1 & 0.50 [0.40, 0.60] & 76.10 \%"


def test_other_numbers_are_those_of_the_page_and_stand_right_of_words():
    table = latex_table(figure("t", columns=("part", "seeds", "loss"), rows=[("a", 3, -0.12345)]))
    assert r"\begin{tabular}{lrr}" in table
    assert f"a & 3 & $-${cell(0.12345, 'loss')}" in table


def test_a_long_table_goes_on_on_the_next_page():
    rows = [("fc1", at) for at in range(41)]
    long = latex_table(figure("t", columns=("layer", "step"), rows=rows))
    assert r"\begin{longtable}{lr}" in long
    assert "longtable" not in latex_table(figure("t", columns=("layer", "step"), rows=rows[:40]))


def test_nothing_that_users_name_is_a_command_to_latex():
    left = escaped(NASTY)
    for known in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}",
                  r"\textless{}", r"\textgreater{}", r"\textbar{}"):  # fmt: skip
        left = left.replace(known, "")
    left = re.sub(r"\\[&%$#_{}]", "", left)
    assert not set(left) & set("\\&%$#_{}~^<>|")
    assert lines((NASTY,), ("[*] a",))[1] == "{}[*] a"  # else it would belong to the row before
    head = latex_table(figure("t")).splitlines()[:3]
    assert head[1] == "% A caption of two lines."
