"""A Gaussian process over encoder settings that were looked at on different numbers of images.

The covariance of what is seen of two settings on n and m of N images is a sum of

    tokens    a smooth function of the tokens a side alone
    knobs     a smooth function of tokens a side, resolution and windows
    setting   an effect of each setting by itself, which no knob explains
    images    the error that all settings share, because they saw the same images
    drift     that which settings of about equal tokens share
    noise     that which each setting has for itself

The last three have the factor 1 / max(n, m) - 1 / N, so that on all images no error is left. The sizes of the
parts and the distances over which they change are those of the largest posterior density. Smooth functions
have a Matern kernel with nu = 5/2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

_CONSTANT = 9.0  # variance of the level, in units of the scores
_JITTER = 1e-6
_STEPS = 40


@dataclass(frozen=True)
class Prior:
    """Normal prior of the logarithms: six standard deviations in units of the scores, then five lengths in
    units of the coordinates (octaves).
    """

    names = ("tokens", "knobs", "setting", "images", "drift", "noise")
    lengths = ("tokens", "side", "resolution", "windows", "drift")
    middle = np.array([0.0, -2.5, -3.5, 0.0, 0.0, 0.0, 0.4, 0.4, 0.4, 0.7, -1.0])
    spread = np.array([1.0, 1.0, 1.0, 1.5, 1.0, 1.0, 0.5, 0.5, 0.7, 0.7, 0.5])
    # Error of one image in a pair's value (on the scale of `surface.link`), by part. Of the first pattern:
    error = np.array([0.15, 0.10, 0.02])
    later = np.array([0.15, 0.06, 0.02])

    def scaled(self, pairs: int, size: float, first: bool) -> np.ndarray:
        """The middle for the scores of a pattern over so many pairs that were divided by `size`."""
        middle = self.middle.copy()
        middle[3:6] = np.log((self.error if first else self.later) * np.sqrt(pairs) / size)
        return middle


PRIOR = Prior()


def _matern(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernel of squared distances over lengths, and -2 times its derivative by them."""
    a = np.sqrt(5.0 * squares)
    decay = np.exp(-a)
    return (1 + a + a * a / 3) * decay, 5.0 / 3.0 * (1 + a) * decay


class Process:
    """R processes of equal parameters, given their y [O, R], seen at settings at [O] (rows of x [U, 3]) on
    1 / share [O] of `images` images.

    middle [11]: of the prior, see `Prior`
    learned    those of the O that the parameters are learned from: that costs the cube of their number at
               every step; everything else follows from all
    """

    def __init__(
        self,
        x: np.ndarray,
        at: np.ndarray,
        share: np.ndarray,
        images: int,
        y: np.ndarray,
        middle: np.ndarray,
        learned: np.ndarray,
    ) -> None:
        self.x, self.at, self.share, self.images = x, at, share, images
        self.theta = middle
        bounds = np.stack([middle - 4 * PRIOR.spread, middle + 4 * PRIOR.spread], axis=1)
        options = {"maxiter": _STEPS}
        loss = self._loss(learned, y[learned], middle)
        self.theta = minimize(loss, middle, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
        whole = self._kernel(self._apart(at, share, at, share))[0] + _JITTER * np.eye(len(y))
        self._factor = np.linalg.cholesky(whole)
        self._half = solve_triangular(self._factor, y, lower=True)

    def _loss(
        self, learned: np.ndarray, y: np.ndarray, middle: np.ndarray
    ) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """theta -> (negative logarithm of the posterior density given some of the looks, its gradient)."""
        at, share = self.at[learned], self.share[learned]
        eye, apart = np.eye(len(y)), self._apart(at, share, at, share)

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            self.theta = theta
            whole, slopes = self._kernel(apart, gradient=True)
            factor = cho_factor(whole + _JITTER * eye, lower=True)
            weights = cho_solve(factor, y)
            inner = y.shape[1] * cho_solve(factor, eye) - weights @ weights.T
            away = (theta - middle) / PRIOR.spread
            value = 0.5 * (np.vdot(y, weights) + away @ away)
            value += y.shape[1] * np.log(np.diag(factor[0])).sum()
            slope = [0.5 * np.vdot(inner, s) for s in slopes]
            return float(value), np.array(slope) + away / PRIOR.spread

        return loss

    def _apart(
        self, a: np.ndarray, share_a: np.ndarray, b: np.ndarray, share_b: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the covariance of looks depends on: squared distances [3, A, B], whether the setting is the
        same, the factor of the errors.
        """
        squares = (self.x[a].T[:, :, None] - self.x[b].T[:, None]) ** 2
        same = (a[:, None] == b[None]).astype(float)
        return squares, same, np.minimum(share_a[:, None], share_b[None]) - 1 / self.images

    def _kernel(
        self, apart: tuple[np.ndarray, np.ndarray, np.ndarray], gradient: bool = False
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Covariance of looks, and, if asked for, its derivatives by theta."""
        squares, same, left = apart
        scale, lengths = np.exp(2 * self.theta[:6]), np.exp(2 * self.theta[6:])
        by_tokens, by_drift = squares[0] / lengths[0], squares[0] / lengths[4]
        by_knobs = squares / lengths[1:4, None, None]
        smooth, drift = _matern(by_tokens), _matern(by_drift)
        knobs = _matern(by_knobs[0] + by_knobs[1] + by_knobs[2])
        parts = [smooth[0], knobs[0], same, left, left * drift[0], left * same]
        parts = [size * part for size, part in zip(scale, parts, strict=True)]
        whole = _CONSTANT + sum(parts[1:], parts[0])
        if not gradient:
            return whole, []
        slopes = [2 * part for part in parts]
        slopes.append(scale[0] * smooth[1] * by_tokens)
        slopes += [scale[1] * knobs[1] * by_knobs[i] for i in range(3)]
        slopes.append(scale[4] * left * drift[1] * by_drift)
        return whole, slopes

    def project(self, at: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means [M, R] of looks at settings, and the factor [O, M] of what is known of them."""
        cross = self._kernel(self._apart(self.at, self.share, at, share))[0]
        rows = solve_triangular(self._factor, cross, lower=True)
        return rows.T @ self._half, rows

    def covariance(self, at: np.ndarray, share: np.ndarray) -> np.ndarray:
        """[M, M] covariance of looks at settings."""
        _, rows = self.project(at, share)
        return self._kernel(self._apart(at, share, at, share))[0] - rows.T @ rows

    def variance(self, at: np.ndarray, share: np.ndarray) -> np.ndarray:
        """[M], the diagonal of `covariance`."""
        _, rows = self.project(at, share)
        scale = np.exp(2 * self.theta[:6])
        left = share - 1 / self.images
        return _CONSTANT + scale[:3].sum() + scale[3:].sum() * left - (rows**2).sum(0)
