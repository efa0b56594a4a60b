"""Rates of stratified and weighted samples, from sums that a stream of rows can keep.

Rows fall into K disjoint categories (failed and detected, failed and missed, harmless, ...). A rate
is a ratio of two totals over unions of categories, events within a base: the failure rate, the
share of failures detected, and so on. All are ratio estimates with the variance of Cochran,
Sampling Techniques (1977), eq. 6.52, over strata: sum_h W_h^2 s_h^2(y - R x) / n_h.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from progip.errors import ProgipError
from progip.statistics.intervals import Rate, rate_from_sums, rate_from_variance


@dataclass(frozen=True)
class Moments:
    """Totals of K categories over a sample, on the scale of its rows, with their covariance.

    rows: counts (K,). total, squares: sums of estimation weights and of their squares (K,).
    covariance: (K, K) of `total`. stratified: whether the covariance says more than the sums. The
    moments of independent samples are added with `+`.
    """

    rows: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    covariance: NDArray[np.float64]
    stratified: bool = True

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.rows + other.rows,
            self.total + other.total,
            self.squares + other.squares,
            self.covariance + other.covariance,
            self.stratified or other.stratified,
        )

    def scaled(self, factor: float) -> "Moments":
        """The same sample counting `factor` times as much, as if it had so many more rows."""
        return Moments(
            self.rows,
            self.total * factor,
            self.squares * factor**2,
            self.covariance * factor**2,
            self.stratified,
        )

    def merged(self, into: ArrayLike) -> "Moments":
        """Category k counted as category into[k] (K,)."""
        move = np.eye(len(self.rows))[np.asarray(into)].T
        return Moments(
            move @ self.rows,
            move @ self.total,
            move @ self.squares,
            move @ self.covariance @ move.T,
            self.stratified,
        )

    def rate(
        self,
        events: NDArray[np.bool_],
        base: NDArray[np.bool_],
        confidence: float = 0.95,
        method: str = "wilson",
    ) -> Rate:
        """Share of the base categories that are events; both (K,), events within base.

        Equal weights without strata give the plain interval of the method. Otherwise the interval
        is that of the effective sample, p (1 - p) / variance; without an event, or with nothing
        else, Kish's size takes its place, so the width is never 0.

        Raises ProgipError as `rate` does.
        """
        if (events & ~base).any():
            raise ProgipError("an event outside its base; give events that are part of the base")
        if not self.stratified:
            return rate_from_sums(
                n=int(self.rows[base].sum()),
                events=int(self.rows[events].sum()),
                weight=float(self.total[base].sum()),
                weight_squared=float(self.squares[base].sum()),
                event_weight=float(self.total[events].sum()),
                event_weight_squared=float(self.squares[events].sum()),
                confidence=confidence,
                method=method,
            )
        whole = float(self.total[base].sum())
        share = float(self.total[events].sum()) / whole if whole else 0.0
        contrast = events - share * base
        variance = float(contrast @ self.covariance @ contrast) / whole**2 if whole else 0.0
        kish = whole**2 / float(self.squares[base].sum()) if whole else 0.0
        return rate_from_variance(
            n=int(self.rows[base].sum()),
            events=int(self.rows[events].sum()),
            estimate=share,
            variance=variance,
            kish=kish,
            confidence=confidence,
            method=method,
        )


class StratifiedSums:
    """Keeps, row by row, what `Moments` are made of.

    shares: probability W_h of each stratum (H,); (1,) for a sample without strata, whose weights
    may then differ from row to row. categories: K.
    """

    def __init__(self, shares: ArrayLike, categories: int) -> None:
        self.shares = np.asarray(shares, dtype=np.float64)
        if (
            self.shares.ndim != 1
            or not (self.shares > 0).all()
            or abs(self.shares.sum() - 1) > 1e-6
        ):
            raise ProgipError("the shares of the strata must be above 0 and add up to 1")
        shape = (len(self.shares), categories)
        self.rows = np.zeros(shape)
        self.sums = np.zeros(shape)
        self.squares = np.zeros(shape)

    def add(self, stratum: ArrayLike, category: ArrayLike, weight: ArrayLike) -> None:
        """Count rows; all (rows,). weight: of the row within its stratum, 1 where all are alike.

        Raises ProgipError for a stratum that the plan does not have.
        """
        h = np.asarray(stratum, dtype=np.int64)
        if len(h) and not (h.min() >= 0 and h.max() < len(self.shares)):
            raise ProgipError(
                f"stratum {h.max() if h.min() >= 0 else h.min()} is not one of the plan's "
                f"{len(self.shares)}; the rows were drawn by another plan"
            )
        flat = h * self.rows.shape[1] + np.asarray(category, dtype=np.int64)
        weights = np.asarray(weight, dtype=np.float64)
        for target, value in (
            (self.rows, None), (self.sums, weights), (self.squares, weights**2),
        ):  # fmt: skip
            target += np.bincount(flat, value, minlength=target.size).reshape(target.shape)

    @property
    def unseen(self) -> float:
        """Probability of the strata without a row so far."""
        return float(self.shares[self.rows.sum(1) == 0].sum())

    def factors(self) -> NDArray[np.float64]:
        """What a row of each stratum counts, (H,): n W_h / n_h; 1 where there are no strata."""
        n = self.rows.sum(1)
        if len(n) == 1:
            return np.ones(1)
        result: NDArray[np.float64] = n.sum() * self.shares / np.where(n > 0, n, np.inf)
        return result

    def moments(self) -> Moments:
        """The moments of the rows so far: row weights n W_h / n_h, variances within strata.

        A stratum with one row has no variance of its own; its square stands in. Strata without any
        row are left out, as if the others spoke for them (see `unseen`).
        """
        n = self.rows.sum(1)
        some = n > 0
        factor = self.factors()[some]
        rows, sums, squares = self.rows[some], self.sums[some], self.squares[some]
        n = n[some]
        scale = factor**2 * np.where(n > 1, n / np.maximum(n - 1, 1), 1)
        lone = np.where(n > 1, 1 / n, 0)
        covariance = np.diag(scale @ squares) - (sums.T * (scale * lone)) @ sums
        return Moments(
            rows.sum(0),
            factor @ sums,
            factor**2 @ squares,
            covariance,
            len(self.shares) > 1,
        )
