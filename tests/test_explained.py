"""What common slips on the command line are answered with."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from progip.config import cell_settings, composed
from progip.config.entry import explain, is_users
from progip.errors import ProgipError
from progip.models.weight_files import read_state_dict

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["fault_model.bits=30"], "fault_model.bits: needs a list, not one value: give [30]"),
        (["probes=loss"], "probes: needs a list, not one value: give [loss]"),
        (["device=gpu"], "device=gpu: a GPU is called cuda"),
        (["hydra/launcher=submitit_slurm"], "pip install 'progip[submitit]'"),
        (["hydra/launcher=joblibs"], "pip install 'progip[joblib]'"),
    ],
)
def test_slips_are_answered(overrides: list[str], message: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011, PT012  # by whichever sees it first
        settings = cell_settings(composed(overrides, ROOT / "conf"))
        settings.subject.torch_device()
    assert message in explain(caught.value)


def test_a_folder_that_is_not_set_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROGIP_DATA", raising=False)
    settings = cell_settings(composed(["dataset=cifar10_npz"], ROOT / "conf"))
    with pytest.raises(ProgipError, match=r"set PROGIP_DATA or dataset\.folder"):
        settings.subject.dataset.test_images()


def test_an_environment_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROGIP_DATA", raising=False)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        cell_settings(composed([], ROOT / "conf", campaign="sample_resnet20"))
    assert is_users(caught.value)  # type: ignore[arg-type]
    said = explain(caught.value)
    assert said.startswith("model.weights needs the environment variable PROGIP_DATA, which is not")


def test_an_unknown_campaign_file_lists_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run.py", "--config-dir", str(ROOT / "campaigns"), "--config-name", "weights_resnet2"]
    monkeypatch.setattr("sys.argv", words)
    with (
        initialize_config_dir(str(ROOT / "campaigns"), version_base="1.3"),
        pytest.raises(Exception) as caught,  # noqa: PT011
    ):
        compose("weights_resnet2")
    assert "Did you mean weights_resnet20" in explain(caught.value)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "(empty)"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"accuracy: 93 %\n", "is a text file, no weights (it begins: 'accuracy: 93 %')"),
        (bytes(range(256)), "is damaged"),
    ],
)
def test_what_is_no_weight_file(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ProgipError) as caught:
        read_state_dict(path)
    assert message in str(caught.value)
    assert "weights_only" not in str(caught.value)
