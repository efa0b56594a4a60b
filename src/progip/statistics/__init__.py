"""Statistics of campaigns: intervals of rates, sample sizes, ROC figures, comparisons.

Pure functions of numbers and arrays; nothing here knows of files, networks or tables.
"""

from progip.statistics.clusters import ClusteredRate, cluster_bootstrap
from progip.statistics.comparison import (
    Difference,
    compare_independent,
    compare_paired,
    compare_paired_weighted,
    mcnemar_p,
    paired_interval,
)
from progip.statistics.intervals import (
    METHODS,
    Rate,
    effective_size_warning,
    proportion_interval,
    rate,
    rate_from_sums,
    weighted_rate,
)
from progip.statistics.ratios import Median, mean_of_median_ratios, median_difference, median_ratio
from progip.statistics.roc import auroc, auroc_interval, fpr_at_tpr, threshold_at_tpr
from progip.statistics.sizing import margin_of, sample_size
from progip.statistics.strata import Moments, StratifiedSums

__all__ = [
    "METHODS",
    "ClusteredRate",
    "Difference",
    "Median",
    "Moments",
    "Rate",
    "StratifiedSums",
    "auroc",
    "auroc_interval",
    "cluster_bootstrap",
    "compare_independent",
    "compare_paired",
    "compare_paired_weighted",
    "effective_size_warning",
    "fpr_at_tpr",
    "margin_of",
    "mcnemar_p",
    "mean_of_median_ratios",
    "median_difference",
    "median_ratio",
    "paired_interval",
    "proportion_interval",
    "rate",
    "rate_from_sums",
    "sample_size",
    "threshold_at_tpr",
    "weighted_rate",
]
