import math

import numpy as np
import pytest

from roadseg.calib.entropy import LEVELS, divergence_by_cut, entropy_threshold


def slow_divergence(counts, cut):
    """The pseudo-code of the source, step by step."""
    reference = [float(count) for count in counts[:cut]]
    reference[-1] += sum(counts[cut:])
    candidate = [0.0] * cut
    for level in range(LEVELS):
        bins = [k for k in range(level * cut // LEVELS, cut) if k * LEVELS // cut == level]
        filled = [k for k in bins if counts[k] > 0]
        for k in filled:
            candidate[k] = sum(counts[b] for b in bins) / len(filled)
    if sum(candidate) == 0:
        return math.inf
    divergence = 0.0
    for p, q in zip(reference, candidate, strict=True):
        if p > 0:
            p, q = p / sum(reference), q / sum(candidate)
            divergence += p * math.log(p / q) if q > 0 else math.inf
    return divergence


def histogram(seed, bins, empty):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(2000 * np.exp(-np.arange(bins) / 25)) + rng.poisson(0.6, bins)
    counts[rng.random(bins) < empty] = 0
    counts[0] = counts[1]
    counts[-1] = 1
    return counts


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("empty", [0.0, 0.4])
def test_all_cuts_at_once_agree_with_the_source_s_loop(seed, empty):
    counts = histogram(seed, 128 + 20 * seed, empty)
    cuts, divergences = divergence_by_cut(counts)
    assert cuts.tolist() == list(range(128, len(counts) + 1))
    np.testing.assert_allclose(divergences, [slow_divergence(counts, cut) for cut in cuts], atol=1e-12)


def test_the_threshold_is_the_middle_of_the_bin_behind_the_best_cut():
    counts = histogram(1, 220, 0.1)
    best = min(range(128, 221), key=lambda cut: slow_divergence(counts, cut))
    assert 128 < best < 220
    assert entropy_threshold(counts, width=0.25) == (best + 0.5) * 0.25


def test_a_far_outlier_is_cut_off_and_an_even_spread_is_kept():
    fading = (20000 * np.exp(-np.arange(1000) / 40)).astype(np.int64)
    fading[-1] = 1
    assert entropy_threshold(fading, width=1.0) < 500
    assert entropy_threshold(np.full(1024, 50), width=1.0) > 1000


def test_the_peak_at_zero_after_a_relu_does_not_count():
    counts = histogram(2, 300, 0.0)
    peaked = counts.copy()
    peaked[0] = 10**9
    assert entropy_threshold(peaked, 1.0) == entropy_threshold(counts, 1.0)


def test_fewer_bins_than_levels_are_kept_whole():
    counts = np.zeros(4096, np.int64)
    counts[:50] = 7
    assert entropy_threshold(counts, width=0.5) == 25.0


def test_a_fine_histogram_is_searched_in_merged_bins():
    coarse = histogram(3, 1024, 0.0)
    fine = np.zeros(4096, np.int64)
    fine[::4], fine[3::4] = coarse // 2, coarse - coarse // 2
    assert entropy_threshold(fine, 0.25) == entropy_threshold(coarse, 1.0)
