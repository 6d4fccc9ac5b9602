"""Which parameters of a model are gated."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from ticketsweep.errors import ModelError


def prunable(
    model: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[str]:
    """Names of the parameters that are gated, in the order of `model.named_parameters()`.

    The rule: the weights of linear and convolution layers and of attention's input projections;
    no biases, norms, embeddings or class tokens.

    Parameters
    ----------
    include: shell patterns (`*`, `?`, `[…]`) of names; if there are any, exactly the parameters
        that match one of them are taken in place of the rule's.
    exclude: patterns of names that are left out of these.

    Raises
    ------
    ModelError: a pattern matches nothing, or no parameter is left.
    """
    names = [name for name, _ in model.named_parameters()]
    by_rule = [name for name in names if _is_prunable(model, name)]
    if not by_rule and not include:
        raise ModelError(
            f"model must have a prunable parameter, got {type(model).__name__} without any "
            "(the weights of nn.Linear and nn.Conv2d are prunable; gate.include takes others)"
        )
    return selected(names if include else by_rule, include, exclude, what="parameter")


def selected(
    names: Sequence[str], include: Sequence[str], exclude: Sequence[str], *, what: str
) -> list[str]:
    """The names that match a pattern of `include` (all of them if it is empty) but of `exclude`.

    Parameters
    ----------
    what: what the names are names of, for the messages.

    Raises
    ------
    ModelError: a pattern matches nothing, or nothing is left.
    """
    for field, patterns in (("gate.include", include), ("gate.exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ModelError(
                    f"{field} must match a {what}, got {pattern!r} (there are {_some(names)})"
                )
    kept = [
        name
        for name in names
        if (not include or any(fnmatchcase(name, pattern) for pattern in include))
        and not any(fnmatchcase(name, pattern) for pattern in exclude)
    ]
    if not kept:
        raise ModelError(
            f"gate.exclude must leave a {what}, got {', '.join(map(repr, exclude))} "
            f"(there are {_some(names)})"
        )
    return kept


def _is_prunable(model: nn.Module, name: str) -> bool:
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    if isinstance(module, nn.MultiheadAttention):
        return leaf.endswith("proj_weight")  # one matrix, or three where key and value differ
    return leaf == "weight" and isinstance(module, (nn.Linear, nn.Conv2d))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f", … {len(names)} in all" if len(names) > 6 else "")
