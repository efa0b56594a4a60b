"""Failure rates of the runs that hit each layer and bit, added up as tables and figures ask."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from progip.analysis.campaign import SETTING, Campaign
from progip.analysis.observing import ExecutedRuns
from progip.statistics import Moments, Rate, rate_from_sums

SUMS = ("weight", "squares", "failure_weight", "failure_squares")


def executions_of(campaign: Campaign, setting: tuple[str, ...]) -> list[ExecutedRuns]:
    """The executions of one setting."""
    return [e for e in campaign.executions if tuple(e.names[n] for n in SETTING) == tuple(setting)]


def site_rates(campaign: Campaign, setting: tuple[str, ...], by: list[str]) -> pd.DataFrame:
    """Failure rates before protection of the runs that hit each site, added up by some columns.

    Args:
        campaign: that was observed.
        setting: values of SETTING.
        by: of the names of a cell, `layer`, `bit` and `field`.

    Returns:
        by, rows, correct, failures and the rate with its 95 % interval (estimate, low, high; NaN
        where no correct run is) and effective_n.
    """
    return rates_of(executions_of(campaign, setting), by)


def rates_of(executions: Sequence[ExecutedRuns], by: list[str]) -> pd.DataFrame:
    """``site_rates`` of some executions; by: of their names and of the columns of ``sites``."""
    parts = [e.sites.assign(**{n: e.names[n] for n in by if n in e.names}) for e in executions]
    sums = pd.concat(parts).groupby(by, sort=False)[_COUNTS].sum().reset_index()
    rates = [rate_of_sums(row) for row in sums.to_dict("records")]
    data = sums[by].assign(
        rows=sums["rows"].astype(int),
        correct=sums["correct"].astype(int),
        failures=sums["failures"].astype(int),
    )
    for name in ("estimate", "low", "high", "effective_n"):
        data[name] = [getattr(r, name) if r.n else math.nan for r in rates]
    return data


def rate_of_sums(row: Mapping[str, float]) -> Rate:
    """The weighted share of events of SUMS over rows, or over fault maps (``site_sums.of_maps``).

    Args:
        row: correct (rows), failures (events), SUMS, cross and maps (0: rows stand alone).
    """
    if row["maps"]:
        xx, xy, yy = row["squares"], row["cross"], row["failure_squares"]
        whole, failed = row["weight"], row["failure_weight"]
        share = failed / whole if whole else 0.0
        spread = max(yy - 2 * share * xy + share**2 * xx, 0.0)
        spread *= row["maps"] / max(row["maps"] - 1, 1)
        moments = Moments(
            np.array([row["correct"] - row["failures"], row["failures"]]),
            np.array([whole - failed, failed]),
            np.array([xx - 2 * xy + yy, yy]),
            spread * np.array([[1.0, -1.0], [-1.0, 1.0]]),
        )
        return moments.rate(np.array([False, True]), np.array([True, True]))
    return rate_from_sums(
        n=int(row["correct"]),
        events=int(row["failures"]),
        weight=row["weight"],
        weight_squared=row["squares"],
        event_weight=row["failure_weight"],
        event_weight_squared=row["failure_squares"],
    )


_COUNTS = ["rows", "correct", "failures", *SUMS, "cross", "maps"]
