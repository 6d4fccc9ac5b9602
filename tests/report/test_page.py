"""The page holds whatever a sweep holds, asks nothing of any network, and runs no one's code."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest

from ticketsweep.report import beside, choices, dependence, function, overlaps, settling
from ticketsweep.report.contents import drawn, sections
from ticketsweep.report.drawn import Drawn
from ticketsweep.report.page import report_page
from ticketsweep.report.published import published_for
from ticketsweep.results.report import ReportData
from ticketsweep.store.comparisons import ComparedPair, write_comparisons

MADE = datetime(2026, 1, 3, tzinfo=UTC)
SAMPLED = {"pairs": 2, "possible_pairs": 9}
ONE, TWO = [(1, 4, 7)], [(1, 4, 7), (1, 5, 7)]
EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'


class Parsed(HTMLParser):
    """Elements, visible text, and the contents of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._inside: str | None = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self._inside != "style":
            self.text += data

    def specs(self) -> list[dict]:
        return [
            json.loads(text, parse_constant=refuse_constant)
            for attributes, text in self.scripts
            if attributes.get("type") == "application/json"
        ]


def refuse_constant(name: str):
    raise AssertionError(f"{name} in the page's JSON")


def page_of(data: ReportData) -> Parsed:
    return Parsed(report_page(data, made=MADE))


@pytest.fixture(scope="module")
def data(tmp_path_factory, sweep_in) -> ReportData:
    """Of a sweep of three sound trials; only to be read."""
    sweep = sweep_in(tmp_path_factory.mktemp("three") / "storage")
    for density in (0.3, 0.5, 0.2):
        sweep.add(density=density)
    return sweep.data()


@pytest.fixture(scope="module")
def page(data) -> Parsed:
    return page_of(data)


@pytest.fixture(scope="module")
def figures(data) -> list[Drawn]:
    return drawn(data)


def of_two_networks(sweep) -> None:
    sweep.add()
    sweep.add(shapes={"conv.weight": (4, 3, 2, 2)}, model="lenet-5", granularity="neuron")


ODD: dict[str, tuple[Callable, str]] = {
    "no trial": (lambda sweep: None, "No trial is stored yet"),
    "failed alone": (
        lambda sweep: sweep.add(status="failed", error="out of memory\nlong story"),
        "1 trial failed: out of memory.",
    ),
    "one replicate": (lambda sweep: sweep.add(seeds=ONE), "Each trial has one replicate"),
    "two seeds": (lambda sweep: sweep.add(seeds=TWO), "seeds allow no interval"),
    "all kept": (lambda sweep: sweep.add(density=1.0), "No layer has an overlap"),
    "none kept": (lambda sweep: sweep.add(density=0.0), "No layer has an overlap"),
    "two networks": (of_two_networks, "The trials solve 2 problems"),
    "no figures": (
        lambda sweep: sweep.add(figures=False, val_accuracy=None, strong_accuracy=None),
        "so none is ranked",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_sweep_becomes_sentences_and_no_number_that_is_none(sweep, kind: str) -> None:
    make, sentence = ODD[kind]
    make(sweep)
    page = page_of(sweep.data())
    assert sentence in " ".join(page.text.split())
    assert page.specs()
    assert not re.search(r"\b(nan|NaN|inf|Infinity|None)\b", page.text)


def test_a_page_asks_for_nothing_and_runs_its_own_two_scripts_alone(page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "img", "object", "embed", "base", "form"}
        assert "src" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    own = [text for attributes, text in page.scripts if "type" not in attributes]
    packed = next(text for attributes, text in page.scripts if attributes.get("id") == "library")
    library = gzip.decompress(base64.b64decode(packed)).decode()
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (library, *own)
    ]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes


def test_what_users_name_stays_text(sweep) -> None:
    sweep.add(
        shapes={EVIL: (4, 5), "fc": (5, 4)},
        gate_family=EVIL,
        host=EVIL,
        dataset=f"parquet:{EVIL}",
        error=EVIL,
    )
    sweep.add(status="failed", error=EVIL)
    page = page_of(sweep.data())
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert len([None for attributes, _ in page.scripts if "type" not in attributes]) == 1
    for spec in page.specs():
        for trace in spec.get("data", []):  # Plotly takes some HTML for what it is
            shown = json.dumps([trace.get("name"), trace.get("hovertemplate"), trace.get("y")])
            assert "<img" not in shown
            assert "<script" not in shown


def test_every_figure_has_its_own_name_a_sentence_and_rows_as_wide_as_its_columns(figures) -> None:
    names = [figure.name for figure in figures]
    assert len(set(names)) == len(names)
    for figure in figures:
        assert re.fullmatch(r"[\w-]+", figure.name)
        assert figure.title
        assert figure.caption.endswith(".")
        assert figure.rows
        assert {len(row) for row in figure.rows} == {len(figure.columns)}
        assert int(figure.figure.layout.height) > 0


def test_a_menu_reaches_every_figure(data) -> None:
    for section in sections(data):
        choices = [json.dumps(figure.choice, sort_keys=True) for figure in section.figures]
        assert len(set(choices)) == len(choices)


def test_published_figures_stand_only_beside_the_same_network_and_data() -> None:
    assert published_for("lenet-300-100", "mnist", structured=False)
    assert not published_for("lenet-300-100", "digits", structured=False)


def test_what_was_published_is_drawn_where_it_may_stand(figures) -> None:
    pareto = next(each.figure for each in figures if each.name.startswith("pareto-strong"))
    assert any("published" in (trace.name or "") for trace in pareto.data)


def test_a_matrix_is_what_the_analysis_says_of_each_pair_in_the_order_of_seeds(sweep) -> None:
    trial = sweep.add(seeds=[(2, 5, 7), (1, 5, 7), (2, 4, 7), (1, 4, 7)])
    data = sweep.data()
    heatmap = overlaps.section(data).figures[0].figure.data[0]
    pairs = data.stability[trial].pairs[0]
    order = [3, 1, 2, 0]
    expected = pairs.matrix("all layers", "corrected")[order][:, order]
    assert list(heatmap.x) == ["i1 d1", "i1 d2", "i2 d1", "i2 d2"]
    for row, wanted in zip(heatmap.z, expected, strict=True):
        known = [value for value in row if value is not None]
        assert known == pytest.approx(wanted[~np.isnan(wanted)].tolist(), abs=1e-3)


def test_a_value_whose_trials_cannot_be_compared_has_its_column(sweep) -> None:
    sweep.add(seeds=ONE)  # rewind_step 100, and 0 for the next
    sweep.add()
    data = sweep.data()
    (setting,) = [each for each in data.settings if each.key == "rewind_step"]
    assert (list(setting.by_value), setting.distinct) == ([0], [0, 100])
    drawn = next(each for each in dependence.section(data).figures if "rewind" in each.name)
    assert list(drawn.figure.layout.xaxis.ticktext) == ["0", "100"]


def test_a_setting_that_is_switched_has_both_of_its_values_on_an_axis() -> None:
    axis = choices._Axis("gate.inputs", [True, False, None, ""])
    assert [text for _, text in axis.ends()] == ["", "False", "True"]
    assert axis.at(None) is None
    assert axis.at(False) == 0.5


def test_means_take_trials_of_one_problem(sweep) -> None:
    first, second = sweep.add(), sweep.add()
    other = sweep.add(shapes={"conv.weight": (4, 3, 2, 2)}, model="lenet-5")
    for trial, agreement in ((first, 0.5), (other, 0.9)):
        pairs = [ComparedPair(0, 1, "data", {"agreement": agreement})]
        write_comparisons(sweep.storage, "s", trial, "predictions", pairs, settings=SAMPLED)
    data = sweep.data()
    assert data.alike == {first, second}
    (row,) = data.function
    assert (row.figures["agreement"].mean, row.trials) == (0.5, 1)
    (setting,) = [each for each in data.settings if each.key == "rewind_step"]
    assert setting.by_value[100] == data.stability[first]  # of the other one, too, it is 100
    drawn = next(each for each in dependence.section(data).figures if "rewind" in each.name)
    assert "of the 2 trials of lenet-300-100 on mnist with weight gates alone" in drawn.caption
    assert "A sample of 2 of 9 pairs" in function.section(data).figures[0].caption


@pytest.mark.parametrize(
    "other", [{"config": '{"width": 0.25}'}, {"granularity": "neuron"}, {"weights": "joint"}]
)
def test_no_published_figure_stands_beside_networks_of_several_kinds(sweep, other) -> None:
    sweep.add()
    assert list(beside.stars(sweep.data()))
    sweep.add(**other)
    assert not list(beside.stars(sweep.data()))


def test_relabelled_tickets_are_also_held_to_what_their_inputs_give(sweep) -> None:
    trial = sweep.add()
    measures = {"corrected": 0.1, "matched_corrected": 0.4, "inputs_matched_corrected": 0.0}
    pairs = [
        ComparedPair(i, j, "init", {k: v + (i + j) / 1000 for k, v in measures.items()})
        for i, j in ((0, 3), (0, 6), (3, 6))
    ]
    write_comparisons(sweep.storage, "s", trial, "align", pairs, settings=SAMPLED)
    (drawn,) = function.section(sweep.data()).figures
    assert any("inputs" in text for text in drawn.figure.layout.yaxis.ticktext)
    for trace, row in zip(drawn.figure.data, drawn.rows, strict=True):
        mean, low, high = row[2], row[5], row[6]
        assert trace.error_x.array[0] == pytest.approx(high - mean, rel=1e-3)
        assert trace.error_x.arrayminus[0] == pytest.approx(mean - low, rel=1e-3)


def test_stored_comparisons_and_snapshots_have_a_section_each(sweep) -> None:
    trial = sweep.add(steps=(3, 6, 9))
    pairs = [
        ComparedPair(0, 1, "data", {"agreement": 0.75, "error_overlap": 0.5}),
        ComparedPair(0, 2, "data", {"agreement": 0.85}),
        ComparedPair(0, 3, "init", {}),
    ]
    write_comparisons(sweep.storage, "s", trial, "predictions", pairs, settings=SAMPLED)
    data = sweep.data()
    (predictions,) = function.section(data).figures
    assert [
        "data",
        "agreement",
        pytest.approx(0.8),
        0.75,
        0.85,
        None,
        None,
        2,
        1,
    ] in predictions.rows
    settled = settling.section(data)
    assert settled is not None
    (figure,) = settled.figures
    assert figure.title.startswith("The masks are settled at step 9")
    assert [row[0] for row in figure.rows] == [3, 6, 9]
