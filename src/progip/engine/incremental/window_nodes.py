"""At which nodes windows are of use."""

from collections.abc import Collection, Mapping, Sequence

from progip.engine.incremental.steps import Step
from progip.engine.incremental.window_geometry import Rule

SMALLEST = 8  # side of a map on which windows may start


def starts(steps: Sequence[Step], rules: Mapping[int, Rule]) -> set[int]:
    """Nodes from which only operations that know windows lead to one that gains by them."""
    gaining: set[int] = set()
    for step in reversed(steps):
        rule = rules.get(step.node)
        if step.site and step.node in gaining:
            gaining.update(step.inputs)
        if rule is None or rule.measures is not None:
            continue
        if (rule.y is not None and min(rule.shape) >= SMALLEST) or step.node in gaining:
            gaining.update(step.inputs)
    return gaining


def cutting(steps: Sequence[Step], rules: Mapping[int, Rule], starts: Collection[int]) -> set[int]:
    """Nodes whose operation needs its inputs' golden values beside their windows."""
    cropped: set[int] = set()
    result = set()
    for step in steps:
        rule = rules.get(step.node)
        if step.site:
            if step.node in starts or step.inputs[0] in cropped:
                cropped.add(step.node)
        elif cropped.intersection(step.inputs):
            if rule is None or rule.y is not None or rule.measures is not None:
                result.add(step.node)
            if rule is not None and rule.measures is None:
                cropped.add(step.node)
    return result
