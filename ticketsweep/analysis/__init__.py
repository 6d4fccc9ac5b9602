"""How far masks agree, and how sure one can be of it: functions over arrays, nothing else.

`pairs` counts what masks share, `overlap` measures pairs of them, `intervals` puts intervals over
seeds on means over pairs, and `stability` joins them for the replicates of a trial or of a whole
sweep.
"""

from ticketsweep.analysis.intervals import Interval, jackknife_interval
from ticketsweep.analysis.overlap import (
    chance_corrected_overlap,
    expected_intersection,
    expected_jaccard,
    hamming,
    intersection_variance,
    jaccard,
    overlap_coefficient,
    pack,
    z_score,
)
from ticketsweep.analysis.pairs import intersections, pair_counter
from ticketsweep.analysis.stability import (
    ALL_LAYERS,
    OTHER_INIT,
    SAME_INIT,
    LayerBits,
    Seeds,
    Stability,
    StabilityRow,
    sweep_stability,
    trial_stability,
)

__all__ = [
    "ALL_LAYERS",
    "OTHER_INIT",
    "SAME_INIT",
    "Interval",
    "LayerBits",
    "Seeds",
    "Stability",
    "StabilityRow",
    "chance_corrected_overlap",
    "expected_intersection",
    "expected_jaccard",
    "hamming",
    "intersection_variance",
    "intersections",
    "jaccard",
    "jackknife_interval",
    "overlap_coefficient",
    "pack",
    "pair_counter",
    "sweep_stability",
    "trial_stability",
    "z_score",
]
