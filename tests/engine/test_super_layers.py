"""Super layers against networkx's dominators, known architectures, and resumed executions."""

from pathlib import Path

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from progip.campaign.replay import replay
from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.engine.incremental.graph import same_bits
from progip.engine.super_layers import dominators, forward_graph, super_layers
from progip.models.loading import load_network
from progip.models.torchvision_model import TorchvisionModel

ROOT = Path(__file__).resolve().parents[2]


@given(st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=3), min_size=1, max_size=12))
def test_dominators_are_those_of_networkx(inputs: list[set[int]]) -> None:
    graph = fx.Graph()
    nodes = [graph.placeholder("x")]
    for chosen in inputs:  # each node uses some of those before it
        used = [nodes[i % len(nodes)] for i in sorted(chosen)]
        nodes.append(graph.call_function(torch.stack, (used,)))
    output = graph.output(nodes[-1])
    known = nx.DiGraph([(a.name, b.name) for b in graph.nodes for a in b.all_input_nodes])
    known.add_nodes_from(node.name for node in graph.nodes)
    above = nx.immediate_dominators(known, "x")
    if output.name not in above:  # the output does not depend on the input
        return
    chain = [output.name]
    while chain[-1] != "x":
        chain.append(above[chain[-1]])
    assert [node.name for node in dominators(graph)] == chain[::-1]


def network(arch: str, operations: bool = True) -> nn.Module:
    pytest.importorskip("torchvision")
    spec = TorchvisionModel(
        name=arch, arch=arch, classes=10, weights="random", operations=operations
    )
    return load_network(spec, image_shape=(3, 32, 32))


def test_every_layer_of_a_chain_is_super() -> None:
    vgg = network("vgg11")
    layers = {name for name, m in vgg.named_modules() if name and not list(m.children())}
    found = {layer for layer, _ in super_layers(vgg, torch.randn(2, 3, 32, 32))}
    assert found == layers


def test_super_layers_of_a_residual_network() -> None:
    """The stem, and the sum and the last activation of every block."""
    found = {layer for layer, _ in super_layers(network("resnet18"), torch.randn(2, 3, 32, 32))}
    blocks = [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
    stem = {"conv1", "bn1", "relu", "maxpool"}
    head = {"avgpool", "flatten", "fc"}
    ends = {f"{block}.{part}" for block in blocks for part in ("add", "relu_1")}
    assert found == stem | head | ends


def test_super_layers_of_a_dense_network() -> None:
    """From the input to the first pool, the transitions, and from the last norm on."""
    found = {layer for layer, _ in super_layers(network("densenet121"), torch.randn(2, 3, 32, 32))}
    assert "features.pool0" in found
    assert {f"features.transition{i}.conv" for i in (1, 2, 3)} <= found
    assert {"features.norm5", "classifier"} <= found
    assert not any("denselayer2.conv" in layer for layer in found)


@pytest.mark.parametrize("arch", ["resnet18", "squeezenet1_0", "googlenet"])
def test_resuming_at_a_super_layer_is_executing_under_hooks(arch: str) -> None:
    """A fault, then only what comes after the next super layer: the bits of the whole pass."""
    whole, images = network(arch), torch.randn(2, 3, 64, 64)
    module, marks = forward_graph(whole, images)
    found = dominators(module.graph)
    draw, changed = np.random.default_rng(0), 0
    targets = [node for node in marks if marks[node][0] not in ("fc", "flatten")]
    for number in draw.choice(len(targets), 8, replace=False):
        target = targets[number]
        faulty = _hooked(whole, images, marks[target])
        order = {node: place for place, node in enumerate(module.graph.nodes)}
        ahead = next(node for node in found if order[node] > order[target])
        values = _evaluated(module, images, target, stop=ahead)
        resumed = _resumed(module, ahead, values[ahead])
        assert same_bits(resumed, faulty)
        changed += not same_bits(faulty, whole(images))
    assert changed  # not every fault is masked


def _flipped(tensor: Tensor) -> Tensor:
    words = tensor.clone().contiguous()
    words.view(torch.int32).view(-1)[7] ^= 1 << 30
    return words.view_as(tensor)


def _hooked(whole: nn.Module, images: Tensor, call: tuple[str, int]) -> Tensor:
    counts = [0]

    def flip(module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        counts[0] += 1
        return _flipped(output) if counts[0] - 1 == call[1] else None

    handle = whole.get_submodule(call[0]).register_forward_hook(flip)
    with torch.no_grad():
        logits: Tensor = whole(images)
    handle.remove()
    return logits


def _call(module: fx.GraphModule, node: fx.Node, values: dict[fx.Node, object]) -> object:
    if node.op == "get_attr":
        return getattr(module, str(node.target))
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    return args[0] if node.op == "output" else node.target(*args, **kwargs)


@torch.no_grad()
def _evaluated(
    module: fx.GraphModule, images: Tensor, target: fx.Node, stop: fx.Node
) -> dict[fx.Node, object]:
    values: dict[fx.Node, object] = {}
    for node in module.graph.nodes:
        values[node] = images if node.op == "placeholder" else _call(module, node, values)
        if node is target:
            values[node] = _flipped(values[node])
        if node is stop:
            break
    return values


@torch.no_grad()
def _resumed(module: fx.GraphModule, start: fx.Node, value: object) -> Tensor:
    """The output from the value of one node alone, and constants."""
    values: dict[fx.Node, object] = {start: value}
    for node in module.graph.nodes:
        known = all(used in values for used in node.all_input_nodes)
        if node in values or node.op == "placeholder" or not known:
            continue
        values[node] = _call(module, node, values)
    output = next(node for node in module.graph.nodes if node.op == "output")
    return values[output]  # type: ignore[return-value]


def test_rows_and_manifest_say_which_layers_are_super(tmp_path: Path) -> None:
    chosen = ["fault_model.mark_super_layers=true", "fault_model.layer_types=null", "runs=150"]
    chosen += ["population=id", "protection=progip", f"outputs={tmp_path}"]
    cfg = composed(chosen, ROOT / "conf")
    settings = cell_settings(cfg)
    folder = run_cell(settings, resolved(cfg))
    rows = pa.concat_tables(map(pq.read_table, sorted(folder.glob("part-*")))).to_pandas()
    marked = rows.groupby("layer")["super_layer"].agg(["min", "max"])
    assert (marked["min"] == marked["max"]).all()
    assert {True, False} == set(marked["min"])
    assert marked.loc["linear", "min"]
    assert not replay(settings, 3).differences
