"""Rates of samples whose rows come in clusters: the images that share a fault map."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from progip.statistics.strata import Moments, StratifiedSums


class ClusteredSums(StratifiedSums):
    """As ``StratifiedSums``, the units that were drawn being clusters of rows.

    The covariance is that between clusters (Cochran, 1977, section 11.8, over strata), and squares
    are those of whole clusters, so that effective sizes count clusters. Rows of one cluster lie in
    one stratum.
    """

    def __init__(self, shares: ArrayLike, allocation: ArrayLike, categories: int) -> None:
        super().__init__(shares, allocation, categories)
        self._stratum = np.full(0, -1, dtype=np.int64)
        self._counts = np.zeros((0, categories))

    @property
    def units(self) -> float:
        """Clusters so far."""
        return float((self._stratum >= 0).sum())

    def add_clusters(
        self, stratum: ArrayLike, category: ArrayLike, factor: ArrayLike, cluster: ArrayLike
    ) -> None:
        """Count rows.

        Args:
            stratum, category, factor: as of ``add``, (rows,).
            cluster: (rows,) number of each row's cluster.
        """
        self.add(stratum, category, factor)
        number = np.asarray(cluster, dtype=np.int64)
        if not len(number):
            return
        lacking = int(number.max()) + 1 - len(self._stratum)
        if lacking > 0:
            lacking = max(lacking, len(self._stratum))  # double: few copies
            self._stratum = np.append(self._stratum, np.full(lacking, -1))
            self._counts = np.append(self._counts, np.zeros((lacking, self._counts.shape[1])), 0)
        self._stratum[number] = np.asarray(stratum)
        chosen = (number, np.asarray(category, dtype=np.int64))
        np.add.at(self._counts, chosen, np.asarray(factor))

    def moments(self) -> Moments:
        """The moments of the rows so far, by clusters; see ``StratifiedSums.moments``."""
        known = self._stratum >= 0
        counts, stratum = self._counts[known], self._stratum[known]
        own = self.groups()
        group = own[stratum]
        some = int(own.max()) + 1
        weighted = self.weights[stratum][:, None] * counts
        mass = np.bincount(group, weighted.sum(1), minlength=some)
        share = np.bincount(own, self.shares, minlength=some)
        scale = np.where(mass > 0, self.size * share / np.where(mass > 0, mass, 1), 0.0)
        scaled = scale[group][:, None] * weighted
        total: NDArray[np.float64] = np.zeros((some, counts.shape[1]))
        np.add.at(total, group, scaled)
        whole = np.maximum(total.sum(1), 1e-300)[:, None]
        rest = scaled - scaled.sum(1)[:, None] * (total / whole)[group]
        clusters = np.bincount(group, minlength=some)
        inflate = np.where(clusters > 1, clusters / np.maximum(clusters - 1, 1), 1.0)
        covariance = (rest * inflate[group][:, None]).T @ rest
        return Moments(self.rows.sum(0), total.sum(0), (scaled**2).sum(0), covariance)
