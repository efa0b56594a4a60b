"""Values that are accepted by their type but can only be mistakes: each is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from progip.config import cell_settings, composed
from progip.config.checks import check_overrides
from progip.errors import ProgipError

ROOT = Path(__file__).resolve().parent.parent
STATISTICS = "protection=gradient_statistics"
STRATA = "sampling=stratified sampling.allocation=proportional"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("name=", "name='': give a folder below outputs"),
        ("name=../x", "name='../x'"),
        ("name=/x", "name='/x'"),
        ("cell=", "cell=''"),
        ("outputs=", "outputs is empty"),
        ("model.name=", r"model\.name='': a name is part of a folder's"),
        ("model.name=a/b", r"model\.name='a/b'"),
        ("protection.name=..", r"protection\.name='\.\.'"),
        ("part=-1", "part=-1: must not be negative; 0 is the only process"),
        ("threads=-1", "threads=-1: must not be negative; 0 leaves torch's default"),
        ("sizing.relative=true", r"sizing\.relative=true has no effect without sizing\.margin"),
        ("sizing.finite=true", r"sizing\.finite=true has no effect without sizing\.margin"),
        ("ood_method.epsilon=nan", r"ood_method\.epsilon=nan: every number must be finite"),
        ("ood_method.temperature=inf", r"ood_method\.temperature=inf"),
        ("ood_method.std=[]", "std must be one or more positive numbers"),
        ("ood_method.std=[nan]", r"ood_method\.std=\[nan\]"),
        ("protection.score_margin=inf", r"protection\.score_margin=inf"),
        ("model.weights=", r"model\.weights is empty; give a value, or null"),
        ("fault_model.layers=", r"fault_model\.layers is empty"),
        ("fault_model.layer_types=[]", "layer_types is empty, so nothing can be hit"),
        (f"{STATISTICS} protection.k=9", r"k=9\.0 has no effect with threshold=max_clean"),
        (f"{STATISTICS} protection.alpha=0.5", "it is read with threshold=alpha"),
        (f"{STATISTICS} protection.rounds=9", "rounds=9 has no effect with locate="),
        (f"{STATISTICS} protection.checksum=none protection.checksum_margin=3", "sum|pixel"),
        (f"{STRATA} sampling.pilot=700", "pilot=700 has no effect with allocation=proportional"),
        (f"{STRATA} sampling.aim=failure_rate", "aim=failure_rate has no effect"),
    ],
)
def test_refused_by_name(typed: str, message: str) -> None:
    with pytest.raises(ProgipError, match=message) as refused:
        cell_settings(composed(typed.split(), ROOT / "conf"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "typed",
    [
        "name=deep/er",
        "sizing.margin=.05 sizing.relative=true",
        f"{STATISTICS} protection.threshold=sigma_k protection.k=9",
        f"{STATISTICS} protection.locate=iterative protection.rounds=9",
        "sampling=stratified sampling.pilot=700",
    ],
)
def test_accepted_where_it_is_read(typed: str) -> None:
    cell_settings(composed(typed.split(), ROOT / "conf"))


def test_what_a_campaign_does_not_read() -> None:
    for key in ("model.recipe.epochs", "+model.recipe.new", "model.recipe"):
        with pytest.raises(ProgipError, match=r"no effect on a campaign: only `.* train` reads"):
            check_overrides(["runs=3", f"{key}=3"])
    check_overrides(["runs=3", "model.recipes=2", "model=resnet20", "~pass"])
    with pytest.raises(ProgipError, match=r"runs has no effect with sampling=per_layer"):
        check_overrides(["runs=3"], "per_layer")


def test_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("defaults: [config, _self_]\nruns: [1, 2\nseed: 3\n")
    (tmp_path / "bare.yaml").write_text("name: mine\n")
    bare = ["--config-dir", str(tmp_path), "--config-name", "bare"]
    for arguments, message in (
        (bare, "the campaign file has no defaults"),
        ([*bare, "runs=5"], "the campaign file has no defaults"),
        (["--config-dir", str(tmp_path), "--config-name", "broken"], "broken.yaml, line 3: not "),
        (["model.recipe.epochs=3"], "model.recipe.epochs has no effect on a campaign"),
        (["part=-1"], "part=-1: must not be negative"),
    ):
        command = [sys.executable, "run.py", f"outputs={tmp_path}/out", *arguments]
        if "--config-dir" in arguments:
            command = [sys.executable, "run.py", *arguments]
        plain = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, env=plain
        )
        assert done.returncode == 1
        assert f"error: {message}" in done.stderr.replace(str(tmp_path) + "/", "")
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.parquet"))
