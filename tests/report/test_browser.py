"""The report in a real browser without a network: drawn, pointed at, filtered, sorted, printed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page, sync_playwright

from ticketsweep.config import parse_config
from ticketsweep.errors import UserError
from ticketsweep.report.files import find_chrome
from ticketsweep.report.page import report_page
from ticketsweep.report.theme import DARK, INK
from ticketsweep.results.report import report_data
from ticketsweep.results.sweeps import sweep_named, sweep_views
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.train.data import load_dataset
from ticketsweep.trial import run_trial

MADE = datetime(2026, 1, 3, tzinfo=UTC)
SHOWN = "figure.drawn:not([hidden])"
SWEEPS = {
    "sound": [{"replicates": {"init": 2, "data": 2}, "gate": {"l0_strength": s}} for s in (1, 3)],
    "single": [{"replicates": {"init": 1, "data": 1}}],
    # The product of fifteen layers leaves float32's range.
    "failed": [{"model": f"fc{'-16' * 15}", "weight_scale": 1000.0}],
}
# Each figure of a panel is chosen in the panel's menus as a person would; the others are come to.
DRAW_ALL = """async () => {
  const undrawn = [];
  for (const figure of document.querySelectorAll("figure.drawn")) {
    const choice = JSON.parse(figure.dataset.choice);
    const menus = [...(figure.closest(".panel")?.querySelectorAll("select") ?? [])];
    menus.forEach((menu) => { menu.value = choice[menu.dataset.menu]; });
    menus.at(-1)?.dispatchEvent(new Event("change", { bubbles: true }));
    figure.scrollIntoView();
    const until = Date.now() + 5000;
    const drawn = () => figure.querySelector(".main-svg")?.getBoundingClientRect().width > 100;
    while (!drawn() && Date.now() < until) await new Promise((go) => setTimeout(go, 10));
    if (!drawn()) undrawn.push(figure.id);
  }
  return undrawn;
}"""

UNFOLDED_WIDTH = """() => {
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
  return document.documentElement.scrollWidth;
}"""


class Opened:
    """A page, what it asked for, and what it complained about."""

    def __init__(self, browser: Browser, file: Path, **screen: Any) -> None:
        screen = {"viewport": {"width": 1280, "height": 900}} | screen
        context = browser.new_context(offline=True, **screen)
        context.set_default_timeout(20_000)
        self.page: Page = context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())
        self.page.wait_for_function("typeof Plotly !== 'undefined'")

    def close(self) -> None:
        self.page.context.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        path = find_chrome()
    except UserError as error:
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The report of one of the sweeps above, found by real trials on digits."""
    folder = tmp_path_factory.mktemp("reports")
    storage = Storage.open(str(folder / "storage"), create=True)
    digits = load_dataset("digits", data_root=Path())
    torch.set_num_threads(1)

    def of(sweep: str) -> Path:
        file = folder / f"{sweep}.html"
        if not file.exists():
            for changes in SWEEPS[sweep]:
                raw = {"model": "fc-16", "dataset": "digits", "train": {"steps": 40}} | changes
                config = parse_config(raw, source="test")
                for _ in run_trial(config, dataset=digits, storage=storage, sweep=sweep):
                    pass
            database = Database(storage)
            views = sweep_views(database.sweeps().to_pylist(), database.trials().to_pylist())
            view = sweep_named(views, sweep, storage="here")
            data = report_data(database, view, importance=[], storage=None)
            file.write_text(report_page(data, made=MADE), encoding="utf-8")
        return file

    return of


@pytest.fixture(scope="module")
def opened(browser: Browser, report: Callable[[str], Path]) -> Iterator[Opened]:
    """The sound sweep's report."""
    opened = Opened(browser, report("sound"))
    yield opened
    opened.close()


def first_figure(page: Page):
    """The front of accuracy and sparsity, drawn."""
    figure = page.locator(f"#pareto {SHOWN}").first
    figure.scroll_into_view_if_needed()
    figure.locator(".main-svg").first.wait_for()
    return figure


@pytest.mark.slow
@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_figure_is_drawn_without_a_request_or_a_complaint(browser, report, sweep: str):
    file = report(sweep)
    opened = Opened(browser, file)
    count = opened.page.locator("figure.drawn").count()
    assert bool(count) is (sweep != "failed")
    assert opened.page.evaluate(DRAW_ALL) == []
    assert opened.asked == [file.as_uri()]
    assert opened.complaints == []
    opened.close()


def test_a_point_says_what_it_is_and_a_legend_entry_hides_its_trials(opened: Opened):
    figure = first_figure(opened.page)
    points = figure.locator(".scatterlayer .points path")
    trials = points.count()
    points.first.hover(force=True)
    told = figure.locator(".hoverlayer .hovertext")
    told.wait_for()
    assert re.search(r"trial [0-9a-f]{8}.*sparsity [\d.]+ %", told.text_content() or "")
    figure.locator(".legendtoggle").last.click()
    opened.page.wait_for_function(
        "([figure, n]) => figure.querySelectorAll('.scatterlayer .points path').length < n",
        arg=[figure.element_handle(), trials],
    )
    assert opened.complaints == []


def test_a_drag_zooms_and_a_double_press_goes_back(opened: Opened):
    figure = first_figure(opened.page)
    extent = "figure => figure.querySelector('.plot')._fullLayout.xaxis.range.map(Number)"
    whole = figure.evaluate(extent)
    box = figure.locator(".nsewdrag").first.bounding_box()
    assert box is not None
    mouse = opened.page.mouse
    mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    mouse.down()
    mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.6 * box["height"], steps=4)
    mouse.up()
    zoomed = figure.evaluate(extent)
    assert zoomed[1] - zoomed[0] == pytest.approx(0.3 * (whole[1] - whole[0]), rel=0.05)
    figure.locator(".nsewdrag").first.dblclick()
    opened.page.wait_for_function(
        f"([figure, least]) => {{ const [a, b] = ({extent})(figure); return b - a > least; }}",
        arg=[figure.element_handle(), 0.9 * (whole[1] - whole[0])],
    )


def test_the_tickets_are_filtered_and_sorted_by_keyboard(opened: Opened):
    page = opened.page
    rows = page.locator("#tickets tbody tr:visible")
    assert rows.count() == 2
    wanted = rows.last.locator("td").nth(1).inner_text()
    page.locator("#filter").focus()
    page.keyboard.type(wanted)
    assert [text.split()[1] for text in rows.all_inner_texts()] == [wanted]
    assert page.locator("#count").inner_text() == "1 of 2 trials"
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    assert rows.count() == 2
    page.locator("#tickets th button", has_text="sparsity").focus()
    head = page.locator("#tickets th[aria-sort]")
    for order, key in (("descending", "Enter"), ("ascending", "Space")):
        page.keyboard.press(key)
        assert head.get_attribute("aria-sort") == order
        at = head.evaluate("head => head.cellIndex")
        found = [float(row.locator("td").nth(at).get_attribute("data-sort")) for row in rows.all()]
        assert found == sorted(found, reverse=order == "descending")


def test_the_records_behind_a_figure_open_by_keyboard(opened: Opened):
    details = opened.page.locator(f"#curves {SHOWN} details.data")
    details.locator("summary").focus()
    opened.page.keyboard.press("Enter")
    details.locator("tbody tr").first.wait_for()
    rows = details.locator("tbody tr").count()
    assert details.locator("summary").inner_text() == f"Show as table: {rows} rows"
    assert details.locator("thead th").all_inner_texts()[:3] == ["trial", "figure", "step"]


def test_a_trial_chosen_in_one_menu_is_shown_everywhere(opened: Opened):
    menus = opened.page.locator('select[data-menu="Trial"]')
    choices = menus.first.locator("option").all_inner_texts()
    assert len(choices) == 2
    shown = opened.page.locator(f'{SHOWN}[data-choice*="Trial"]')
    for choice in reversed(choices):
        menus.first.select_option(choice)
        assert {menu.input_value() for menu in menus.all()} == {choice}
        assert shown.count() == menus.count()
        assert all(choice in (each.get_attribute("data-choice") or "") for each in shown.all())


def test_the_dark_page_has_dark_figures(opened: Opened):
    figure = first_figure(opened.page)
    for scheme, ink in (("light", INK), ("dark", DARK[INK]), ("light", INK)):
        opened.page.emulate_media(color_scheme=scheme)
        red, green, blue = (int(ink[at : at + 2], 16) for at in (1, 3, 5))
        opened.page.wait_for_function(
            "([figure, ink]) => figure.querySelector('.xtick text').style.fill === ink",
            arg=[figure.element_handle(), f"rgb({red}, {green}, {blue})"],
        )


def test_a_print_has_every_shown_figure_and_no_controls(opened: Opened):
    page = opened.page
    assert page.pdf().startswith(b"%PDF")
    undrawn = f"{SHOWN}:not(:has(.main-svg))"
    page.wait_for_function(f"!document.querySelector('{undrawn}')")
    page.emulate_media(media="print")
    for control in (".menus", ".tools", "nav.toc", "details.data", "#tickets button"):
        assert page.locator(f"{control}:visible").count() == 0
    assert page.locator(f"{SHOWN} .plot:visible").count() == page.locator(SHOWN).count()
    page.emulate_media(media="screen")


@pytest.mark.parametrize("sweep", ["sound", "failed"])
def test_nothing_is_wider_than_a_phone(browser, report, sweep: str):
    phone = {"width": 360, "height": 740}
    opened = Opened(browser, report(sweep), viewport=phone, is_mobile=True, has_touch=True)
    if sweep == "sound":
        first_figure(opened.page)
    assert opened.page.evaluate(UNFOLDED_WIDTH) <= 360
    opened.close()


def test_nothing_is_wider_than_a_desk(opened: Opened):
    assert opened.page.evaluate(UNFOLDED_WIDTH) <= 1280


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_report_of_200_trials_is_small_and_opens_soon(browser, sweep, tmp_path: Path):
    for at in range(200):
        sweep.add(seeds=[(init, data, 7) for init in (1, 2) for data in (4, 5)],
                  density=0.1 + 0.004 * (at * 37 % 200))  # fmt: skip
    file = tmp_path / "many.html"
    file.write_text(report_page(sweep.data(), made=MADE), encoding="utf-8")
    assert file.stat().st_size < 6e6
    begun = time.perf_counter()
    opened = Opened(browser, file)
    first_figure(opened.page)
    seconds = time.perf_counter() - begun
    print(f"200 trials: {file.stat().st_size / 1e6:.1f} MB, first figure after {seconds:.1f} s")
    assert opened.complaints == []
    opened.close()
