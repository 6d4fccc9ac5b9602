"""Gate families, one a file: `FAMILIES` has them by name, `interface.py` says what each offers."""

from __future__ import annotations

from collections.abc import Callable

from ticketsweep.train.gates.edge_popup import EdgePopupSettings
from ticketsweep.train.gates.gaussian import GaussianSettings
from ticketsweep.train.gates.hard_concrete import HardConcreteSettings
from ticketsweep.train.gates.interface import Family
from ticketsweep.train.gates.magnitude import MagnitudeSettings
from ticketsweep.train.gates.random import RandomSettings
from ticketsweep.train.gates.sigmoid import SigmoidSettings

FAMILIES: dict[str, Callable[..., Family]] = {
    "gaussian": GaussianSettings,
    "hard_concrete": HardConcreteSettings,
    "sigmoid": SigmoidSettings,
    "edge_popup": EdgePopupSettings,
    "magnitude": MagnitudeSettings,
    "random": RandomSettings,
}
