"""Every file of conf/dataset: its class exists, its fields and values are that class's."""

from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from progip.datasets.base import Dataset

FILES = sorted((Path(__file__).parents[2] / "conf" / "dataset").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_config_file_spells_out_its_class(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROGIP_DATA", raising=False)
    config = OmegaConf.load(file)
    assert OmegaConf.is_dict(config)
    module, _, name = config.pop("_target_").rpartition(".")
    assert module.startswith("progip.datasets.")
    cls = getattr(import_module(module), name)
    assert issubclass(cls, Dataset)
    assert list(config) == [field.name for field in fields(cls)]
    assert config["name"] == file.stem
    dataset = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), config))
    assert isinstance(dataset, cls)
    assert (dataset.classes, list(dataset.mean)) == (config["classes"], list(config["mean"]))
    assert file.read_text().startswith("# ")  # what it is, for who browses the folder


def test_there_are_files() -> None:
    assert {"digits", "digits_unseen", "cifar10", "npz"} <= {file.stem for file in FILES}


def test_only_the_name_and_the_number_of_classes_have_no_default() -> None:
    required = {f.name for f in fields(Dataset) if f.default is MISSING is f.default_factory}
    assert required == {"name", "classes"}
