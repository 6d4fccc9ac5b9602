"""The words of the report, a sentence each, and how its figures are computed."""

from __future__ import annotations

WORDS = (
    ("Trial", "One configuration, trained for all its replicates."),
    ("Replicate", "One training run of a trial, with its own seeds for initial weights, data order "
                  "and gate noise."),
    ("Gate", "A number between 0 and 1 beside a weight, or beside a whole unit, that is learnt in "
             "the weight's place."),
    ("Mask", "The gates of one layer once each is hardened to open or closed."),
    ("Ticket", "A replicate's masks, with the weights that they select from."),
    ("Strong ticket", "A ticket that is evaluated with those weights untouched."),
    ("Retrained ticket", "A ticket whose weights were trained once the mask was found, from where "
                         "the search took them."),
    ("Sparsity", "The share of prunable weights that the ticket leaves out; density is the rest."),
    ("Undecided", "The share of gates that were neither open nor closed before hardening."),
    ("Rewinding step", "How many steps of ordinary training the weights have seen before the gates "
                       "are learnt; 0 is random weights."),
    ("Stability", "The overlap beyond chance of tickets with the same initial weights, over all "
                  "layers."),
    ("Overlap beyond chance", "0 is what random masks of the same layer densities share, 1 the "
                              "same ticket, or one within the other."),
    ("Jaccard", "Gates that both masks keep, as a share of those that either keeps; chance alone "
                "makes it large where masks are dense."),
    ("Given inputs, given units", "Overlap beyond a chance that keeps how much of each input, or "
                                  "unit, is kept: what is left is about single weights."),
    ("Rank 1", "No other trial is better in one objective and no worse in the others."),
    ("Controls", "The ticket's mask shuffled within each layer, its mask on fresh weights, and a "
                 "random mask of its layer densities."),
)  # fmt: skip

METHOD = (
    "Overlap beyond chance of masks that keep a and b of n gates: (|A∩B| − ab/n) / (min(a, b) − "
    "ab/n); over layers, numerator and denominator are summed, each layer with its own expectation "
    "(hypergeometric).",
    "Intervals in [ ] are at the 95 % level and over seeds, never over pairs, since pairs share "
    "seeds: each seed is left out in turn (jackknife) and Student's t is taken. Two seeds allow "
    "none.",
    "Shares of the ticket that a seed fixes come from a random-effects analysis of variance with "
    "crossed seeds; p from a permutation test that the seed fixes nothing.",
    "± is the standard deviation over a trial's replicates (n − 1 in the denominator).",
    "Accuracies are of the hardened ticket. The search saw validation accuracy alone; the test "
    "split was looked at once a trial.",
    "Rank correlations are Spearman's, with Bonett and Wright's approximate interval. A search "
    "that learns does not draw trials independently, so they describe and prove nothing.",
)
"""How the figures are computed, a sentence or two each."""
