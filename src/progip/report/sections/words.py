"""Comparisons of protections in plain words."""

import pandas as pd

from progip.report import formats


def sentence(row: pd.Series, pairs: int) -> str:
    """One comparison in plain words; pairs: how many the setting has."""
    a, b = row["protection_a"], row["protection_b"]
    if not row["failures"]:
        return f"{a} and {b}: no failure that both have seen, so nothing to compare."
    verdict = "is significant" if row["significant"] else "is not significant"
    test = "sign flips of weighted pairs" if row["weighted"] else "exact McNemar"
    test += f", {formats.p_value(row['p_value'])}"
    after = " after Holm" if pairs > 1 else ""
    if pairs > 1:
        test += f", {formats.p_value(row['p_holm'])} after Holm for {pairs} comparisons"
    interval = " to ".join(formats.points(row[f"difference_{end}"]) for end in ("low", "high"))
    text = (
        f"On the same {formats.count(row['failures'])} failures {a} leaves "
        f"{formats.count(row['left_a'])} undetected and {b} {formats.count(row['left_b'])} "
        f"({formats.count(row['only_a_left'])} are left by {a} alone, "
        f"{formats.count(row['only_b_left'])} by {b} alone). The difference in detection accuracy, "
        f"{formats.points(row['difference'])} points for {a} (95 % interval{after} {interval}), "
        f"{verdict} "
        f"({test})."
    )
    if row["unmatched"]:
        text += (
            f" {formats.count(row['unmatched'])} failures that only one of the two has run yet are "
            "left out."
        )
    return text
