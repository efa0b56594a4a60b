"""A text-guided head beside a plain one: the comparison of Wasim et al. (NeurIPS 2023)."""

import pandas as pd

from progip.analysis.campaign import Campaign
from progip.analysis.head_pairs import (
    HeadPair,
    Quotient,
    head_pairs,
    last_layer,
    overall,
    top2diff_gain,
)
from progip.report import formats
from progip.report.layout import Block, Section, Value
from progip.statistics import rate

MEASURES = ("delta_loss", "delta_loss_capped")
READING = (
    "Improvement: DeltaLoss of the plain head over that of the other, above 1 the other is better; "
    "95 % intervals by the delta method on its logarithm. The last layer of the plain head is set "
    "against the layers of the other head together, weighted by neurons, as faults are, or by "
    "multiply-accumulates; overall is the plain mean over all layers, as in the source. Runs whose "
    "loss is not finite are left out of DeltaLoss, as in the source, and count as the cap in its "
    "capped form. Top2Diff gain: paired over the images that both classify right. It is ahead from "
    "the demanded Top2Diff on from which more images are right with that lead, up to 40 points."
)
BITS = (
    "Flips of float32 values below 2 in magnitude: those of bit 30, the highest of the exponent, "
    "leave that range; of the others none can, since without bit 30 no exponent reaches 2."
)
VALUES = (
    "Magnitudes of the clean values that were hit, a random sample of each layer's neurons: the "
    "largest is of that sample. Every layer is in heads.csv."
)


def heads_section(campaign: Campaign) -> Section | None:
    """Each pair of heads on one backbone; None where there is none."""
    pairs = head_pairs(campaign)
    if not pairs:
        return None
    data = pd.DataFrame([_row(pair) for pair in pairs])
    data = pd.concat([data, *(_layers(pair) for pair in pairs)], ignore_index=True)
    blocks = [
        _accuracy(data[data["kind"] == "pair"]),
        _improvement(data[data["kind"] == "pair"]),
        _bits(data[data["kind"] == "pair"]),
        *(_values(part) for _, part in data[data["kind"] == "layer"].groupby("pair", sort=False)),
    ]
    return Section("heads", "Heads compared", blocks, data, "heads.heads_section(campaign).data")


def _title(pair: HeadPair) -> str:
    protection = pair.setting["protection"]
    with_protection = "" if protection == "none" else f", {protection}"
    return f"{pair.other.model} against {pair.plain.model}{with_protection}"


def _row(pair: HeadPair) -> dict[str, object]:
    row: dict[str, object] = {"kind": "pair", "pair": _title(pair), **pair.setting}
    row |= top2diff_gain(pair)
    for which in ("plain", "other"):
        found = rate(int(str(row[f"right_{which}"])), int(str(row["images"])))
        row |= {
            f"accuracy_{which}": found.estimate,
            f"accuracy_{which}_low": found.low,
            f"accuracy_{which}_high": found.high,
        }
    for measure in MEASURES:
        for weighting in ("neurons", "macs"):
            row |= _named(f"last_{weighting}_{measure}", last_layer(pair, measure, weighting))
        row |= _named(f"overall_{measure}", overall(pair, measure))
    for name, head in (("plain", pair.plain), ("other", pair.other)):
        for group in ("30", "others"):
            there = group in head.bits.index
            row[f"below_{name}_{group}"] = head.bits.loc[group, "size"] if there else 0
            row[f"leaves_{name}_{group}"] = head.bits.loc[group, "sum"] if there else 0
        row[f"nonfinite_{name}"] = int(head.layers["nonfinite"].sum())
        row[f"runs_{name}"] = int(head.layers["n"].sum())
    return row


def _named(name: str, found: Quotient) -> dict[str, float]:
    return {
        f"{name}_plain": found.plain,
        f"{name}_other": found.other,
        name: found.estimate,
        f"{name}_low": found.low,
        f"{name}_high": found.high,
    }


def _layers(pair: HeadPair) -> pd.DataFrame:
    parts = []
    for head, own in zip((pair.plain, pair.other), pair.own, strict=True):
        frame = head.layers.reset_index()
        frame["of_head"] = frame["layer"].isin(own)
        parts.append(frame.assign(kind="layer", pair=_title(pair), head=head.name))
    return pd.concat(parts, ignore_index=True)


def _value(row: pd.Series, text: str, *columns: str) -> str:
    return formats.ABSENT if row[list(columns)].isna().any() else Value(text, row.name, *columns)


def _accuracy(rows: pd.DataFrame) -> Block:
    headers = ["pair", "images", "accuracy, plain", "other", "Top2Diff, plain", "other"]
    headers += ["gain, points", "ahead from"]
    lines = []
    for _, row in rows.iterrows():
        line = [row["pair"], _value(row, formats.count(row["images"]), "images")]
        for head in ("plain", "other"):
            name = f"accuracy_{head}"
            span = formats.span(row[f"{name}_low"], row[f"{name}_high"])
            text = f"{formats.percent(row[name])} ({span})"
            line.append(_value(row, text, name, f"{name}_low", f"{name}_high"))
        for name in ("top2diff_plain", "top2diff_other"):
            line.append(_value(row, f"{row[name]:.2f}", name))
        gain = f"{row['gain']:+.2f} ({row['gain_low']:+.2f} to {row['gain_high']:+.2f})"
        line.append(_value(row, gain, "gain", "gain_low", "gain_high"))
        line.append(_value(row, f"{row['crossing']:.0f}", "crossing"))
        lines.append(line)
    return Block("Without faults", headers, lines)


def _improvement(rows: pd.DataFrame) -> Block:
    headers = ["pair", "DeltaLoss", "last layer, by neurons", "by MACs", "overall", "not finite"]
    lines = []
    for _, row in rows.iterrows():
        for measure in MEASURES:
            line = [row["pair"], "capped" if measure.endswith("capped") else "finite alone"]
            for what in ("last_neurons", "last_macs", "overall"):
                name = f"{what}_{measure}"
                low, high = row[f"{name}_low"], row[f"{name}_high"]
                text = f"{row[name]:.3g}x ({low:.3g} to {high:.3g})"
                line.append(_value(row, text, name, f"{name}_low", f"{name}_high"))
            odd = f"{row['nonfinite_plain']:.0f}, {row['nonfinite_other']:.0f}"
            line.append(_value(row, odd, "nonfinite_plain", "nonfinite_other"))
            lines.append(line)
    return Block("Improvement", headers, lines, [READING])


def _bits(rows: pd.DataFrame) -> Block:
    headers = ["pair", "head", "bit 30: leave / from below 2", "other bits: leave / from below 2"]
    lines = []
    for _, row in rows.iterrows():
        for head in ("plain", "other"):
            line = [row["pair"], head]
            for group in ("30", "others"):
                names = (f"leaves_{head}_{group}", f"below_{head}_{group}")
                leave, below = (formats.count(row[name]) for name in names)
                line.append(_value(row, f"{leave} / {below}", *names))
            lines.append(line)
    return Block("Values below 2", headers, lines, [BITS])


def _values(rows: pd.DataFrame) -> Block:
    headers = [
        "head",
        "layer",
        "mean |v|",
        "largest |v|",
        "DeltaLoss",
        "capped",
        "mismatches, %",
        "n",
    ]
    own = rows[rows["of_head"].astype(bool)]
    lines = []
    for _, row in own.iterrows():
        numbers = ("mean_value", "largest_value", "delta_loss", "delta_loss_capped")
        line = [row["head"], row["layer"], *(_value(row, f"{row[n]:.4g}", n) for n in numbers)]
        line.append(_value(row, formats.percent(row["mismatch"]), "mismatch"))
        line.append(_value(row, formats.count(row["n"]), "n"))
        lines.append(line)
    rest = rows[~rows["of_head"].astype(bool)]
    means = rest.groupby("head", sort=False)[["mean_value", "largest_value"]].agg(
        {"mean_value": "mean", "largest_value": "max"}
    )
    notes = [
        f"{head}: the other layers, on average {row['mean_value']:.4g}, at most "
        f"{row['largest_value']:.4g}."
        for head, row in means.iterrows()
    ]
    return Block(f"Values in the head: {rows['pair'].iloc[0]}", headers, lines, [*notes, VALUES])
