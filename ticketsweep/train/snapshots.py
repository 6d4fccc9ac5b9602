"""The hardened mask along training: how far it moves, and, where asked for, what it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ticketsweep.train.checkpoint import State, part, under
from ticketsweep.train.pack import Layout

Bits = NDArray[np.uint8]


@dataclass(frozen=True)
class Snapshot:
    """The gates of a pack as they would have been hardened at a logged step.

    Attributes
    ----------
    step: number of steps done.
    bits: uint8 (R, B), see `packed_gates`.
    """

    step: int
    bits: Bits


class MaskTrace:
    """Follows the hardened mask from one logged step to the next.

    It holds a bit a gate, and as much again for each snapshot that is kept.

    Parameters
    ----------
    layout: of the gates.
    initial: bool (R, U), the mask before the first step.
    keeps: whether snapshots are kept.
    """

    def __init__(self, layout: Layout, initial: Tensor, *, keeps: bool) -> None:
        self._layout = layout
        self._keeps = keeps
        self._last = packed_gates(initial, layout)
        self.snapshots: list[Snapshot] = []

    def changed(self, kept: Tensor, *, step: int) -> NDArray[np.float64]:
        """Share of gates that `kept`, bool (R, U), has otherwise than the last mask: (R,)."""
        bits = packed_gates(kept, self._layout)
        differ = np.bitwise_count(bits ^ self._last).sum(axis=1, dtype=np.int64)
        self._last = bits
        if self._keeps:
            self.snapshots.append(Snapshot(step, bits))
        share: NDArray[np.float64] = differ / self._layout.size
        return share

    def state(self) -> State:
        """All that the next steps depend on. No array in it is changed afterwards."""
        # A copy, since tensors of one memory cannot be saved, and a snapshot may be the last mask.
        last = torch.from_numpy(self._last.copy())
        return {"last": last, **under("snapshots", snapshots_state(self.snapshots))}

    def restore(self, state: State) -> None:
        """Go on from `state()`; what was not kept then is not there now."""
        self._last = state["last"].numpy()
        if self._keeps:
            self.snapshots = snapshots_of(part("snapshots", state))


def packed_gates(kept: Tensor, layout: Layout) -> Bits:
    """bool (R, U) -> uint8 (R, B): layer after layer, each in whole bytes.

    A layer's gates lie in C order, least significant bit first, zero-padded.
    """
    layers = torch.split(kept.cpu(), list(layout.sizes), dim=1)
    return np.concatenate(
        [np.packbits(layer.numpy(), axis=1, bitorder="little") for layer in layers], axis=1
    )


def layers_of(bits: Bits, sizes: Sequence[int]) -> Iterator[Bits]:
    """The bits of each layer, uint8 (R, ceil(size / 8)), of what `packed_gates` has packed."""
    ends = np.cumsum([-(-size // 8) for size in sizes])
    yield from np.split(bits, ends[:-1], axis=1)


def snapshots_state(snapshots: Sequence[Snapshot]) -> State:
    """Snapshots as tensors, by their steps."""
    return {str(each.step): torch.from_numpy(each.bits) for each in snapshots}


def snapshots_of(state: State) -> list[Snapshot]:
    """What `snapshots_state` made tensors of, in the order of their steps."""
    return [Snapshot(int(step), state[step].numpy()) for step in sorted(state, key=int)]
