"""A network's permutation symmetry as data: which entries of which arrays move with a unit.

Hidden units have no names of their own. Relabel them, and with each its weights, its norm's entries
and the columns that read it: the network computes what it did (Hecht-Nielsen 1990; as data:
Ainsworth et al. 2023, "Git Re-Basin").
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Entries of one parameter that belong to units.

    Unit `u` owns the indices `offset + u * block` to `offset + (u + 1) * block - 1` along `dim`.
    """

    parameter: str
    dim: int
    block: int = 1
    offset: int = 0


@dataclass(frozen=True)
class Permutable:
    """Interchangeable units, and every slice that moves with them.

    Parameters
    ----------
    name: of the parameter that first produces the units.
    units: how many.
    spans: of parameters and of buffers that hold a number a unit (running statistics).

    Raises
    ------
    ValueError: an array has these units along two dimensions: their order would act on it twice,
        and no assignment of units finds the best one.
    """

    name: str
    units: int
    spans: tuple[Span, ...]

    def __post_init__(self) -> None:
        dims: dict[str, int] = {}
        for span in self.spans:
            if dims.setdefault(span.parameter, span.dim) != span.dim:
                raise ValueError(
                    f"the units of {self.name} must lie along one dimension of an array, got "
                    f"{dims[span.parameter]} and {span.dim} of {span.parameter}"
                )
