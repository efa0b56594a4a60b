"""GoldenEye's range detector against NumPy's maxima and a plain formula."""

import numpy as np
import pytest
import torch
from tiny_networks import labelled, tiny_network
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.protections.range_detector import RangeDetector, restricted


def test_values(images: Tensor) -> None:
    values = torch.tensor([0.5, -3.0, 9.0, torch.inf, -torch.inf, torch.nan, -2.0])
    mended, changed = restricted(values, 2.0)
    assert mended.tolist() == [0.5, -2, 2, 2, -2, 2, -2]
    assert changed.tolist() == [False, True, True, True, True, True, False]


def test_limits_are_numpys_maxima_and_faults_are_put_back(images: Tensor) -> None:
    network = tiny_network()
    detector = RangeDetector(name="detector")
    state = detector.fit(network, labelled([images[:20], images[20:]]))
    with torch.no_grad():
        first = np.abs(network[0](images).numpy()).max()
    assert any(float(most) == first for most in state.values())
    assert len(state) == 3
    protected = detector.protect(network, state)
    assert torch.equal(protected(images), network(images))

    def fault(module: nn.Module, given: Tensor, output: Tensor) -> Tensor:
        output = output.clone()
        output[3, 0, 0, 0] = torch.nan
        return output

    def mended(module: nn.Module, given: Tensor, output: Tensor) -> Tensor:
        output = output.clone()
        output[3, 0, 0, 0] = float(first)
        return output

    handle = protected[0].register_forward_hook(fault, prepend=True)
    found = protected(images)
    handle.remove()
    network[0].register_forward_hook(mended)
    assert torch.equal(found, network(images))


def test_no_layer(images: Tensor) -> None:
    with pytest.raises(ProgipError, match="no layer of type LSTM"):
        RangeDetector(name="detector", layer_types=["LSTM"]).fit(tiny_network(), labelled([images]))
