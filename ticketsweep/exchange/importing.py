"""Others' masks as a trial of the database, of which no more is said than is known."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from ticketsweep import __version__
from ticketsweep.config import TrialConfig, parse_config
from ticketsweep.errors import ExchangeError, SweepError
from ticketsweep.exchange.foreign import HIDDEN_NETWORKS, ForeignMasks, read_foreign
from ticketsweep.planning import load_data
from ticketsweep.store.database import Database
from ticketsweep.store.parts import committed_status
from ticketsweep.store.paths import Storage, check_name
from ticketsweep.store.schema import MaskRow, TrialRows, mask_digest, pack_mask
from ticketsweep.store.writer import write_trial
from ticketsweep.train.models import build_model, prunable

_FORMAT = 1  # part of every imported trial's id
_STEP = 0  # of the masks: the column takes a number, and these files do not tell the step

Arrays = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Imported:
    """What an import came to.

    Attributes
    ----------
    trial_id: made of the content, so that the same files make the same trial.
    layers: layer's name -> its name in the file.
    density: mean share of weights kept.
    stored: False where the sweep had the trial already.
    """

    trial_id: str
    sweep: str
    project: str
    replicates: int
    layers: Mapping[str, str]
    density: float
    stored: bool


def import_masks(
    storage: Storage,
    files: Sequence[Path],
    *,
    sweep: str,
    prune_rate: float | None = None,
    model: str | None = None,
    dataset: str | None = None,
) -> Imported:
    """Store the masks of open_lth or hidden-networks as one complete trial, a file a replicate.

    Its `config` is `{"imported": …}`: project, files with their digests, names of layers in them.
    Seeds, accuracies, settings and times are null; what a file reports of its own accuracy is the
    metric `reported_accuracy`. The masks are filed under step 0.

    Parameters
    ----------
    files: of one project and one architecture; see `read_foreign`.
    sweep: a name of its own: not of a sweep that was run, whose search would count the trial.
    prune_rate: see `read_foreign`.
    model, dataset: what the masks are of, in this package's names. The layers then get the names
        and shapes of that model's, one after the other, so that they can be compared with its
        trials. Both or none.

    Raises
    ------
    ExchangeError: a file is refused, the files do not agree, or they do not fit the model.
    SweepError: the sweep was run here.
    StorageError: the storage cannot be written to, or no sweep may be called so.
    """
    check_name(sweep)
    if sweep in Database(storage).sweeps()["sweep"].to_pylist():
        raise SweepError(
            f"sweep {sweep} was run here, and its search would take an imported trial for one of "
            "its own (name another with --sweep)"
        )
    read = [read_foreign(path, prune_rate=prune_rate) for path in files]
    _check_alike(read)
    names, shapes = _names_in_model(read[0], model, dataset)
    replicates = [
        {ours: each.masks[theirs].reshape(shapes[ours]) for ours, theirs in names.items()}
        for each in read
    ]
    trial_id = _identity(read, replicates, model, dataset)
    stored = committed_status(storage, sweep, trial_id) != "complete"
    rows = _rows(trial_id, read, replicates, names, model, dataset)
    write_trial(storage, sweep, rows)
    density = fmean(_density(each) for each in replicates)
    return Imported(trial_id, sweep, read[0].project, len(read), names, density, stored)


def _check_alike(read: Sequence[ForeignMasks]) -> None:
    """The files of one trial must be of one project, and have the same layers."""
    if not read:
        raise ExchangeError("there must be a file to import, got none")
    first = read[0]
    layers = {name: mask.shape for name, mask in first.masks.items()}
    for other in read[1:]:
        if other.project != first.project:
            raise ExchangeError(
                f"{other.file} is of {other.project}, but {first.file} of {first.project} (import "
                "them one after the other)"
            )
        own = {name: mask.shape for name, mask in other.masks.items()}
        if own != layers:
            odd = sorted(dict(own.items() ^ layers.items()))
            raise ExchangeError(
                f"{other.file} has other layers than {first.file}: {', '.join(odd[:5])} (import "
                "them one after the other)"
            )


def _names_in_model(
    masks: ForeignMasks, model: str | None, dataset: str | None
) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Our names of the layers -> theirs, and the shapes that we give them."""
    own = {name: mask.shape for name, mask in masks.masks.items()}
    if model is None and dataset is None:
        return {name: name for name in own}, own
    if model is None or dataset is None:
        raise ExchangeError(
            "--model and --dataset go together: the size of the images is part of a model's shape"
        )
    config: TrialConfig = parse_config({"model": model, "dataset": dataset}, source="masks import")
    data = load_data(config)
    network = build_model(config.model, input_shape=data.input_shape, classes=data.classes)
    parameters = dict(network.named_parameters())
    wanted = {name: tuple(parameters[name].shape) for name in prunable(network)}
    theirs = list(wanted) if own.keys() == wanted.keys() else list(own)
    names = dict(zip(wanted, theirs, strict=False))
    fits = len(own) == len(wanted) and all(
        _essential(own[names[name]]) == _essential(shape) for name, shape in wanted.items()
    )
    if not fits:
        raise ExchangeError(
            f"the masks of {masks.file} do not fit model {model}: it has {_shown(wanted)}, they "
            f"have {_shown(own)}"
        )
    return names, wanted


def _essential(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without lengths of 1 at its end: a linear layer, even as a 1x1 convolution."""
    ends = [at for at, length in enumerate(shape, 1) if length != 1]
    return shape[: max(ends, default=0)]


def _shown(shapes: Mapping[str, tuple[int, ...]]) -> str:
    shown = [f"{name} {'x'.join(map(str, shape))}" for name, shape in list(shapes.items())[:5]]
    return f"{', '.join(shown)}{', …' if len(shapes) > 5 else ''} ({len(shapes)} layers)"


def _identity(
    read: Sequence[ForeignMasks],
    replicates: Sequence[Arrays],
    model: str | None,
    dataset: str | None,
) -> str:
    """16 hexadecimal digits of all that the rows say, but for where the files lay."""
    content = [
        [_told(each), [[name, _digest(mask)] for name, mask in masks.items()]]
        for each, masks in zip(read, replicates, strict=True)
    ]
    text = json.dumps(["imported", _FORMAT, read[0].project, model, dataset, content])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _digest(mask: NDArray[np.bool_]) -> str:
    return mask_digest(pack_mask(mask), mask.shape)


def _told(masks: ForeignMasks) -> dict[str, object]:
    """What the file says of itself; JSON has neither infinity nor NaN."""
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in sorted(masks.told.items())
    }


def _rows(
    trial_id: str,
    read: Sequence[ForeignMasks],
    replicates: Sequence[Arrays],
    names: Mapping[str, str],
    model: str | None,
    dataset: str | None,
) -> TrialRows:
    origin = {
        "project": read[0].project,
        "files": [{"file": e.file, "digest": e.digest, **_told(e)} for e in read],
        "layers": dict(names),
    }
    own = [
        {
            "replicate": index,
            "density": _density(masks),
            "sparsity": 1 - _density(masks),
            "metrics": {} if each.accuracy is None else {"reported_accuracy": each.accuracy},
        }
        for index, (each, masks) in enumerate(zip(read, replicates, strict=True))
    ]
    density = fmean(_density(masks) for masks in replicates)
    reported = [each.accuracy for each in read if each.accuracy is not None]
    trial = {
        "trial_id": trial_id,
        "status": "complete",
        "model": model,
        "dataset": dataset,
        "gate_family": "edge_popup" if read[0].project == HIDDEN_NETWORKS else None,
        "granularity": "weight",
        "config": json.dumps({"imported": origin}, sort_keys=True),
        "density": density,
        "sparsity": 1 - density,
        "metrics": {"reported_accuracy": fmean(reported)} if reported else {},
        "version": __version__,
    }
    masks = [
        MaskRow.from_array(
            np.ascontiguousarray(mask), replicate=index, step=_STEP, layer=layer, layer_index=at
        )
        for index, each in enumerate(replicates)
        for at, (layer, mask) in enumerate(each.items())
    ]
    return TrialRows(trial=trial, replicates=own, masks=masks)


def _density(masks: Arrays) -> float:
    return float(sum(int(m.sum()) for m in masks.values()) / sum(m.size for m in masks.values()))
