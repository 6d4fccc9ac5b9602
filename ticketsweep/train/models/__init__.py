"""Models by name, their initial parameters, and which of them are pruned."""

from ticketsweep.train.models.gating import prunable
from ticketsweep.train.models.initial import WEIGHT_INITS, initial_parameters
from ticketsweep.train.models.registry import ACTIVATIONS, FACTORIES, build_model

__all__ = [
    "ACTIVATIONS",
    "FACTORIES",
    "WEIGHT_INITS",
    "build_model",
    "initial_parameters",
    "prunable",
]
