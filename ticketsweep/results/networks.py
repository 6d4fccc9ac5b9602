"""The networks that a trial compares: its ticket, retrained or not, the dense one, the controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from ticketsweep.names import CONTROLS
from ticketsweep.results.rows import Row, figure_of


@dataclass(frozen=True)
class Network:
    """What it is called, and the metrics of a replicate that hold its accuracies."""

    label: str
    test: str
    validation: str


@dataclass(frozen=True)
class Difference:
    """Test accuracy of one network less that of another, each replicate by itself.

    Attributes
    ----------
    mean, low, high: fractions; the smallest and the largest difference of the `n` replicates.
    """

    of: Network
    less: Network
    mean: float
    low: float
    high: float
    n: int


def _network(label: str, name: str) -> Network:
    return Network(label, f"{name}_accuracy", f"{name}_val_accuracy")


STRONG = Network("strong ticket", "strong_accuracy", "val_accuracy")
_RETRAINED = _network("retrained ticket", "retrained")
_DENSE = _network("dense network", "dense")
_CONTROLS = [_network(name.replace("_", " "), name) for name in CONTROLS]
_RETRAINED_CONTROLS = [
    _network(f"{name.replace('_', ' ')}, retrained", f"{name}_retrained") for name in CONTROLS
]
NETWORKS = (
    STRONG,
    _network("joint: with the weights as trained along", "joint"),
    *_CONTROLS,
    _RETRAINED,
    _DENSE,
    *_RETRAINED_CONTROLS,
)


def differences(replicates: Sequence[Row]) -> list[Difference]:
    """How far the tickets of a trial lie above what they are to be compared with.

    These are the ticket less the best of its controls, and the retrained ticket less the dense
    network and less the best of the retrained controls. Which control is the best is decided on
    the validation split, since the best of several on the test split would look too good.

    Parameters
    ----------
    replicates: rows of one trial; those that lack one of two figures are left out of their
        difference.
    """
    pairs = [
        (STRONG, _best(_CONTROLS, replicates)),
        (_RETRAINED, _DENSE),
        (_RETRAINED, _best(_RETRAINED_CONTROLS, replicates)),
    ]
    found = []
    for of, less in pairs:
        each = list(_paired(of, less, replicates)) if less else []
        if less and each:
            found.append(Difference(of, less, fmean(each), min(each), max(each), len(each)))
    return found


def _best(networks: Sequence[Network], replicates: Sequence[Row]) -> Network | None:
    """The network with the highest mean accuracy on the validation split, if any has one."""
    scored = []
    for network in networks:
        each = [figure_of(row, network.validation) for row in replicates]
        known = [value for value in each if value is not None]
        if known:
            scored.append((fmean(known), network))
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def _paired(of: Network, less: Network, replicates: Sequence[Row]) -> Iterator[float]:
    for row in replicates:
        one, other = figure_of(row, of.test), figure_of(row, less.test)
        if one is not None and other is not None:
            yield one - other
