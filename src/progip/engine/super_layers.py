"""Super layers: those that every path from the input to the output goes through (TensorFI+)."""

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from progip.engine.incremental.capture import mutates
from progip.engine.incremental.markers import SITE, Markers
from progip.errors import ProgipError
from progip.models.calls import Call


def forward_graph(network: nn.Module, images: Tensor) -> tuple[fx.GraphModule, dict[fx.Node, Call]]:
    """One forward pass as a graph of operations, with the outputs of layers marked.

    Args:
        images: (n, channels, height, width) to trace it with.

    Returns:
        the graph, and the layer calls whose outputs its marks are.

    Raises:
        ProgipError: the network cannot be traced.
    """
    markers = Markers()

    def forward(batch: Tensor) -> Tensor:
        markers.enter("first_forward")
        logits: Tensor = network(batch)
        return logits

    try:
        with markers.on(network), torch.no_grad():
            module = make_fx(forward, tracing_mode="real", _allow_non_fake_inputs=True)(images)
        if any(mutates(node) for node in module.graph.nodes):
            plain = torch.func.functionalize(module, remove="mutations")
            module = make_fx(plain, tracing_mode="real")(images)
    except Exception as error:  # whatever a network does that tracing cannot follow
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ProgipError(
            f"fault_model.mark_super_layers: the network cannot be traced ({reason}); leave it "
            "false"
        ) from error
    marks = {
        node: markers.keys[int(node.args[1])][1:]
        for node in module.graph.nodes
        if node.target is SITE
    }
    return module, marks


def dominators(graph: fx.Graph) -> list[fx.Node]:
    """The nodes on every path from the input of a graph to its output, in order.

    In a topological order of what lies on a path, a node is on all of them exactly if no edge leads
    past it: a path that avoids it would need one. Linear in the number of edges.
    """
    order = {node: place for place, node in enumerate(graph.nodes)}
    source = next(node for node in graph.nodes if node.op == "placeholder")
    sink = next(node for node in graph.nodes if node.op == "output")
    after, before = _reached(source, "users"), _reached(sink, "all_input_nodes")
    between = sorted(after & before, key=order.__getitem__)
    found, reach = [], 0
    for node in between:
        if reach <= order[node]:
            found.append(node)
        reach = max([reach, *(order[user] for user in node.users if user in before)])
    return found


def super_layers(network: nn.Module, images: Tensor) -> frozenset[Call]:
    """The layer calls that every path of a forward pass goes through.

    Args:
        images: a small batch to trace the network with.

    Raises:
        ProgipError: the network cannot be traced.
    """
    module, marks = forward_graph(network, images)
    return frozenset(marks[node] for node in dominators(module.graph) if node in marks)


def _reached(start: fx.Node, by: str) -> set[fx.Node]:
    found, waiting = {start}, [start]
    while waiting:
        for node in getattr(waiting.pop(), by):
            if node not in found:
                found.add(node)
                waiting.append(node)
    return found
