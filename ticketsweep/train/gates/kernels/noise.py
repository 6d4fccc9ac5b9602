"""Noise of gates as a function of seed, step and place: counters instead of a generator's state.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a counter
and a key into four words of 32 random bits. The key is a replicate's gate seed, the counter says
which step and which place in its row. So noise can be made in any order, by many threads, on any
device, and again after a checkpoint, and is the same but for rounding.

A row is cut into chunks of `CHUNK` numbers, each from `COUNTERS` counters: the first word of all of
them, then the second, the third and the fourth, so that neighbours in memory are neighbours in a
vector register.

What stands here is the plain formula, on any device; `compiled` and `fused` compute the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

COUNTERS = 256
CHUNK = 4 * COUNTERS
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # what is added to the key from round to round

_WORD = 0xFFFFFFFF


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Four words of random bits for each counter; all are int64 tensors of numbers below 2^32.

    Parameters
    ----------
    counter: its four words.
    key: its two words, which broadcast against the counter.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # int64 holds the low 64 bits of the product; the shift drags the sign along, the mask
        # takes it off.
        left, right = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((right >> 32) & _WORD) ^ c1 ^ k0,
            right & _WORD,
            ((left >> 32) & _WORD) ^ c3 ^ k1,
            left & _WORD,
        )
        k0, k1 = (k0 + WEYL[0]) & _WORD, (k1 + WEYL[1]) & _WORD
    return c0, c1, c2, c3


def random_words(seeds: Tensor, *, step: int, size: int) -> Tensor:
    """Random bits of each place in a row, by chunk and word: int64 (R, chunks, 4, COUNTERS).

    Parameters
    ----------
    seeds: int64 (R,), >= 0.
    step: in [0, 2^32).
    size: of a row, in (0, 2^40).
    """
    chunks = -(-size // CHUNK)
    place = torch.arange(chunks * COUNTERS, device=seeds.device).expand(len(seeds), -1)
    nothing = torch.zeros_like(place)
    key = (seeds[:, None] & _WORD, seeds[:, None] >> 32)
    words = philox((place, torch.full_like(place, step), nothing, nothing), key)
    return torch.stack([word.view(len(seeds), chunks, COUNTERS) for word in words], dim=2)


def normals(seeds: Tensor, *, step: int, size: int) -> Tensor:
    """Standard normal numbers, float32 (R, size), by Box and Muller's transform.

    One word makes a radius, up to 6.76, and the next an angle; see `random_words`.
    """
    words = random_words(seeds, step=step, size=size)
    uniform = words[:, :, 0::2].float() * 2.0**-32 + 2.0**-33
    # As a signed fraction of a turn, where float32 is most exact around 0.
    turn = ((words[:, :, 1::2] + 2**31) & _WORD) - 2**31
    angle = turn.float() * (2 * math.pi / 2**32)
    radius = uniform.log().mul_(-2).sqrt_()
    both = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=3)
    return both.flatten(1)[:, :size]


def uniforms(seeds: Tensor, *, step: int, size: int) -> Tensor:
    """Numbers in (0, 1), float32 (R, size): odd multiples of 2^-24; see `random_words`."""
    words = random_words(seeds, step=step, size=size)
    return ((words >> 9).float() + 0.5).mul_(2.0**-23).flatten(1)[:, :size]
