"""Which trials no other beats in accuracy, sparsity and stability at once, in a sentence."""

from __future__ import annotations

from ticketsweep.display.figures import plural, short
from ticketsweep.results.fronts import Fronts

_NAMES = {"val_accuracy": "validation accuracy"}
_SHOWN = 12  # ids of trials
_REMEDY = (
    " (stability needs replicates of the same initial weights: ask for two or more data or gate "
    "seeds in `replicates`)"
)


def front_text(fronts: Fronts) -> str | None:
    """The front and what is left out of it, or why there is none; None of fewer than two trials."""
    if len(fronts.ranked) + fronts.left_out < 2:
        return None
    *names, last = (_NAMES.get(name, name) for name in fronts.objectives)
    lacking = ", ".join(_NAMES.get(name, name) for name in fronts.lacking)
    without = "is without" if fronts.left_out == 1 else "are without"
    left_out = f"{plural(fronts.left_out, 'complete trial')} {without} {lacking}"
    if len(fronts.ranked) < 2:
        text = f"No Pareto front of {', '.join(names)} and {last}: {left_out}"
        return text + _REMEDY if "stability" in fronts.lacking else text
    front = [short(row["trial_id"]) for row in fronts.front]
    more = f", … {len(front)} in all" if len(front) > _SHOWN else ""
    text = (
        f"Pareto front of {', '.join(names)} and {last}: {len(front)} of "
        f"{plural(len(fronts.ranked), 'trial')} ({', '.join(front[:_SHOWN])}{more})"
    )
    return f"{text}; {left_out} and left out" if fronts.left_out else text
