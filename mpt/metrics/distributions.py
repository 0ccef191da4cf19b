"""Student's t and Fisher's F: the numbers of `scipy.stats`, whose import takes half a second."""

from __future__ import annotations

import numpy as np
from scipy import special


def t_quantile(p: float | np.ndarray, freedom: float) -> np.ndarray:
    """Return the quantiles of Student's t.

    Args:
        p: probabilities in (0, 1), any shape.
        freedom: degrees of freedom, > 0.

    Returns:
        The values below which t lies with these probabilities, in the shape of `p`.
    """
    return np.asarray(special.stdtrit(freedom, p))


def t_tail(value: float, freedom: float) -> float:
    """Return the probability that Student's t is larger than a value.

    Args:
        value: any number.
        freedom: degrees of freedom, > 0.
    """
    return float(special.stdtr(freedom, -value))


def f_tail(value: float, above: float, below: float) -> float:
    """Return the probability that Fisher's F is larger than a value.

    Args:
        value: a number ≥ 0.
        above: degrees of freedom of the numerator, > 0.
        below: degrees of freedom of the denominator, > 0.
    """
    return float(special.fdtrc(above, below, value))
