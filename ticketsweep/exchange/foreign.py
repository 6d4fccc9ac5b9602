"""Masks that other projects' own code has written, read without running any of it.

open_lth (github.com/facebookresearch/open_lth, `pruning/mask.py`): every level of a run has a
folder with `mask.pth`, a torch file of layer's name -> int32 tensor of 0 and 1, and
`sparsity_report.json`, how many weights there are and how many of them are unpruned.

hidden-networks (github.com/allenai/hidden-networks, `main.py`, `utils/conv_type.py`): a checkpoint
`*.state` or `*.pth` is a torch file of a mapping whose `state_dict` has `LAYER.weight` and
`LAYER.scores` for each layer that edge-popup prunes. The mask keeps the highest absolute scores of
each layer: all but int((1 - prune_rate) * n) of n, so that `prune_rate` is the share that stays. It
is not in the file, but in `settings.txt` of the run's folder, the one above `checkpoints`.

Both are pickles. `torch.load(weights_only=True)` builds tensors and plain values from them and
refuses everything else, so that a file cannot run code.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ticketsweep.errors import ExchangeError
from ticketsweep.store.paths import one_line

OPEN_LTH, HIDDEN_NETWORKS = "open_lth", "hidden-networks"

_MASK_FILE, _REPORT_FILE, _SETTINGS_FILE = "mask.pth", "sparsity_report.json", "settings.txt"
_SCORES = ".scores"
_PARALLEL = "module."  # what nn.DataParallel puts before every name
_SUBNET = "SubnetConv"  # the layer whose scores are cut by prune_rate
_TOLD = ("arch", "epoch", "best_acc1", "curr_acc1")
_LONGEST_NAME = 200

Arrays = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class ForeignMasks:
    """The masks of one file.

    Attributes
    ----------
    project: `OPEN_LTH` or `HIDDEN_NETWORKS`.
    file, digest: where it lay, and blake2b-128 of its bytes in hex.
    masks: layer's name -> bool array of the layer's shape, in the file's order.
    told: what else the file says of itself.
    accuracy: on that project's test split, as the file has it; a fraction, None without one.
    """

    project: str
    file: str
    digest: str
    masks: Arrays
    told: Mapping[str, object]
    accuracy: float | None


def read_foreign(path: Path, *, prune_rate: float | None = None) -> ForeignMasks:
    """Read a file of either project, or the folder of one of open_lth's levels.

    Parameters
    ----------
    prune_rate: of hidden-networks: the share of each layer's weights that stays, in (0, 1]; None
        where `settings.txt` is still in the run's folder.

    Raises
    ------
    ExchangeError: it cannot be read, would run code, is of neither project or contradicts itself;
        or the prune rate is missing, or given for a file that has none.
    """
    file = path / _MASK_FILE if path.is_dir() else path
    try:
        content = file.read_bytes()
    except OSError as error:
        hint = f" (open_lth's levels have a {_MASK_FILE})" if path.is_dir() else ""
        raise ExchangeError(f"{path} cannot be read: {one_line(error)}{hint}") from error
    loaded = _loaded(file, content)
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    state = loaded.get("state_dict")
    if isinstance(state, Mapping):
        masks, rate = _of_scores(file, state, prune_rate)
        told = {key: loaded[key] for key in _TOLD if isinstance(loaded.get(key), (str, int, float))}
        accuracy = _accuracy(told.get("curr_acc1"))
        told["prune_rate"] = rate
        return ForeignMasks(HIDDEN_NETWORKS, str(path), digest, masks, told, accuracy)
    if prune_rate is not None:
        raise ExchangeError(
            f"--prune-rate is for checkpoints of hidden-networks, and {file} is none (masks of "
            "open_lth are whole as they are)"
        )
    masks = _of_zeros_and_ones(file, loaded)
    _check_report(file, masks)
    return ForeignMasks(OPEN_LTH, str(path), digest, masks, {}, None)


def _loaded(file: Path, content: bytes) -> Mapping[Any, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensors that are refused below
            # To the CPU: checkpoints of hidden-networks come from GPUs.
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever bytes that mean nothing make torch raise
        wants = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it asks for {wants[1]}" if wants else "it is damaged or no torch file"
        raise ExchangeError(
            f"{file} is refused: {reason} (files of tensors and plain values are read, and nothing "
            "in them is run)"
        ) from error
    if not isinstance(loaded, Mapping) or not loaded:
        raise _unknown(file, f"it holds a {type(loaded).__name__}")
    return loaded


def _unknown(file: Path, reason: str) -> ExchangeError:
    return ExchangeError(
        f"{file} is neither a {_MASK_FILE} of open_lth nor a checkpoint of hidden-networks: "
        f"{reason}"
    )


def _of_zeros_and_ones(file: Path, loaded: Mapping[Any, Any]) -> Arrays:
    masks = {}
    for name, value in loaded.items():
        values = _array(file, name, value)
        if not np.isin(values, (0, 1)).all():
            raise _unknown(file, f"the entries of {name} are not all 0 or 1")
        masks[name] = values != 0
    return masks


def _of_scores(
    file: Path, state: Mapping[Any, Any], prune_rate: float | None
) -> tuple[Arrays, float]:
    scores = {
        name.removeprefix(_PARALLEL).removesuffix(_SCORES): _array(file, name, value)
        for name, value in state.items()
        if isinstance(name, str) and name.endswith(_SCORES)
    }
    if not scores:
        raise _unknown(file, f"its state_dict has no entry that ends in {_SCORES}")
    rate = _settings_rate(file) if prune_rate is None else prune_rate
    if rate is None:
        raise ExchangeError(
            f"--prune-rate is needed: {file} does not hold the share of weights that stays (its "
            f"run's {_SETTINGS_FILE} has it as prune_rate)"
        )
    if not 0 < rate <= 1:
        raise ExchangeError(
            f"--prune-rate must lie in (0, 1], got {rate:g} (the share of weights that stays, as "
            "hidden-networks counts)"
        )
    return {f"{name}.weight": _top(file, name, each, rate) for name, each in scores.items()}, rate


def _top(file: Path, name: str, scores: NDArray[Any], rate: float) -> NDArray[np.bool_]:
    """All but int((1 - rate) * n) of a layer's n weights, those of the highest absolute scores."""
    size = np.abs(scores.reshape(-1))
    if not np.isfinite(size).all():
        raise ExchangeError(f"{file}: the scores of {name} are not all finite")
    pruned = int((1 - rate) * len(size))
    order = np.argsort(size, kind="stable")
    ties = int((size == size[order[pruned]]).sum()) if 0 < pruned < len(size) else 0
    if ties > max(8, len(size) // 1000):  # random scores are hardly ever equal
        raise ExchangeError(
            f"{file}: {ties} scores of {name} are equal at the cut of prune rate {rate:g}, so that "
            "they do not tell its mask (are they of a layer with a fixed subnetwork?)"
        )
    kept = np.ones(len(size), dtype=np.bool_)
    kept[order[:pruned]] = False
    return kept.reshape(scores.shape)


def _array(file: Path, name: object, value: object) -> NDArray[Any]:
    """A tensor's values. Raises ExchangeError for anything else, and for one larger than its data.

    A file of a few bytes can describe a tensor of any size, all entries of which are one number.
    """
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        raise _unknown(file, "it has an entry without a proper name")
    if not isinstance(value, Tensor):
        raise _unknown(file, f"{name} is a {type(value).__name__}, not a tensor")
    plain = value.layout is torch.strided and not value.is_quantized and not value.is_complex()
    if not plain or value.device.type != "cpu" or not value.ndim or not value.numel():
        raise _unknown(file, f"{name} is no plain tensor of a layer")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise _unknown(file, f"{name} has more entries than the file has data for")
    array: NDArray[Any] = value.detach().to(torch.float64).numpy()
    return array


def _settings_rate(file: Path) -> float | None:
    """What the run's settings say, if they are still there: argparse's namespace as text."""
    settings = file.resolve().parent.parent / _SETTINGS_FILE
    try:
        text = settings.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    kind = re.search(r"\bconv_type='(\w+)'", text)
    if kind and kind[1] != _SUBNET:
        raise ExchangeError(
            f"{file} was trained with conv_type {kind[1]} ({settings}): only the scores of "
            f"{_SUBNET} are cut by a prune rate"
        )
    found = re.search(r"\bprune_rate=([^\s,)]+)", text)
    try:
        return float(found[1]) if found else None
    except ValueError:  # None, or what somebody has edited
        return None


def _accuracy(percent: object) -> float | None:
    """hidden-networks' own figure, in percent; text where nothing was evaluated."""
    if isinstance(percent, bool) or not isinstance(percent, (int, float)):
        return None
    return percent / 100 if math.isfinite(percent) and 0 <= percent <= 100 else None


def _check_report(file: Path, masks: Arrays) -> None:
    """Compare the masks with open_lth's report, if it is still beside them."""
    report = file.with_name(_REPORT_FILE)
    if not report.is_file():
        return
    try:
        told = json.loads(report.read_text(encoding="utf-8"))
        counts = float(told["total"]), float(told["unpruned"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ExchangeError(f"{report} is no report of open_lth: {one_line(error)}") from error
    own = float(sum(m.size for m in masks.values())), float(sum(m.sum() for m in masks.values()))
    if counts != own:
        raise ExchangeError(
            f"{file} keeps {own[1]:.0f} of {own[0]:.0f} weights, but {report.name} beside it says "
            f"{counts[1]:.0f} of {counts[0]:.0f}: one of them belongs elsewhere"
        )
