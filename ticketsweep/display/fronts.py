"""Which trials no other beats in accuracy, sparsity and stability at once, in a sentence."""

from __future__ import annotations

from ticketsweep.display.figures import plural, short
from ticketsweep.results.fronts import Fronts

_NAMES = {"val_accuracy": "validation accuracy"}
_SHOWN = 12  # ids of trials


def front_text(fronts: Fronts) -> str | None:
    """The front and what is left out of it; None where fewer than two trials can be compared."""
    if len(fronts.ranked) < 2:
        return None
    *names, last = (_NAMES.get(name, name) for name in fronts.objectives)
    front = [short(row["trial_id"]) for row in fronts.front]
    more = f", … {len(front)} in all" if len(front) > _SHOWN else ""
    text = (
        f"Pareto front of {', '.join(names)} and {last}: {len(front)} of "
        f"{plural(len(fronts.ranked), 'trial')} ({', '.join(front[:_SHOWN])}{more})"
    )
    if fronts.left_out:
        lacking = ", ".join(f"{_NAMES.get(name, name)}" for name in fronts.lacking)
        without = "is without" if fronts.left_out == 1 else "are without"
        text += f"; {plural(fronts.left_out, 'complete trial')} {without} {lacking} and left out"
    return text
