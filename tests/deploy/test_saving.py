"""What is saved answers as what was calibrated, and fits nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.deploy.calibration import guarded_detector
from progip.deploy.saving import load_detector, save_detector
from progip.errors import ProgipError
from progip.ood_methods.base import OODMethod
from progip.ood_methods.mahalanobis import Mahalanobis
from progip.ood_methods.odin import ODIN
from progip.protections.base import Protection
from progip.protections.progip import ProGIP
from progip.protections.ranger import Ranger

PARTS: list[tuple[type[OODMethod], Protection]] = [
    (ODIN, Ranger(name="ranger", margin=0.1)),
    (Mahalanobis, ProGIP(name="progip", score_side="both")),
]


def saved(path: Path, kind: type[OODMethod], protection: Protection, images: Tensor) -> Any:
    detector = guarded_detector(
        tiny_network(),
        kind(name="method", std=[0.5] * 3),
        protection,
        train=[(images, torch.arange(40) % 4)],
        id_images=images[:20],
        ood_images=2 * images[20:],
    )
    save_detector(detector, path)
    return detector


@pytest.mark.parametrize(("kind", "protection"), PARTS)
def test_loaded_answers_as_saved(
    kind: type[OODMethod], protection: Protection, images: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "detector.safetensors"
    detector = saved(path, kind, protection, images)
    loaded = load_detector(path, tiny_network(), kind(name="method", std=[0.5] * 3), protection)
    seen = images * torch.linspace(0.5, 5, 40).view(-1, 1, 1, 1)
    assert 0 < detector(seen).alarm.sum() < 40
    for one, other in zip(detector(seen), loaded(seen), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": tiny_network(seed=1)}, "calibrated with weights .*, not"),
        ({"method": ODIN(name="method", std=[0.5] * 3, epsilon=0.1)}, "epsilon=0.0014, not 0.1"),
        ({"method": Mahalanobis(name="method", std=[0.5] * 3)}, "class='ODIN', not 'Mahal"),
        ({"protection": Ranger(name="ranger")}, "protection margin=0.1, not 0.0"),
    ],
)
def test_another_detector_is_refused(
    change: dict[str, Any], message: str, images: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "detector.safetensors"
    saved(path, *PARTS[0], images)
    parts: dict[str, Any] = {
        "network": tiny_network(),
        "method": ODIN(name="method", std=[0.5] * 3),
        "protection": PARTS[0][1],
    }
    with pytest.raises(ProgipError, match=message):
        load_detector(path, **{**parts, **change})


def test_files_that_are_none(tmp_path: Path, network: nn.Module, images: Tensor) -> None:
    path = tmp_path / "x.safetensors"
    rest = (network, ODIN(name="o"), ProGIP(name="p"))
    with pytest.raises(ProgipError, match="holds no guarded detector"):
        load_detector(path, *rest)
    path.write_bytes(b"nothing")
    with pytest.raises(ProgipError, match="holds no guarded detector"):
        load_detector(path, *rest)
    save_file({}, path)
    with pytest.raises(ProgipError, match="holds no guarded detector"):
        load_detector(path, *rest)
    with pytest.raises(ProgipError, match="cannot write"):
        saved(tmp_path / "missing" / "x", ODIN, ProGIP(name="p"), images)
