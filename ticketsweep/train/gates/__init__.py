"""Gate families, one a file.

A family holds the gates of a whole pack in one flat tensor (R, G), `G` gates for each of `R`
replicates, and offers the stages

- `parameter`, what the optimizer moves, with its gradient already in place;
- `sample(temperature)`, the gated weights layer by layer, differentiable with respect to it;
- `expected_density(temperature)`, `undecided()` and `harden()`, all per replicate.
"""
