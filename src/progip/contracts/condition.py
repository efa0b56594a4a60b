"""The contract of a condition: it chooses each image by its own golden row alone."""

import numpy as np

from progip.conditions.base import Condition, Golden
from progip.contracts.broken import Owner
from progip.records import NO_CLASS

COUNT = 64


def check_condition(condition: Condition, classes: int = 10) -> None:
    """Check all that campaigns rely on.

    It gives one boolean an image; each image is judged alone; golden rows stay as they are; images
    without a class, and scores that are not finite, are judged, too.

    Args:
        condition: with the options to check.
        classes: of the network; a condition may fit some numbers alone.

    Raises:
        BrokenContract: saying what does not hold.
    """
    owner = Owner(condition)
    owner.check_options()
    condition.check(classes)
    golden = _golden(condition, classes)
    before = {name: values.copy() for name, values in golden.items()}
    found = condition.holds(golden)
    same = all(np.array_equal(before[n], v, equal_nan=n != "class") for n, v in golden.items())
    owner.must(same, "changes the golden rows it judges")
    right = isinstance(found, np.ndarray) and found.shape == (COUNT,) and found.dtype == bool
    owner.must(right, "must give one boolean an image, (images,) bool")
    turned = {name: values[::-1] for name, values in golden.items()}
    alone = np.array_equal(found[::-1], condition.holds(turned))
    owner.must(alone, "judges an image by the images beside it, or by its place")


def _golden(condition: Condition, classes: int) -> Golden:
    """Plausible golden rows; some without a class, some not finite."""
    draw = np.random.default_rng(5)
    rows: dict[str, np.ndarray] = {"label": draw.integers(0, classes, COUNT).astype(np.int32)}
    for name in condition.needs:
        if name == "class":
            right = draw.random(COUNT) < 0.5
            other = draw.integers(0, classes, COUNT).astype(np.int32)
            rows[name] = np.where(right, rows["label"], other)
            rows[name][:2] = NO_CLASS
        else:
            rows[name] = draw.normal(0.5, 0.3, COUNT)
            rows[name][:2] = (np.nan, np.inf)
    return rows
