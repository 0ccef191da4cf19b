"""Student's t and Fisher's F against `scipy.stats`, bit for bit."""

from __future__ import annotations

import numpy as np
from scipy import stats

from mpt.metrics.distributions import f_tail, t_quantile, t_tail

FREEDOM = (0.5, 1.0, 3.0, 7.25, 120.0, 1e6)


def test_quantiles_of_t_are_scipys() -> None:
    p = (np.arange(500) + 0.5) / 500
    for freedom in FREEDOM:
        assert np.array_equal(t_quantile(p, freedom), stats.t.ppf(p, freedom))
        assert t_quantile(0.975, freedom) == stats.t.ppf(0.975, freedom)


def test_tails_are_scipys() -> None:
    for freedom in FREEDOM:
        for value in (-3.0, 0.0, 0.7, 12.0, np.inf):
            assert t_tail(value, freedom) == stats.t.sf(value, freedom)
        for value in (0.0, 0.2, 1.0, 40.0, np.inf):
            assert f_tail(value, freedom, 5.0) == stats.f.sf(value, freedom, 5.0)
            assert f_tail(value, 2.0, freedom) == stats.f.sf(value, 2.0, freedom)
