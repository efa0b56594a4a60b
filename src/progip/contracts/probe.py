"""The contract of a probe: columns of every execution, each row from its own image alone."""

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from progip.contracts.broken import BrokenContract
from progip.ood_methods.base import Detection
from progip.probes import BASE, Observation, Probe

COUNT, CLASSES = 12, 8
LABELS = torch.arange(COUNT) % CLASSES


def check_probe(probe: Probe) -> None:
    """Check all that executors and rows rely on.

    It produces columns of its own, as it declares them; rows recur and stand alone; logits and
    gradients that are not finite are observed, too.

    Raises:
        BrokenContract: saying what does not hold.
    """
    name = f"{type(probe).__name__} '{getattr(probe, 'name', '')}'"

    def must(holds: bool, what: str) -> None:
        if not holds:
            raise BrokenContract(f"{name} {what}")

    must(bool(getattr(probe, "name", "")), "has no name")
    must(bool(probe.produces), "produces no column")
    taken = {column.name for cls in BASE for column in cls.produces}
    for column in probe.produces:
        must(column.name not in taken, f"produces {column.name}, which is there already")
        taken.add(column.name)
    detection = _detection()
    probe.check(CLASSES)
    if probe.learns:
        probe.fit(*_training())
        probe.load_state(probe.state())
    found = _observed(probe, detection, COUNT)
    must(
        list(found) == [column.name for column in probe.produces],
        f"must give {', '.join(c.name for c in probe.produces)}, gave {', '.join(found)}",
    )
    again, fewer = _observed(probe, detection, COUNT), _observed(probe, detection, COUNT - 3)
    logits, gradient, perturbed, score, later = detection
    other = Detection(
        logits.flip(0), gradient.flip(0), perturbed.flip(0), score.flip(0),
        tuple(part.flip(0) for part in later),
    )  # fmt: skip
    turned = _observed(probe, other, COUNT, LABELS.flip(0))
    for column in probe.produces:
        values = found[column.name]
        listed = pa.types.is_nested(column.type)
        kind = column.type.value_type if listed else column.type
        wanted = np.dtype(kind.to_pandas_dtype())
        shape: tuple[int, ...] = (COUNT, values.shape[-1]) if listed else (COUNT,)
        if pa.types.is_fixed_size_list(column.type):
            shape = (COUNT, column.type.list_size)
        right = isinstance(values, np.ndarray) and values.shape == shape
        must(right and values.dtype == wanted, f"must give {column.name} {shape} {wanted}")
        must(_same(again[column.name], values), f"gives another {column.name} a second time")
        must(_same(fewer[column.name], values[: COUNT - 3]), f"gives {column.name} of more rows")
        alone = _same(turned[column.name], values[::-1])
        must(alone, f"makes {column.name} of a row from the rows beside it, or from its place")


def _observed(
    probe: Probe, detection: Detection, count: int, labels: Tensor = LABELS
) -> dict[str, np.ndarray]:
    outputs = {("layer", 0): detection.perturbed, ("head", 0): detection.logits}
    looks = probe.layers is not None
    measured = probe.measure_layers(outputs) if looks else probe.measure(detection)
    nothing = torch.zeros(COUNT, 0)
    seen = Observation(
        detection.logits,
        detection.gradient.abs().flatten(1).amax(1),
        detection.score,
        nothing,
        nothing,
        measured={} if measured is None else {probe.name: measured},
        labels=labels,
    )
    return probe.columns(seen, count)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.astype(object).tolist() == other.astype(object).tolist() or np.array_equal(
        one, other, equal_nan=one.dtype.kind == "f"
    )


def _training() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A network, and images of which it calls every one by its label."""
    draw = torch.Generator().manual_seed(5)
    network = nn.Flatten()
    images = torch.randn(40 * CLASSES, CLASSES, 1, 1, generator=draw)
    return network, [(images, network(images).argmax(1))]


def _detection() -> Detection:
    draw = torch.Generator().manual_seed(4)
    logits = torch.randn(COUNT, CLASSES, generator=draw)
    gradient = torch.randn(COUNT, 3, 8, 8, generator=draw)
    logits[0, 1], logits[1, 2], gradient[2, 0, 0, 0] = torch.nan, torch.inf, torch.nan
    images = torch.randn(COUNT, 3, 8, 8, generator=draw)
    score = torch.randn(COUNT, generator=draw).double()
    return Detection(logits, gradient, images, score, (2 * gradient.flip(0),))
