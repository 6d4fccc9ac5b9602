"""The files of an exported ticket, each format in one place."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
import scipy.sparse
from torch import Tensor

from ticketsweep.errors import ExchangeError
from ticketsweep.exchange.files import ABOUT, MATRIX, check_target, put_file, put_folder
from ticketsweep.exchange.forms import Layout, Masks, Ticket

_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")


def _state(ticket: Ticket | Masks) -> bytes:
    return _safetensors(_whole(ticket).state_dict(), ticket.about)


def _pruned(ticket: Ticket | Masks) -> bytes:
    return _safetensors(_whole(ticket).prune_state_dict(), ticket.about)


def _masks(ticket: Ticket | Masks) -> bytes:
    masks = ticket.masks if isinstance(ticket, Ticket) else ticket
    return _safetensors(masks.prune_masks(), ticket.about)


FILES: Mapping[str, Callable[[Ticket | Masks], bytes]] = {
    "safetensors": _state,
    "prune": _pruned,
    "masks": _masks,
}
FOLDERS: Mapping[str, Layout] = {"coo": "coo", "csr": "csr"}


def export(ticket: Ticket | Masks, what: str, out: Path, *, force: bool = False) -> None:
    """Write a ticket, or its masks alone, to a file or folder.

    `safetensors` and `prune` are state dictionaries, of the plain model and of one that
    `torch.nn.utils.prune` has pruned; `masks` are bool tensors by `NAME_mask`. All are files of
    safetensors with `about` in their metadata. `coo` and `csr` make a folder with a file a gated
    parameter for `scipy.sparse.load_npz`, and `about` in `ticket.json`.

    Parameters
    ----------
    what: a key of `FILES` or `FOLDERS`.
    force: replace what is there, if it is a file, or a folder that an export has made.

    Raises
    ------
    ExchangeError: `out` is there already or cannot be written, or masks alone have no weights for
        a state dictionary.
    """
    check_target(out, is_folder=what in FOLDERS, force=force)
    if what in FOLDERS:
        put_folder(out, _matrices(ticket, FOLDERS[what]))
    else:
        put_file(out, FILES[what](ticket))


def _whole(ticket: Ticket | Masks) -> Ticket:
    if isinstance(ticket, Ticket):
        return ticket
    raise ExchangeError("a state dictionary needs a ticket with its weights, got masks alone")


def _safetensors(tensors: Mapping[str, Tensor], about: Mapping[str, object]) -> bytes:
    told = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()
    }
    content: bytes = safetensors.torch.save(dict(tensors), metadata={"format": "pt", **told})
    return content


def _matrices(ticket: Ticket | Masks, layout: Layout) -> dict[str, bytes]:
    masks = ticket.masks if isinstance(ticket, Ticket) else ticket
    files, layers = {}, []
    for name, matrix in ticket.sparse(layout).items():
        if not _FILE_NAME.fullmatch(name):
            raise ExchangeError(
                f"layer {name!r} cannot name a file (--format masks has all layers in one)"
            )
        stream = io.BytesIO()
        scipy.sparse.save_npz(stream, matrix)
        files[f"{name}{MATRIX}"] = stream.getvalue()
        shape = list(masks.kept[name].shape)
        layers.append({"layer": name, "file": f"{name}{MATRIX}", "shape": shape})
    about = {
        **ticket.about,
        "format": layout,
        "values": "weights" if isinstance(ticket, Ticket) else "ones, the weights being unknown",
        "rows": "outputs; kernels are flattened to (outputs, inputs * height * width)",
        "layers": layers,
    }
    return {**files, ABOUT: f"{json.dumps(about, indent=2)}\n".encode()}
