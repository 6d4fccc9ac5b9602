from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from ticketsweep.train.gates.kernels import noise
from ticketsweep.train.gates.kernels.compiled import CompiledKernels
from ticketsweep.train.pack import Layout

# Known answers of Random123, the reference implementation of Philox4x32-10: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
COUNT = 10**7


@pytest.mark.parametrize(("counter", "key", "wanted"), KNOWN)
def test_philox_gives_the_reference_implementations_words(
    counter: tuple[int, ...], key: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    words = noise.philox([torch.tensor([c]) for c in counter], [torch.tensor([k]) for k in key])
    assert tuple(int(word) for word in words) == wanted


def fast_normals(seeds: list[int], *, step: int, size: int) -> NDArray[np.float64]:
    """(R, size): the fast path's noise, read from gates half open that nothing clips."""
    layout = Layout(("w",), ((1, size),), (size,))
    mu, weights = torch.full((len(seeds), size), 0.5), torch.ones((len(seeds), size))
    gated = torch.empty_like(mu)
    CompiledKernels(layout, seeds).gaussian(mu, weights, gated, step=step, sigma=0.05)
    return (gated.numpy().astype(np.float64) - 0.5) / 0.05


def test_the_fast_paths_noise_is_normal_to_four_sigma() -> None:
    sample = fast_normals([12345], step=7, size=COUNT)[0]
    edges = stats.norm.ppf(np.linspace(0, 1, 1001)[1:-1])
    counts = np.bincount(np.searchsorted(edges, sample), minlength=1000)
    assert stats.chisquare(counts).pvalue > 1e-4
    for limit in (2.0, 3.0, 3.5, 4.0):
        for tail in ((sample > limit).sum(), (sample < -limit).sum()):
            assert stats.binomtest(int(tail), COUNT, stats.norm.sf(limit)).pvalue > 1e-4
    assert abs(sample.mean()) < 4 / np.sqrt(COUNT)
    assert abs(sample.var() - 1) < 4 * np.sqrt(2 / COUNT)
    assert abs(stats.skew(sample)) < 4 * np.sqrt(6 / COUNT)
    assert abs(stats.kurtosis(sample)) < 4 * np.sqrt(24 / COUNT)
    assert 5 < np.abs(sample).max() < 6.8


def test_the_fast_paths_noise_is_independent_of_replicate_step_and_place() -> None:
    size = 10**6
    rows = fast_normals([1, 2, 2**52], step=0, size=size)
    later = fast_normals([1], step=1, size=size)[0]
    lags = [1, 2, noise.COUNTERS, 2 * noise.COUNTERS, noise.CHUNK]  # the pair of a radius included
    pairs = [(rows[0], rows[1]), (rows[0], rows[2]), (rows[1], rows[2]), (rows[0], later)]
    pairs += [(rows[0][:-lag], rows[0][lag:]) for lag in lags]
    for one, other in pairs:
        for power in (1, 2):
            assert stats.pearsonr(one**power, other**power).pvalue > 1e-5


def test_a_replicates_noise_does_not_depend_on_its_pack_or_on_later_gates() -> None:
    alone = fast_normals([8], step=3, size=1000)
    packed = fast_normals([5, 8, 6], step=3, size=3000)
    np.testing.assert_array_equal(alone[0], packed[1][:1000])
    plain = noise.normals(torch.tensor([8]), step=3, size=1000)
    np.testing.assert_array_equal(
        plain[0], noise.normals(torch.tensor([5, 8]), step=3, size=3000)[1][:1000]
    )


def test_uniform_numbers_are_uniform_and_never_0_or_1() -> None:
    sample = noise.uniforms(torch.tensor([3]), step=0, size=10**6)[0].numpy()
    assert stats.kstest(sample, "uniform").pvalue > 1e-4
    words = torch.tensor([0, 2**32 - 1])
    extremes = ((words >> 9).float() + 0.5) * 2.0**-23
    assert 0 < float(extremes[0]) < float(extremes[1]) < 1
    assert sample.min() > 0
    assert sample.max() < 1
