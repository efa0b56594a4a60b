"""Every YAML of conf/model is a class with these options; the packaged network is what it says."""

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open

import progip.models
from progip.datasets.digits import Digits
from progip.models.base import Model
from progip.models.features import penultimate_module
from progip.models.loading import load_network
from progip.models.training import evaluate

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted((CONF / "model").glob("*.yaml"))
PACKAGED = Path(progip.models.__file__).parent / "weights" / "digits_resnet.safetensors"


def built(path: Path, classes: int = 8) -> tuple[Model, dict[str, Any]]:
    """The model of a YAML, checked against the dataclass that it names, and its options."""
    whole = OmegaConf.create({"dataset": {"classes": classes}, "model": OmegaConf.load(path)})
    options: Any = OmegaConf.to_container(whole.model, resolve=True)
    module, _, name = options.pop("_target_").rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    merged = OmegaConf.merge(OmegaConf.structured(cls), options)
    return OmegaConf.to_object(merged), options  # type: ignore[return-value]


def test_the_families_are_there() -> None:
    assert {p.stem for p in FILES} >= {
        "digits_resnet", "densenet_bc_100_12", "resnet18", "resnet20", "resnet32", "resnet34",
        "resnet44", "resnet56", "timm", "torchvision", "vgg16_bn",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_yaml(path: Path) -> None:
    if path.stem == "timm":
        pytest.importorskip("timm", reason="an extra that is not installed")
    model, options = built(path)
    assert isinstance(model, Model)
    assert model.name == path.stem
    assert model.classes == 8
    unnamed = {f.name for f in dataclasses.fields(model)} - {*options, "head"}  # a group
    assert not unnamed, f"options that {path.name} does not show: {unnamed}"
    assert options["recipe"]
    model.weights = "random"
    size = 16 if model.channels == 1 else 32
    network = load_network(model, image_shape=(model.channels, size, size))
    with torch.no_grad():
        assert network(torch.zeros(3, model.channels, size, size)).shape == (3, 8)
    assert isinstance(penultimate_module(network, model.feature_layer), torch.nn.Linear)


def test_packaged_network_is_the_one_of_its_recipe() -> None:
    model, _ = built(CONF / "model" / "digits_resnet.yaml")
    dataset = Digits(name="digits")
    with safe_open(PACKAGED, framework="pt") as content:
        made = json.loads(content.metadata()["progip"])
    assert made["recipe"] == model.recipe.recorded()
    assert made["seed"] == 0
    assert made["data"]["fingerprint"] == dataset.split("train").fingerprint()
    assert (made["data"]["mean"], made["data"]["std"]) == (dataset.mean, dataset.std)
    network = load_network(model, image_shape=(1, 16, 16))
    accuracy = evaluate(network, dataset.test_images(), dataset.mean, dataset.std)
    assert accuracy == pytest.approx(made["accuracy"], abs=0.002)  # one image: another machine
    assert accuracy > 0.99
    assert PACKAGED.stat().st_size < 1_000_000
