"""All sections of a report, in order."""

from __future__ import annotations

from ticketsweep.report import (
    accuracies,
    choices,
    curves,
    dependence,
    function,
    layers,
    overlaps,
    pareto,
    seeds,
    settling,
)
from ticketsweep.report.drawn import Drawn, Section
from ticketsweep.results.report import ReportData


def sections(data: ReportData) -> list[Section]:
    """Every section that has figures, or a sentence in place of them."""
    found = [
        pareto.section(data),
        accuracies.section(data),
        dependence.section(data),
        overlaps.section(data),
        layers.section(data),
        seeds.section(data),
        settling.section(data),
        function.section(data),
        choices.section(data),
        choices.lines_section(data),
        curves.section(data),
    ]
    return [section for section in found if section is not None]


def drawn(data: ReportData) -> list[Drawn]:
    """Every figure of the report, those behind menus included."""
    return [figure for section in sections(data) for figure in section.figures]
