"""A traced graph as a file, so that the next process need not trace again."""

import json
import logging
import operator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from progip.batch_axis import BatchAxis
from progip.engine.incremental.graph import Layout, Node, NotTraceable, Ref, map_refs
from progip.engine.incremental.rewrites import cheaper
from progip.engine.incremental.tracing import Traced
from progip.engine.pipeline import Pipeline
from progip.storage.whole_files import write_whole

log = logging.getLogger(__name__)

GRAPH = "graph"  # key of the metadata
LARGEST = 64 << 20  # bytes of constants beside the network's own; more is rather traced again


class _Unsaved(Exception):
    """Something in a graph has no form in a file; the message says what."""


def loaded_or_traced(pipeline: Pipeline, images: Tensor, path: Path) -> Traced:
    """The detector as a graph: from the file, if it computes what the detector does, else traced.

    Args:
        images: as of ``Traced``.
        path: named by all that the graph depends on: network, method, ranges, shapes, machine.

    Raises:
        NotTraceable: as of ``Traced``.
    """
    try:
        found = _load(pipeline, images, path)
        found.check(images)
        return found
    except FileNotFoundError:
        pass
    except (NotTraceable, SafetensorError, OSError, LookupError, ValueError, TypeError,
            AttributeError, RuntimeError) as problem:  # fmt: skip
        log.warning("the traced graph %s is of no use (%s); traced again", path, problem)
    traced = Traced(pipeline, images)
    try:
        _save(traced, path)
    except _Unsaved as reason:
        log.debug("the traced graph is not kept: %s", reason)
    return traced


def _save(traced: Traced, path: Path) -> None:
    writer = _Writer(traced)
    tensors = writer.tensors
    content = {
        "nodes": [writer.node(node) for node in traced.nodes],
        "constants": {str(n): writer.value(value) for n, value in traced.constants.items()},
        "sites": [[list(key), number] for key, number in traced.sites.items()],
        "outputs": traced.outputs,
        "measured": traced.measured,
        "corrections": [[*key, number] for key, number in traced.corrections.items()],
    }
    if sum(tensor.nbytes for tensor in tensors.values()) > LARGEST:
        raise _Unsaved("its constants are large")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda p: save_file(tensors, p, metadata={GRAPH: json.dumps(content)}))


def _load(pipeline: Pipeline, images: Tensor, path: Path) -> Traced:
    if not path.exists():
        raise FileNotFoundError(path)
    with safe_open(path, "pt", device=str(images.device)) as file:
        content = json.loads(file.metadata()[GRAPH])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    traced = Traced.empty(pipeline, images)
    reader = _Reader(traced, tensors)
    for number, value in content["constants"].items():
        traced.constants[int(number)] = reader.value(value)
    traced.nodes += [reader.node(node) for node in content["nodes"]]
    traced.sites |= {tuple(key): number for key, number in content["sites"]}
    traced.outputs, traced.measured = content["outputs"], content["measured"]
    for fault_pass, call, number in content.get("corrections", []):
        traced.corrections[fault_pass, tuple(call)] = number
    return traced


class _Writer:
    """Graph to JSON; what is a tensor of the network is named, other tensors are collected."""

    def __init__(self, traced: Traced) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._own = {_place(t): name for name, t in _own_tensors(traced.pipeline).items()}
        self._dummies = {id(tensor): key for key, tensor in traced.dummies.items()}

    def node(self, node: Node) -> dict[str, Any]:
        layout = node.layout
        return {
            "target": _name(node.replaces or node.target),
            "cheaper": node.replaces is not None,
            "args": [self.value(v) for v in node.args],
            "kwargs": {k: self.value(v) for k, v in node.kwargs.items()},
            "inputs": node.inputs,
            "site": node.site,
            "layout": layout
            and _layout_of(layout.shape, layout.stride, layout.dtype)
            | {"axis": [layout.axis.dim, layout.axis.outer, layout.axis.group]},
        }

    def value(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Ref):
            return {"node": value.node}
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [self.value(v) for v in value]}
        if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
            return {"torch": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if not isinstance(value, Tensor):
            raise _Unsaved(f"an argument is a {type(value).__name__}")
        if _place(value) in self._own:
            return {"own": self._own[_place(value)]}
        if id(value) in self._dummies:
            return {"dummy": _layout_of(*self._dummies[id(value)])}
        name = f"tensor{len(self.tensors)}"
        # in a file of its own shape and order: elements in the order of memory
        self.tensors[name] = _flat(value)
        return {"tensor": name, "shape": list(value.shape), "stride": list(value.stride())}


class _Reader:
    """JSON to graph."""

    def __init__(self, traced: Traced, tensors: dict[str, Tensor]) -> None:
        self._traced, self._tensors = traced, tensors
        self._own = _own_tensors(traced.pipeline)

    def node(self, given: dict[str, Any]) -> Node:
        args = tuple(self.value(v) for v in given["args"])
        kwargs = {k: self.value(v) for k, v in given["kwargs"].items()}
        target = _operation(given["target"])
        made = Node(target, args, kwargs, tuple(given["inputs"]), site=given["site"])
        if given["cheaper"]:
            made.replaces = target
            made.target = cheaper(
                target, tuple(map_refs(a, self._traced.constants.get) for a in args)
            )
        if given["layout"] is not None:
            made.layout = Layout(*_layout(given["layout"]), BatchAxis(*given["layout"]["axis"]))
        return made

    def value(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((kind, content), *_) = value.items()
        if kind == "node":
            return Ref(content)
        if kind == "list":
            return [self.value(v) for v in content]
        if kind == "tuple":
            return tuple(self.value(v) for v in content)
        if kind == "torch":
            return getattr(torch, content)
        if kind == "device":
            return torch.device(content)
        if kind == "own":
            return self._own[content]
        if kind == "dummy":
            return self._traced.dummy(*_layout(content))
        memory = self._tensors[content]
        return memory.as_strided(value["shape"], value["stride"])


def _own_tensors(pipeline: Pipeline) -> dict[str, Tensor]:
    network = pipeline.network
    named = (*network.named_parameters(), *network.named_buffers())
    return {name: tensor.detach() for name, tensor in named if tensor.numel()}


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """What of the memory a tensor is."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _name(target: Any) -> str | None:
    if target is None or target is operator.getitem:
        return target and "getitem"
    if not isinstance(target, torch._ops.OpOverload):
        raise _Unsaved(f"{target} is no operator")
    return str(target)


def _operation(name: str | None) -> Any:
    if name is None or name == "getitem":
        return name and operator.getitem
    return operator.attrgetter(name)(torch.ops)


def _layout_of(
    shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype
) -> dict[str, Any]:
    return {"shape": list(shape), "stride": list(stride), "dtype": str(dtype)[6:]}


def _layout(given: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...], torch.dtype]:
    return tuple(given["shape"]), tuple(given["stride"]), getattr(torch, given["dtype"])


def _flat(value: Tensor) -> Tensor:
    """The memory that a tensor spans, as one dimension."""
    value = value.detach()
    span = 1 + sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True))
    return value.as_strided((span if value.numel() else 0,), (1,)).clone()
