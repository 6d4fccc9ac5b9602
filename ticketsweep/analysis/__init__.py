"""How far masks agree, and how sure one can be of it: functions over arrays, nothing else.

`pairs` counts what masks share, `overlap` measures pairs of them, `intervals` puts intervals over
seeds on means over pairs. `units` looks at whole inputs and units, `consensus` at all masks at
once, `attribution` at what each seed decides; `stability` joins them for the replicates of a trial
or of a whole sweep. `matching` puts the hidden units of two networks in the same order, `alignment`
measures what two tickets share after that.
"""

from ticketsweep.analysis.alignment import (
    Agreement,
    AlignedOverlap,
    LayerAlignment,
    Ticket,
    aligned_overlap,
)
from ticketsweep.analysis.attribution import Attribution, Estimate, FactorShare
from ticketsweep.analysis.consensus import (
    Consensus,
    LayerConsensus,
    Nogueira,
    consensus,
    keep_frequency,
    kept_by_chance,
    nogueira,
)
from ticketsweep.analysis.intervals import Interval, jackknife_interval, overlap_interval
from ticketsweep.analysis.layers import ALL_LAYERS, KeptCounts, LayerBits, Seeds, count_kept
from ticketsweep.analysis.matching import Matching, match_units, permuted
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
from ticketsweep.analysis.permutation import Permutation, permutation_test
from ticketsweep.analysis.stability import (
    OTHER_INIT,
    SAME_INIT,
    Stability,
    StabilityRow,
    compare_masks,
    sweep_stability,
    trial_stability,
)
from ticketsweep.analysis.units import (
    GroupAgreement,
    Quotient,
    group_agreement,
    overlap_given_counts,
)

__all__ = [
    "ALL_LAYERS",
    "OTHER_INIT",
    "SAME_INIT",
    "Agreement",
    "AlignedOverlap",
    "Attribution",
    "Consensus",
    "Estimate",
    "FactorShare",
    "GroupAgreement",
    "Interval",
    "KeptCounts",
    "LayerAlignment",
    "LayerBits",
    "LayerConsensus",
    "Matching",
    "Nogueira",
    "Permutation",
    "Quotient",
    "Seeds",
    "Stability",
    "StabilityRow",
    "Ticket",
    "aligned_overlap",
    "chance_corrected_overlap",
    "compare_masks",
    "consensus",
    "count_kept",
    "expected_intersection",
    "expected_jaccard",
    "group_agreement",
    "hamming",
    "intersection_variance",
    "intersections",
    "jaccard",
    "jackknife_interval",
    "keep_frequency",
    "kept_by_chance",
    "match_units",
    "nogueira",
    "overlap_coefficient",
    "overlap_given_counts",
    "overlap_interval",
    "pack",
    "pair_counter",
    "permutation_test",
    "permuted",
    "sweep_stability",
    "trial_stability",
    "z_score",
]
