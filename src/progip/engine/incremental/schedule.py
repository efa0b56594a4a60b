"""What a propagation does, worked out once from the graph and the sites that faults can hit."""

import math
import operator
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from progip.engine.incremental.graph import Layout, Node, Ref, aten, map_refs, refs
from progip.engine.incremental.markers import SITE
from progip.engine.incremental.operations import (
    BATCH_NORM,
    CONTRACTING,
    FRESH,
    PRODUCTS,
    SAME,
    function_of,
)
from progip.engine.incremental.rewrites import gated, positive
from progip.engine.incremental.steps import Step
from progip.engine.incremental.tracing import Traced
from progip.engine.incremental.window_geometry import Rule
from progip.engine.incremental.window_nodes import cutting, starts
from progip.engine.incremental.window_rules import rule_of

LEAST = 64  # pixels of the side of images from which windows pay
SMALL = 2048  # elements of a row so few that comparing them costs nothing


class Schedule:
    """The steps between the faults and the observations.

    Args:
        selected: nodes at which faults can hit.
        changing: constants that faults can change.
        looked: nodes of which single values are to be read, whether an output depends on them or
            not.
        windows: execute runs that differ in a window of the image only there, where that pays.
        late: read comparisons a step later, without windows; None: on a GPU.

    Attributes:
        golden_steps: all operations, for golden batches.
        steps: those that a fault at one of the sites can change.
        release, golden_release: for each step, the nodes that no later one reads.
        stored: nodes whose golden values the propagation reads.
        outputs: as in ``Traced``, aliases resolved.
        looked: each such node, aliases resolved.
        logits: the node of the first pass's logits where much is to be done after it, else -1.
        constant: the values, for any batch, of those outputs that no image changes.
        rules: how operations are executed in windows; others are not.
        windowed: nodes that runs may differ in as windows, because an operation gains by it.
        makers, golden_makers: of ``steps`` and of ``golden_steps``, the one of each node.
    """

    def __init__(
        self,
        traced: Traced,
        selected: set[int],
        changing: Collection[int] = frozenset(),
        looked: Collection[int] = frozenset(),
        windows: bool = True,
        late: bool | None = None,
    ) -> None:
        self.traced = traced
        images = traced.nodes[0].layout
        large = images is not None and min(images.shape[-2:]) >= LEAST
        self.late = traced.device.type != "cpu" if late is None else late
        self._windows = windows and large and not changing and not self.late
        self._windows = self._windows and traced.device.type == "cpu"
        self.rules: dict[int, Rule] = {}
        self._changing, self._looked = changing, looked
        self.layouts: dict[int, Layout] = {}
        self._alias: dict[int, int] = {}
        self._gates: dict[int, int] = {}
        self._next = len(traced.nodes)
        steps: list[Step] = []
        for number, node in enumerate(traced.nodes):
            if node.target is None or number in traced.constants:
                if node.layout is not None:
                    self.layouts[number] = node.layout
                continue
            self._add(number, node, number in selected, steps)
        self.outputs = [self._root(n) for n in traced.outputs]
        self.looked = {n: self._root(n) for n in looked}
        self.constant = {n: traced.constants[n] for n in self.outputs if n in traced.constants}
        self.steps = self._reachable(steps)
        self.makers = {step.node: step for step in self.steps}
        self.golden_makers = {step.node: step for step in steps}
        self.logits = self._ending()
        self.windowed = starts(self.steps, self.rules)
        self.stored = self._stored()
        self.golden_steps = steps
        self._overwrite(steps)
        self.release = _last_uses(self.steps)
        self.golden_release = _last_uses(steps, kept=self.stored)

    def golden_bytes(self) -> int:
        """What the golden values of one batch take."""
        return sum(_bytes(self.layouts[n]) for n in self.stored if n in self.layouts)

    def peak_bytes(self) -> int:
        """The most that one run can hold at a time, when it is dirty everywhere."""
        live = peak = 0
        for step, release in zip(self.steps, self.release, strict=True):
            live += _bytes(self.layouts[step.node]) if step.layout is not None else 0
            peak = max(peak, live)
            live -= sum(_bytes(self.layouts[n]) for n in release if n in self.layouts)
        return peak // self.traced.batch

    def _ending(self) -> int:
        places = [i for i, step in enumerate(self.steps) if step.node == self.outputs[0]]
        if not places:
            return -1
        nodes = self.traced.nodes
        after = (s.node for s in self.steps[places[0] + 1 :] if s.node < len(nodes))
        return self.outputs[0] if any(nodes[n].target in PRODUCTS for n in after) else -1

    def _root(self, node: int) -> int:
        while node in self._alias:
            node = self._alias[node]
        return node

    def _add(self, number: int, node: Node, site: bool, steps: list[Step]) -> None:
        assert node.target is not None
        if node.layout is not None:
            self.layouts[number] = node.layout
        if node.target is SITE:
            source = self._root(node.inputs[0])
            if not site:
                self._alias[number] = source
            else:
                steps.append(Step(number, (source,), lambda v: v[0], node.layout, site=True))
            return
        if self._is_same(node):
            self._alias[number] = self._root(node.inputs[0])
            return
        target = node.target
        args = map_refs(node.args, lambda n: self._argument(n))
        if target is aten.threshold_backward.default and isinstance(args[1], Ref) and args[2] == 0:
            args = (args[0], Ref(self._gate(args[1].node, steps)))
            target = gated
        kwargs = {k: map_refs(v, lambda n: self._argument(n)) for k, v in node.kwargs.items()}
        inputs = tuple(dict.fromkeys(refs([*args, *kwargs.values()])))
        compare = node.layout is not None and (
            node.target in CONTRACTING or _row_size(node.layout) <= SMALL
        )
        function = function_of(target, args, kwargs, inputs)
        step = Step(number, inputs, function, node.layout, compare)
        self._rule(step, target, args)
        named = refs([*node.args, *node.kwargs.values()])
        step.reads = tuple(n for n in dict.fromkeys(named) if n in self._changing)
        if step.reads:
            step.rebuilt = lambda given: self._rebuilt(node, given)
        steps.append(step)

    def _rule(self, step: Step, target: Any, args: Sequence[Any]) -> None:
        if self._windows and step.node not in self._looked:  # whole rows are looked at
            given = {i: self.layouts[i] for i in step.inputs if i in self.layouts}
            rule = rule_of(target, args, step.function, step.layout, given)
            if rule is not None:
                self.rules[step.node] = rule

    def _rebuilt(self, node: Node, given: Mapping[int, Any]) -> Callable[[list[Any]], Any]:
        """The function of a step with other values of the constants that it reads."""

        def argument(number: int) -> Any:
            return given[number] if number in given else self._argument(number)

        args = map_refs(node.args, argument)
        kwargs = {k: map_refs(v, argument) for k, v in node.kwargs.items()}
        return function_of(
            node.target, args, kwargs, tuple(dict.fromkeys(refs([*args, *kwargs.values()])))
        )

    def _argument(self, number: int) -> Any:
        if number in self.traced.constants:
            return self.traced.constants[number]
        return Ref(self._root(number))

    def _is_same(self, node: Node) -> bool:
        if len(node.inputs) != 1:
            return False
        given = self.traced.nodes[node.inputs[0]].layout
        return node.target in SAME or (
            node.target is aten.clone.default
            and given is not None
            and node.layout is not None
            and given.stride == node.layout.stride
        )

    def _gate(self, source: int, steps: list[Step]) -> int:
        """The node of ``positive(source)``: all that the derivative of a ReLU depends on.

        Rows whose signs equal golden leave there, though their values differ.
        """
        if source not in self._gates:
            made, self._next = self._next, self._next + 1
            layout = replace(self.layouts[source], dtype=torch.bool)
            self._gates[source], self.layouts[made] = made, layout
            step = Step(made, (source,), lambda v: positive(v[0]), layout, compare=True)
            self._rule(step, positive, [Ref(source)])
            steps.append(step)
        return self._gates[source]

    def _reachable(self, steps: list[Step]) -> list[Step]:
        dirty: set[int] = set()
        kept = []
        for step in steps:
            if step.site or step.reads or any(i in dirty for i in step.inputs):
                dirty.add(step.node)
                kept.append(step)
        wanted = {*self.outputs, *self.looked.values()}
        result = []
        for step in reversed(kept):
            if step.site or step.node in wanted:  # a site must fire, whatever comes of it
                wanted.update(i for i in step.inputs if i in dirty)
                result.append(step)
        result.reverse()
        uses: dict[int, int] = {}
        for step in result:
            for i in step.inputs:
                uses[i] = uses.get(i, 0) + 1
        makers = {s.node: s for s in result}
        for step in result:
            if step.site:
                maker = makers.get(step.inputs[0])
                step.writable = (
                    maker is not None
                    and uses[maker.node] == 1
                    and maker.node not in self.outputs
                    and self._makes_fresh(maker.node)
                )
        return result

    def _overwrite(self, steps: list[Step]) -> None:
        """Let a ReLU take the memory of a batch normalisation that nothing else reads."""
        uses = Counter(i for step in steps for i in step.inputs)
        nodes = self.traced.nodes
        for step in steps:
            if step.node >= len(nodes) or nodes[step.node].target is not aten.relu.default:
                continue
            (given,) = step.inputs
            maker = nodes[given].inputs[0] if nodes[given].target is operator.getitem else -1
            if (
                uses[given] == 1
                and given not in self.stored
                and maker >= 0
                and nodes[maker].target in BATCH_NORM
            ):
                step.function = lambda v: v[0].relu_()

    def _makes_fresh(self, node: int) -> bool:
        made = self.traced.nodes[node]
        if made.target in FRESH:
            return True
        source = self.traced.nodes[made.inputs[0]] if made.inputs else made
        return source.target is aten.convolution_backward.default

    def _stored(self) -> set[int]:
        stored = {node for node in self.outputs if node not in self.constant}
        stored.update(self.looked.values())
        whole = cutting(self.steps, self.rules, self.windowed)
        for step in self.steps:
            if step.compare or step.site or (step.reads and step.layout is not None):
                stored.add(step.node)
            if len(step.inputs) > 1 or step.reads or step.node in whole:
                stored.update(step.inputs)
        return stored


def _bytes(layout: Layout) -> int:
    return math.prod(layout.shape) * layout.dtype.itemsize


def _row_size(layout: Layout) -> int:
    return math.prod(layout.axis.row_shape(layout.shape))


def _last_uses(steps: list[Step], kept: Collection[int] = ()) -> list[list[int]]:
    last: dict[int, int] = {}
    for position, step in enumerate(steps):
        for node in (step.node, *step.inputs):
            last[node] = position
    result: list[list[int]] = [[] for _ in steps]
    for node, position in last.items():
        if node not in kept:
            result[position].append(node)
    return result
