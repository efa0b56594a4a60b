"""Weights of another kind of numbers, and under other names, than the network has."""

import argparse
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.digits import DigitsResNet
from progip.models.fitting import check_kinds, without_shared_prefix
from progip.models.loading import load_network

State = dict[str, torch.Tensor]


@pytest.fixture
def state() -> State:
    return DigitsResNet(name="digits_resnet").network().state_dict()


def load(path: Path) -> nn.Module:
    return load_network(DigitsResNet(name="digits_resnet", weights=str(path)))


@pytest.mark.parametrize(
    "dtype",
    [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.complex64],
)
@pytest.mark.parametrize("key", ["conv1.weight", "layer1.0.bn1.running_mean"])
def test_weights_of_another_kind_are_refused_by_name(
    tmp_path: Path, state: State, dtype: torch.dtype, key: str
) -> None:
    torch.save({**state, key: (state[key] * 100).to(dtype)}, tmp_path / "w.pth")
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(
        ProgipError, match=rf"w\.pth: '{key}' holds {name} values, the network has float32 there\."
    ):
        load(tmp_path / "w.pth")


def test_the_first_of_many_is_named(tmp_path: Path, state: State) -> None:
    integers = {k: (v * 100).to(torch.int8) if v.ndim == 4 else v for k, v in state.items()}
    save_file(integers, tmp_path / "w.safetensors")
    with pytest.raises(ProgipError, match=r"'conv1\.weight' holds int8 .* and \d+ more like it\."):
        load(tmp_path / "w.safetensors")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_and_sparse_tensors(state: State) -> None:
    weight = state["conv1.weight"]
    quantised = torch.quantize_per_tensor(weight, 0.01, 0, torch.qint8)
    for other, name in ((quantised, "qint8"), (weight.to_sparse(), "sparse float32")):
        with pytest.raises(ProgipError, match=f"FILE: 'conv1.weight' holds {name} values"):
            check_kinds({**state, "conv1.weight": other}, state, "FILE")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_widths_of_floating_point_fit_and_are_told(
    tmp_path: Path, state: State, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    other = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    save_file(other, tmp_path / "w.safetensors")
    with caplog.at_level(logging.INFO, "progip"):
        loaded = load(tmp_path / "w.safetensors").state_dict()
    assert all(torch.equal(loaded[k], other[k].to(loaded[k].dtype)) for k in state)
    name = str(dtype).removeprefix("torch.")
    assert f"w.safetensors: {name} values, used as float32" in caplog.text


def test_the_same_type_is_not_told(
    tmp_path: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    save_file(state, tmp_path / "w.safetensors")
    with caplog.at_level(logging.INFO, "progip"):
        load(tmp_path / "w.safetensors")
    assert "used as" not in caplog.text


def test_a_counter_that_evaluation_never_reads_may_be_of_any_type(
    tmp_path: Path, state: State
) -> None:
    other = {k: v.float() for k, v in state.items()}
    assert other["bn1.num_batches_tracked"].dtype == torch.float32
    save_file(other, tmp_path / "w.safetensors")
    load(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("own", "given", "fits"),
    [
        (torch.tensor([1, -7], dtype=torch.int64), torch.tensor([1, -7], dtype=torch.int32), True),
        (torch.tensor([1, 2], dtype=torch.int8), torch.tensor([1, 200]), False),
        (torch.tensor([1, 2]), torch.tensor([1.0, 2.5]), False),
        (torch.tensor([True, False]), torch.tensor([1, 0], dtype=torch.uint8), True),
        (torch.tensor([True, False]), torch.tensor([2, 0], dtype=torch.uint8), False),
        (torch.tensor([1j]), torch.tensor([1.0]), False),
    ],
)
def test_integers_and_truth_values_fit_where_they_stay_what_they_are(
    own: torch.Tensor, given: torch.Tensor, fits: bool
) -> None:
    if fits:
        check_kinds({"mask": given}, {"mask": own}, "FILE")
    else:
        with pytest.raises(ProgipError, match="'mask' holds"):
            check_kinds({"mask": given}, {"mask": own}, "FILE")


@pytest.mark.parametrize(
    ("given", "own", "expected"),
    [
        ("a.b a.c", "a.b a.c", "a.b a.c"),  # fits: nothing is taken off
        ("x.a.b x.a.c", "a.b a.c", "a.b a.c"),
        ("x.y.a.b x.y.a.c", "a.b a.c", "a.b a.c"),
        ("module.fc.weight", "conv.weight", "module.fc.weight"),  # fits nowhere: as in the file
        ("x.b x.c", "b", "b c"),
        ("x.b c", "b c", "x.b c"),  # not shared by all
        ("b", "b", "b"),
        ("", "b", ""),
    ],
)
def test_parts_that_all_names_share(given: str, own: str, expected: str) -> None:
    tensors = {name: torch.zeros(1) for name in given.split()}
    assert list(without_shared_prefix(tensors, own.split())) == expected.split()


def test_a_network_whose_own_names_share_a_part(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)

    class WrappedModel(Model):
        def network(self) -> nn.Module:
            return Wrapped()

    state = Wrapped().state_dict()
    for prefix in ("", "net."):
        torch.save({f"{prefix}{k}": v for k, v in state.items()}, tmp_path / "w.pth")
        loaded = load_network(WrappedModel(name="w", weights=str(tmp_path / "w.pth")))
        assert torch.equal(loaded.state_dict()["module.weight"], state["module.weight"])


def test_a_checkpoint_with_other_objects_is_refused_in_one_line(
    tmp_path: Path, state: State
) -> None:
    path, options = tmp_path / "last.ckpt", argparse.Namespace(lr=0.1)
    named = {f"model.{key}": value for key, value in state.items()}
    torch.save({"state_dict": named, "hyper_parameters": options}, path)
    with pytest.raises(ProgipError) as caught:
        load(path)
    said = str(caught.value)
    assert "last.ckpt holds Python objects besides tensors (argparse.Namespace)" in said
    assert "of a Lightning checkpoint: what is under 'state_dict'" in said
    assert "\n" not in said
