"""The table behind a figure as LaTeX, to be read in with `\\input`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ticketsweep.display.figures import NONE, is_share
from ticketsweep.report.drawn import Cell, Drawn
from ticketsweep.report.text import cell

_MOST_ROWS = 40  # of a table on one page; a longer one goes on on the next
_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "''",
        **{special: f"\\{special}" for special in "&%$#_{}"},
        NONE: "--",
        "±": r"$\pm$",
        "·": r"\textperiodcentered{}",
        "…": r"\dots{}",
        "×": r"$\times$",
    }
)


def latex_table(drawn: Drawn) -> str:
    """A `tabular` with the rules of booktabs, or a `longtable` where a page has not the room.

    Numbers are as the page shows them: shares in per cent, an interval in brackets behind its
    figure. Title, caption and the packages that are needed stand above it as comments.
    """
    columns = _columns(drawn.columns)
    long = len(drawn.rows) > _MOST_ROWS
    kind = "longtable" if long else "tabular"
    sides = "".join("r" if _is_numeric(drawn, at) else "l" for at, _ in columns)
    head = _line([escaped(drawn.columns[at]) for at, _ in columns])
    packages = r"\usepackage{booktabs,longtable}" if long else r"\usepackage{booktabs}"
    told = [drawn.title, drawn.caption, f"Needs {packages}"]
    lines = [
        *(f"% {' '.join(each.split())}" for each in told),
        f"\\begin{{{kind}}}{{{sides}}}",
        r"\toprule",
        head,
        r"\midrule",
        *([r"\endhead"] if long else []),
        *(_line(list(_cells(row, columns, drawn.columns))) for row in drawn.rows),
        r"\bottomrule",
        f"\\end{{{kind}}}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that LaTeX sets as it stands; what cannot be printed is left out."""
    known = " ".join(text.split())
    return "".join(c for c in known if c.isprintable()).translate(_ESCAPES)


def _line(cells: Sequence[str]) -> str:
    """A row. An opening bracket or a star at its start would belong to the row before."""
    guard = "{}" if cells[0].startswith(("[", "*")) else ""
    return f"{guard}{' & '.join(cells)} \\\\"


def _columns(names: Sequence[str]) -> list[tuple[int, tuple[int, int] | None]]:
    """The columns that are printed, each with those that hold the ends of its interval."""
    ends: dict[int, tuple[int, int]] = {}
    for at, name in enumerate(names):
        high = f"{name.removesuffix('low')}high"
        if name.endswith("low") and high in names:
            whose = name.removesuffix("_low")
            place = names.index(whose) if whose != name and whose in names else at - 1
            ends[place] = (at, names.index(high))
    hidden = {at for pair in ends.values() for at in pair}
    return [(at, ends.get(at)) for at in range(len(names)) if at not in hidden]


def _is_numeric(drawn: Drawn, at: int) -> bool:
    known = [row[at] for row in drawn.rows if row[at] is not None]
    return bool(known) and not any(isinstance(value, str) for value in known)


def _cells(
    row: Sequence[Cell],
    columns: Sequence[tuple[int, tuple[int, int] | None]],
    names: Sequence[str],
) -> Iterator[str]:
    for at, ends in columns:
        value = row[at]
        low, high = (row[ends[0]], row[ends[1]]) if ends else (None, None)
        if isinstance(value, float) and isinstance(low, float) and isinstance(high, float):
            told = [_number(each, names[at]) for each in (value, low, high)]
            yield f"{told[0]} [{told[1]}, {told[2]}]"
        elif isinstance(value, float) and ends:
            yield _number(value, names[at])
        elif isinstance(value, (int, float)):
            yield _signed(cell(value, names[at]))
        else:
            yield escaped(cell(value, names[at]))


def _number(value: float, name: str) -> str:
    """A figure that has an interval in some row: two decimals, in per cent where it is a share."""
    return _signed(cell(value, name) if is_share(name) else f"{value:z.2f}")


def _signed(number: str) -> str:
    """A number with a minus sign in place of a hyphen."""
    sign, digits = ("$-$", number[1:]) if number.startswith("-") else ("", number)
    return sign + escaped(digits)
