"""Single weight faults one by one: what each did to all images, and how other injectors agree."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from progip.errors import ProgipError
from progip.storage import store
from progip.storage.fault_lists import COUNTS, NEEDED, read_list
from progip.storage.manifests import read_manifest

#: critical images by which two injectors may differ for kernels that round differently
TOLERANCE = 2
FLAGS = ("masked", "non_critical", "critical")
READ = ("map_id", "layer", "call", "neuron", "bit", *FLAGS)


def by_fault(cell: Path) -> pd.DataFrame:
    """What each fault of a cell did: one line a map, with the columns of a fault list.

    Shards are read one at a time. A map of which some images are still to be executed is left out.

    Raises:
        ProgipError: the cell's faults are not single ones of parameters, or its outcome does not
            tell critical and masked runs.
    """
    manifest = read_manifest(cell) or {}
    per_map = manifest.get("runs_per_map")
    produced = {column["name"] for column in manifest.get("columns", [])}
    if not per_map or "hits" in produced:
        raise ProgipError(
            f"{cell}: its faults are not single faults of parameters; give a cell of "
            "fault_model=parameter_bit or listed"
        )
    if set(READ) - produced:
        raise ProgipError(f"{cell}: run it with outcome=criticality probes=[logits_digest]")
    parts = []
    for shard in store.named_shards(cell):
        frame = pq.read_table(shard.path, columns=list(READ)).to_pandas()
        places = ["map_id", "layer", "call", "neuron", "bit"]
        counts = frame.groupby(places, observed=True)[list(FLAGS)].sum()
        parts.append(counts.assign(n_injections=frame.groupby(places, observed=True).size()))
    if not parts:
        raise ProgipError(f"{cell}: there is no row yet")
    whole = pd.concat(parts).groupby(level=[0, 1, 2, 3, 4]).sum().reset_index()
    whole = whole[whole["n_injections"] == per_map]
    shapes = {(s["layer"], s["call"]): tuple(s["shape"]) for s in manifest["layers"]}
    index = [
        str(tuple(int(i) for i in np.unravel_index(row.neuron, shapes[row.layer, row.call])))
        for row in whole.itertuples()
    ]
    found = {
        "Injection": whole["map_id"],
        "Layer": whole["layer"],
        "TensorIndex": index,
        "Bit": whole["bit"],
        **{name: whole[name] for name in COUNTS},
    }
    return pd.DataFrame(found).sort_values("Injection", ignore_index=True)


def joined(ours: Path, theirs: Path) -> pd.DataFrame:
    """The faults that two lists share, with the counts of both (``_a``, ``_b``).

    Raises:
        ProgipError: a list has no counts, or none of its faults is in the other.
    """
    frames = []
    for path in (ours, theirs):
        listed = read_list(path)
        if list(listed.counts) != list(COUNTS):
            raise ProgipError(f"{path}: it lacks counts; a result has {', '.join(COUNTS)}")
        places = {"Layer": listed.layer, "TensorIndex": map(str, listed.index), "Bit": listed.bit}
        frames.append(pd.concat([pd.DataFrame(places), listed.counts], axis=1))
    one, other = (frame.drop_duplicates(list(NEEDED)) for frame in frames)
    found = one.merge(other, on=list(NEEDED), suffixes=("_a", "_b"))
    if found.empty:
        raise ProgipError(f"{ours} and {theirs} have no fault in common")
    unequal = found["n_injections_a"] != found["n_injections_b"]
    if unequal.any():
        line = found[unequal].iloc[0]
        raise ProgipError(
            f"{ours} counts {line['n_injections_a']} images of a fault, {theirs} "
            f"{line['n_injections_b']}; compare results of the same images"
        )
    return found


def agreement(pairs: pd.DataFrame) -> pd.DataFrame:
    """How two results of the same faults agree: by groups of bits, and all together.

    Columns: bits, faults, equal (critical counts), within (``TOLERANCE`` images of each other),
    largest (difference), masked_equal, critical_a, critical_b (shares of all images).
    """
    groups = {
        "30": pairs["Bit"] == 30,
        "31 and 23 to 29": (pairs["Bit"] > 22) & (pairs["Bit"] != 30),
        "0 to 22": pairs["Bit"] <= 22,
        "all": pairs["Bit"] >= 0,
    }
    lines = []
    for name, chosen in groups.items():
        part = pairs[chosen]
        if part.empty:
            continue
        gap = (part["critical_a"] - part["critical_b"]).abs()
        images = part["n_injections_a"].sum()
        lines.append(
            {
                "bits": name,
                "faults": len(part),
                "equal": int((gap == 0).sum()),
                "within": int((gap <= TOLERANCE).sum()),
                "largest": int(gap.max()),
                "masked_equal": int((part["masked_a"] == part["masked_b"]).sum()),
                "critical_a": part["critical_a"].sum() / images,
                "critical_b": part["critical_b"].sum() / images,
            }
        )
    return pd.DataFrame(lines)
