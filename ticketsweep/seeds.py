"""Seeds with names, and the plan that crosses them into replicates.

Three streams are kept apart: initial weights (and pre-training), data order, and gate noise. A seed
is a hash of labels, so it is the same in every process, on every machine and for every pack size.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

SEED_BITS = 53  # a seed survives JSON, SQL DOUBLE and JavaScript unchanged


def derive_seed(root: int, *labels: str) -> int:
    """Seed in [0, 2**53) named by `labels` under `root`.

    >>> derive_seed(0, "init", "0") == derive_seed(0, "init", "0")
    True
    >>> derive_seed(0, "ab", "c") == derive_seed(0, "a", "bc")
    False
    """
    text = json.dumps([root, *labels], ensure_ascii=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> (64 - SEED_BITS)


@dataclass(frozen=True)
class Replicate:
    """One (init seed, data seed, gate seed) of a trial; `index` is its place in the trial."""

    index: int
    init_seed: int
    data_seed: int
    gate_seed: int


def replicate_plan(root: int, *, init: int, data: int, gate: int) -> tuple[Replicate, ...]:
    """All `init * data * gate` combinations of seeds, the init seed varying slowest.

    The plan of a smaller trial is contained in that of a larger one with the same root, and
    replicates with the same init seed start from the same weights.
    """
    seeds = {
        "init": [derive_seed(root, "init", str(i)) for i in range(init)],
        "data": [derive_seed(root, "data", str(d)) for d in range(data)],
        "gate": [derive_seed(root, "gate", str(g)) for g in range(gate)],
    }
    combinations = [(i, d, g) for i in seeds["init"] for d in seeds["data"] for g in seeds["gate"]]
    return tuple(Replicate(index, *triple) for index, triple in enumerate(combinations))
