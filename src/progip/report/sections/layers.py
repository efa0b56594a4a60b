"""Vulnerability by layer, ranked, and by field of the number: for every outcome."""

import pandas as pd

from progip.analysis.campaign import SETTING, Campaign, by_group
from progip.analysis.site_rates import executions_of, site_rates
from progip.analysis.site_sums import measured
from progip.outcomes.declared import Declared
from progip.report import formats
from progip.report.formats import inside
from progip.report.layout import Block, Section, Value, left_out, setting_title

SHOWN = 8
FEW, FEW_SHARE = 100, 0.5
BY = ["ood_method", "model", "fault_pass"]


def layers_section(campaign: Campaign) -> Section | None:
    """Failure rate, counts and means of every layer, the worst first; None without such runs."""
    frames = [
        _ranked(campaign, setting)
        for setting, _ in by_group(campaign.cells, SETTING)
        if any(len(e.sites) for e in executions_of(campaign, setting))
    ]
    if not frames:
        return None
    data = pd.concat(frames, ignore_index=True)
    blocks = []
    for setting, group in by_group(data, SETTING):
        for key, part in by_group(group, BY):
            blocks.append(_block(campaign, tuple(setting), tuple(key), part))
    blocks.append(Block("", notes=_reading(campaign)))
    source = "layers.layers_section(campaign).data"
    return Section("layers", "Vulnerability by layer", blocks, data, source)


def _ranked(campaign: Campaign, setting: tuple[str, ...]) -> pd.DataFrame:
    """One row per layer: rank, counts, rate, shares of the network, failures by field, means."""
    rates = site_rates(campaign, setting, [*BY, "layer"])
    by_field = site_rates(campaign, setting, [*BY, "layer", "field"])
    executions = executions_of(campaign, setting)
    declared = campaign.declared
    parts = [e.sites.assign(**{n: e.names[n] for n in BY}) for e in executions]
    events = [event.name for event in declared.events]
    counts = pd.concat(parts).groupby([*BY, "layer"])[events].sum().reset_index()
    data = rates.merge(counts, on=[*BY, "layer"])
    about = pd.concat([e.about.assign(model=e.names["model"]) for e in executions])
    about = about.drop_duplicates(["model", "layer"])
    total = about.groupby("model")[["neurons", "macs"]].transform("sum").clip(lower=1)
    about["neuron_share"] = about["neurons"] / total["neurons"]
    about["mac_share"] = about["macs"] / total["macs"]
    data = data.merge(about, on=["model", "layer"], how="left")
    failures = by_field.pivot_table(
        index=[*BY, "layer"], columns="field", values="failures", aggfunc="sum", fill_value=0
    )
    failures.columns = [f"{name}_failures_by_field" for name in failures.columns]
    data = data.merge(failures.reset_index(), on=[*BY, "layer"], how="left")
    if declared.measures:
        data = data.merge(_means(executions, declared), on=[*BY, "layer"], how="left")
    for name, value in zip(reversed(SETTING), reversed(setting), strict=True):
        data.insert(0, name, value)
    order = data.sort_values(
        [*BY, "estimate", "failures"],
        ascending=[True, True, True, False, False],
        kind="stable",
        na_position="last",
    )
    order.insert(len(SETTING) + len(BY), "rank", order.groupby(BY, sort=False).cumcount() + 1)
    return order


def _means(executions: list, declared: Declared) -> pd.DataFrame:
    parts = [e.layer_means.assign(**{n: e.names[n] for n in BY}) for e in executions]
    sums = pd.concat(parts).groupby([*BY, "layer"], sort=False).sum().reset_index()
    rows = []
    for row in sums.to_dict("records"):
        found = {name: row[name] for name in (*BY, "layer")}
        for measure in declared.measures:
            found |= measured(row, measure.name)
        rows.append(found)
    return pd.DataFrame(rows)


def _block(
    campaign: Campaign, setting: tuple[str, ...], key: tuple[str, ...], part: pd.DataFrame
) -> Block:
    declared = campaign.declared
    method, model, fault_pass = key
    sites = pd.concat([e.sites for e in executions_of(campaign, setting)])
    fields = [name for name in sites.sort_values("bit")["field"].unique() if name != "none"]
    marked = part["super_layer"].notna().any()
    headers = ["rank", "layer", "type"] + (["super"] if marked else [])
    headers += ["failures / n", "%", "95 % interval", *fields]
    others = [e for e in declared.events if not e.failure or len(declared.failures) > 1]
    headers += [event.short for event in others]
    headers += [f"mean {m.name}" for m in declared.measures if m.by_layer]
    headers += ["neurons, %", "MACs, %"]
    counted = [f"{name}_failures_by_field" for name in fields] + [e.name for e in others]
    means = [m.name for m in declared.measures if m.by_layer]
    lines = []
    worst = part[part["failures"] > 0].head(SHOWN)
    for _, row in part[part["rows"] > 0].iterrows():
        line = [_number(row, str(row[name]), name) for name in ("rank", "layer", "type")]
        line += ["yes" if row["super_layer"] else "no"] if marked else []
        both = f"{formats.count(row['failures'])} / {formats.count(row['correct'])}"
        line.append(_number(row, both, "failures", "correct"))
        line.append(_number(row, formats.percent(row["estimate"]), "estimate"))
        line.append(_number(row, formats.span(row["low"], row["high"]), "low", "high"))
        line += [_number(row, formats.count(row[name]), name) for name in counted]
        line += [_number(row, f"{row[name]:.4g}", name) for name in means]
        shares = ("neuron_share", "mac_share")
        line += [_number(row, formats.percent(row[name]), name) for name in shares]
        lines.append(line)
    notes = []
    if len(worst) < len(part):
        failing = int((part["failures"] > 0).sum())
        notes = [left_out(failing, len(part), "layers", len(worst), "layers")]
    notes += _few(part, declared)
    title = f"{model}, {method}, {fault_pass}: {setting_title(setting)}"
    return Block(title, headers, lines[: len(worst)], notes, lines[len(worst) :])


def _number(row: pd.Series, text: str, *columns: str) -> str:
    """A number that knows where it stands; a dash where there is none."""
    return formats.ABSENT if row[list(columns)].isna().any() else Value(text, row.name, *columns)


def _few(part: pd.DataFrame, declared: Declared) -> list[str]:
    """A warning where rates rest on few runs, for the rows say nothing of the others."""
    if not declared.base:
        return []
    found = []
    runs, base = int(part["rows"].sum()), int(part["correct"].sum())
    what = inside(declared.base_title)
    if runs and base < FEW_SHARE * runs:
        found.append(
            f"Caution: only {base:,} of {runs:,} runs are {what}; the rates are of these alone."
        )
    few = part[(part["correct"] < FEW) & (part["rows"] > 0)]
    if len(few):
        names = ", ".join(few["layer"].head(3)) + (", ..." if len(few) > 3 else "")
        found.append(
            f"Caution: fewer than {FEW} {what} in {len(few)} of {len(part)} layers ({names}): "
            "ranks there are mostly chance."
        )
    return found


def _reading(campaign: Campaign) -> list[str]:
    declared = campaign.declared
    titles = ", ".join(inside(event.title) for event in declared.failures)
    base = inside(declared.base_title) if declared.base else "runs"
    return [
        f"The share of {base} that fail before any protection ({titles}) when a fault hits the "
        "layer: its vulnerability factor (AVF). Beside it: failures by the field of the number "
        "that was hit. Calls of one layer are taken together. Neurons and MACs: its share of those "
        "of all layers hit. Ranks of overlapping intervals say little; the whole table, and the "
        "bits one by one, are in layers.csv and vulnerability.csv."
    ]
