"""Failure rates of the runs that hit each layer and bit, added up as tables and figures ask."""

import math

import pandas as pd

from progip.analysis.campaign import SETTING, Campaign
from progip.analysis.observing import ExecutedRuns
from progip.statistics import rate_from_sums

SUMS = ("weight", "squares", "failure_weight", "failure_squares")


def executions_of(campaign: Campaign, setting: tuple[str, ...]) -> list[ExecutedRuns]:
    """The executions of one setting."""
    return [e for e in campaign.executions if tuple(e.names[n] for n in SETTING) == tuple(setting)]


def site_rates(campaign: Campaign, setting: tuple[str, ...], by: list[str]) -> pd.DataFrame:
    """Failure rates before protection of the runs that hit each site, added up by some columns.

    Args:
        campaign: that was observed.
        setting: values of SETTING.
        by: of the names of a cell, `layer` and `bit`.

    Returns:
        by, rows, correct, failures and the rate with its 95 % interval (estimate, low, high; NaN
        where no correct run is) and effective_n.
    """
    parts = [
        e.sites.assign(**{n: e.names[n] for n in by if n in e.names})
        for e in executions_of(campaign, setting)
    ]
    sums = pd.concat(parts).groupby(by, sort=False)[_COUNTS].sum().reset_index()
    rates = [
        rate_from_sums(
            n=int(row["correct"]),
            events=int(row["failures"]),
            weight=row["weight"],
            weight_squared=row["squares"],
            event_weight=row["failure_weight"],
            event_weight_squared=row["failure_squares"],
        )
        for row in sums.to_dict("records")
    ]
    data = sums[by].assign(
        rows=sums["rows"].astype(int),
        correct=sums["correct"].astype(int),
        failures=sums["failures"].astype(int),
    )
    for name in ("estimate", "low", "high", "effective_n"):
        data[name] = [getattr(r, name) if r.n else math.nan for r in rates]
    return data


_COUNTS = ["rows", "correct", "failures", *SUMS]
