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

#: rows that a group of strata must be due before its variance is its own
LEAST_ROWS = 10


@dataclass(frozen=True)
class Moments:
    """Totals of K categories over a sample, on the scale of its rows, with their covariance.

    The moments of independent samples are added with `+`.

    Attributes:
        rows: counts (K,).
        total: sums of estimation weights (K,).
        squares: sums of their squares (K,).
        covariance: (K, K) of `total`.
        stratified: whether the covariance says more than the sums.
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

    def _squares_ratio(self, kind: NDArray[np.bool_]) -> float:
        """sum(w^2) / sum(w)^2 over some categories; 0 where they have no row."""
        total = float(self.total[kind].sum())
        return float(self.squares[kind].sum()) / total**2 if total else 0.0

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

        Raises:
            ProgipError: as `statistics.rate` does.
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
        rest = base & ~events
        # what unequal weights leave unknown of the variance, beyond what the counts tell
        unknown = max(
            self._squares_ratio(kind) - 1 / max(float(self.rows[kind].sum()), 1.0)
            for kind in (events, rest)
        )
        return rate_from_variance(
            n=int(self.rows[base].sum()),
            events=int(self.rows[events].sum()),
            estimate=share,
            variance=variance,
            kish=kish,
            degrees=max(1 / unknown, 1.0) if unknown > 1e-6 else np.inf,
            confidence=confidence,
            method=method,
        )


class StratifiedSums:
    """Keeps, row by row, what `Moments` are made of.

    Args:
        shares: probability W_h of each stratum (H,); (1,) for a sample without strata, whose
            weights may then differ from row to row.
        allocation: part a_h of the rows each stratum is to get (H,), fixed before they are drawn.
        categories: K.

    Raises:
        ProgipError: shares or parts that are not above 0 or do not add up to 1.
    """

    def __init__(self, shares: ArrayLike, allocation: ArrayLike, categories: int) -> None:
        self.shares = np.asarray(shares, dtype=np.float64)
        self.allocation = np.asarray(allocation, dtype=np.float64)
        for parts in (self.shares, self.allocation):
            if parts.ndim != 1 or not (parts > 0).all() or abs(parts.sum() - 1) > 1e-6:
                raise ProgipError("shares of strata must be above 0 and add up to 1")
        if len(self.shares) != len(self.allocation):
            raise ProgipError("give every stratum a share and an allocation")
        self.weights = self.shares / self.allocation
        shape = (len(self.shares), categories)
        self.rows = np.zeros(shape)
        self._first = np.zeros(shape)
        self._second = np.zeros(shape)
        #: of pairs of categories that one row counts in: products of what it counts there (H,)
        self._products: dict[tuple[int, int], NDArray[np.float64]] = {}

    @property
    def size(self) -> float:
        """Rows so far."""
        return float(self.rows.sum())

    @property
    def units(self) -> float:
        """What was drawn so far: rows."""
        return self.size

    def add(self, stratum: ArrayLike, category: ArrayLike, factor: ArrayLike) -> None:
        """Count rows.

        Args:
            stratum: (rows,).
            category: (rows,).
            factor: (rows,) what a row counts within its stratum, 1 where all alike.

        Raises:
            ProgipError: a stratum that the plan does not have.
        """
        h = np.asarray(stratum, dtype=np.int64)
        if len(h) and not (h.min() >= 0 and h.max() < len(self.shares)):
            raise ProgipError(f"the sampling plan has {len(self.shares)} strata, not {h.max()}")
        flat = h * self.rows.shape[1] + np.asarray(category, dtype=np.int64)
        r = np.asarray(factor, dtype=np.float64)
        for target, value in ((self.rows, None), (self._first, r), (self._second, r * r)):
            target += np.bincount(flat, value, minlength=target.size).reshape(target.shape)

    def add_divided(
        self,
        stratum: ArrayLike,
        category: ArrayLike,
        other: ArrayLike,
        part: ArrayLike,
        factor: ArrayLike,
    ) -> None:
        """Count rows of which each stands for itself and for another category.

        Args:
            stratum: (rows,).
            category, other: (rows,); a row counts ``part`` in the first, 1 - ``part`` in the other.
            part: (rows,).
            factor: (rows,) as of ``add``.
        """
        h, k = np.asarray(stratum, dtype=np.int64), np.asarray(category, dtype=np.int64)
        o, r = np.asarray(other, dtype=np.int64), np.asarray(part, dtype=np.float64)
        r = np.where(k == o, 1.0, r)
        f = np.asarray(factor, dtype=np.float64)
        self.add(h, k, r * f)
        rest = (1 - r) * f
        flat = h * self.rows.shape[1] + o
        for target, value in ((self._first, rest), (self._second, rest * rest)):
            target += np.bincount(flat, value, minlength=target.size).reshape(target.shape)
        product = r * f * rest
        size = self.rows.shape[1]
        for pair in np.unique((k * size + o)[product != 0]).tolist():
            chosen = (k * size + o == pair) & (product != 0)
            found = np.bincount(h[chosen], product[chosen], minlength=len(self.shares))
            key = divmod(pair, size)
            self._products[key] = self._products.get(key, np.zeros(len(found))) + found

    def row_factors(self) -> NDArray[np.float64]:
        """What a row of each stratum counts in the moments, before its own factor, (H,)."""
        if len(self.shares) == 1:
            return np.ones(1)
        group = self.groups()
        n = self.rows.sum(1)
        mass = np.bincount(group, n * self.weights)
        share = np.bincount(group, self.shares)
        scale = self.size * share / np.where(mass > 0, mass, np.inf)
        result: NDArray[np.float64] = scale[group] * self.weights
        return result

    def moments(self) -> Moments:
        """The moments of the rows so far.

        Many strata are too small to have rows of their own, so strata of similar weights are taken
        together until each group is due LEAST_ROWS rows (collapsed strata, Cochran 5A.12); groups
        depend on the plan and the number of rows alone. Within a group the mean is weighted, its
        variance linearised; groups are added with their known shares.
        """
        if len(self.shares) == 1:
            first, second = self._first[0], self._second[0]
            n = self.size
            spread = np.diag(second) - (np.outer(first, first) / n if n else 0.0)
            self._add_products(spread, np.ones(1))
            divided = bool(self._products)
            return Moments(self.rows[0].copy(), first.copy(), second.copy(), spread, divided)
        group = self.groups()
        count = int(group.max()) + 1 if len(group) else 0
        collect = np.zeros((count, len(group)))
        collect[group, np.arange(len(group))] = 1.0
        w = self.weights[:, None]
        total = collect @ (w * self._first)
        square = collect @ (w**2 * self._second)
        cross = collect @ (w**2 * self._first)
        n = collect @ self.rows.sum(1)
        mass = collect @ (self.weights * self.rows.sum(1))
        mass_square = collect @ (self.weights**2 * self.rows.sum(1))
        some = n > 0
        scale = np.where(some, self.size * (collect @ self.shares) / np.where(some, mass, 1), 0)
        mean = total / np.where(some, mass, 1)[:, None]
        inflate = scale**2 * np.where(n > 1, n / np.maximum(n - 1, 1), 1)
        middle = (cross * inflate[:, None]).T @ mean
        covariance = np.diag(inflate @ square) - middle - middle.T
        covariance += (mean.T * (inflate * mass_square)) @ mean
        self._add_products(covariance, inflate[group] * self.weights**2)
        return Moments(self.rows.sum(0), scale @ total, scale**2 @ square, covariance)

    def _add_products(self, covariance: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
        """What rows that count in two categories add to the covariance; scale: (H,)."""
        for (one, other), products in self._products.items():
            found = float(scale @ products)
            covariance[one, other] += found
            covariance[other, one] += found

    def groups(self) -> NDArray[np.int64]:
        """The group of each stratum, (H,): similar weights, at least LEAST_ROWS rows due."""
        order = np.argsort(self.weights, kind="stable")
        due = np.cumsum(self.units * self.allocation[order])
        group, start, number = np.empty(len(order), dtype=np.int64), 0.0, 0
        for place, position in enumerate(order):
            group[position] = number
            if due[place] - start >= LEAST_ROWS and due[-1] - due[place] >= LEAST_ROWS:
                start, number = due[place], number + 1
        return group
