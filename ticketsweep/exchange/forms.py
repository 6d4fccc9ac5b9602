"""A ticket as arrays by parameter's name, and the forms in which others take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

Sparse = scipy.sparse.coo_array | scipy.sparse.csr_array
Layout = Literal["coo", "csr"]


@dataclass(frozen=True)
class Masks:
    """What a ticket keeps of a model's parameters.

    Attributes
    ----------
    kept: parameter's name -> bool array of its shape, for every gated parameter, and for those of
        which something goes with a gated unit (biases, norms).
    gated: names of the gated parameters among them, in the model's order.
    about: where it comes from and what is known of it, as plain values for JSON.
    """

    kept: Mapping[str, NDArray[np.bool_]]
    gated: tuple[str, ...]
    about: Mapping[str, object]

    def prune_masks(self) -> dict[str, Tensor]:
        """`NAME_mask` -> bool tensor, as `torch.nn.utils.prune` calls its masks.

        `prune.custom_from_mask(model.fc1, "weight", masks["fc1.weight_mask"])` lays one on a model.
        """
        return {f"{name}_mask": torch.from_numpy(mask) for name, mask in self.kept.items()}

    def sparse(self, layout: Layout) -> dict[str, Sparse]:
        """Gated parameter's name -> the mask as a sparse matrix of ones, int8.

        Rows are a parameter's first dimension (outputs), columns all others in C order: a
        convolution's kernel (O, I, H, W) becomes (O, I * H * W).
        """
        ones = {name: np.ones(self.kept[name].shape, dtype=np.int8) for name in self.gated}
        return {name: _matrix(ones[name], self.kept[name], layout) for name in self.gated}


@dataclass(frozen=True)
class Ticket:
    """A ticket with its weights, all of them float32 on the CPU.

    Attributes
    ----------
    weights: parameter's name -> W_k, the weights that the ticket selects from.
    buffers: the model's other state, batch norm's statistics estimated for this ticket.
    masks: what is kept of the weights.
    notes: lines that a person should read: what is not as it was when the ticket was found.
    """

    weights: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    masks: Masks
    notes: tuple[str, ...]

    @property
    def about(self) -> Mapping[str, object]:
        """See `Masks`; `load` says how the state dictionary is loaded."""
        return self.masks.about

    def state_dict(self) -> dict[str, Tensor]:
        """For `load_state_dict` of the plain model: what is not kept is 0."""
        kept = self.masks.kept
        ticket = {
            name: weight * torch.from_numpy(kept[name]) if name in kept else weight.clone()
            for name, weight in self.weights.items()
        }
        return ticket | {name: value.clone() for name, value in self.buffers.items()}

    def prune_state_dict(self) -> dict[str, Tensor]:
        """For `load_state_dict` of a model pruned by `torch.nn.utils.prune`.

        A parameter with a mask is there as `NAME_orig`, whole, and `NAME_mask`, of its own type.
        """
        state = dict(self.buffers)
        for name, weight in self.weights.items():
            if name not in self.masks.kept:
                state[name] = weight
                continue
            state[f"{name}_orig"] = weight
            state[f"{name}_mask"] = torch.from_numpy(self.masks.kept[name]).to(weight.dtype)
        return {name: value.clone() for name, value in state.items()}

    def sparse(self, layout: Layout) -> dict[str, Sparse]:
        """Gated parameter's name -> the weights that are kept, float32; as `Masks.sparse`.

        A kept weight that happens to be 0 is an entry too.
        """
        kept = self.masks.kept
        return {
            name: _matrix(self.weights[name].numpy(), kept[name], layout)
            for name in self.masks.gated
        }


def _matrix(values: NDArray[Any], kept: NDArray[np.bool_], layout: Layout) -> Sparse:
    rows = 1 if kept.ndim < 2 else len(kept)
    flat = kept.reshape(rows, -1)
    row, column = np.nonzero(flat)
    entries = values.reshape(flat.shape)[row, column]
    matrix = scipy.sparse.coo_array((entries, (row, column)), shape=flat.shape)
    return matrix if layout == "coo" else matrix.tocsr()
