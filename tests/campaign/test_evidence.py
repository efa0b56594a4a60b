"""What a protection looks at must be there: in campaigns, in deployed detectors, at any network."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
import users_networks
from stored_rows import rows_of
from torch import Tensor, nn
from users_model import CLASSES, UsersModel, users_model

from progip.campaign import subject
from progip.campaign.runner import run_cell
from progip.campaign.subject import prepare
from progip.cli import main
from progip.config import cell_settings, composed, resolved
from progip.deploy.calibration import guarded_subject
from progip.errors import ProgipError
from progip.models.rewrite import with_own_modules
from progip.ood_methods.base import Detection, EnterPass, OODMethod, no_pass
from progip.probes.needs import check_needs
from progip.protections.base import EVIDENCE

ROOT = Path(__file__).resolve().parents[2]
ONE_PASS = ["ood_method=none", "ood_dataset=none", "population=id", "pass=first_forward"]
WATCHING = ["ranger", "ranger_clip", "gradient_statistics"]


def campaign(tmp_path: Path, *overrides: str) -> tuple[Path, pd.DataFrame]:
    cfg = composed([f"outputs={tmp_path}", "runs=200", *overrides], ROOT / "conf")
    folder = run_cell(cell_settings(cfg), resolved(cfg))
    return folder, rows_of(folder)


@pytest.mark.parametrize(
    ("watches", "computes", "named"),
    [
        ((), (), None),
        (EVIDENCE, EVIDENCE, None),
        (("range_excess_first", "range_excess_second"), ("range_excess_first",), None),
        (("range_excess_second",), ("range_excess_first",), "range_excess_second"),
        (("grad_max", "score"), ("score",), "grad_max"),
        (("grad_max", "range_excess_second"), ("score",), "grad_max, range_excess_second"),
        (("heat",), EVIDENCE, "heat"),
    ],
)
def test_the_contract(
    watches: tuple[str, ...], computes: tuple[str, ...], named: str | None
) -> None:
    if named is None:
        check_needs("protection 'p'", watches, "m", computes)
        return
    with pytest.raises(ProgipError, match=f"'p' (looks at|watches) {named}[,;]"):
        check_needs("protection 'p'", watches, "m", computes)


def test_ranger_watches_the_only_pass_of_a_network(tmp_path: Path) -> None:
    folder, rows = campaign(tmp_path, *ONE_PASS, "protection=ranger")
    assert (rows["range_excess_second"] == -1).all()
    assert (rows["alarm"] == ~(rows["range_excess_first"] <= 0)).all()
    assert 0 < rows["alarm"].sum() < len(rows)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["watched"] == {"range_checked_calls": 9}  # 7 ReLU, pool, flatten


def test_what_a_method_does_not_compute_is_refused_before_anything_runs(tmp_path: Path) -> None:
    message = (
        r"'progip' looks at grad_max, score, which ood_method 'none' does not compute \(it "
        r"computes nonfinite_logits, range_excess_first\)"
    )
    with pytest.raises(ProgipError, match=message):
        campaign(tmp_path, *ONE_PASS, "protection=progip")
    assert not list(tmp_path.iterdir())


@dataclass(kw_only=True)
class MaxLogit(OODMethod):
    """One forward pass, and a score; that there is no gradient is declared, or is not."""

    gradient_vanishes: ClassVar[bool] = False
    passes: ClassVar[tuple[str, ...]] = ("first_forward",)

    def detect(self, network: nn.Module, images: Tensor, enter: EnterPass = no_pass) -> Detection:
        with torch.no_grad():
            enter("first_forward")
            logits = network(images)
        return Detection(logits, torch.zeros_like(images), images, logits.double().amax(1))


@dataclass(kw_only=True)
class Undeclared(MaxLogit):
    passes: ClassVar[tuple[str, ...]] = ("first_forward", "backward")


def own(method: type[OODMethod]) -> list[str]:
    sys.modules.setdefault("test_evidence", sys.modules[__name__])
    drop = [f"~ood_method.{key}" for key in ("temperature", "epsilon", "std", "sign", "rescale")]
    return [f"ood_method._target_=test_evidence.{method.__name__}", "ood_method.name=mine", *drop]


def test_progip_needs_a_gradient(tmp_path: Path) -> None:
    with pytest.raises(ProgipError, match="'progip' looks at grad_max, which ood_method 'mine'"):
        campaign(tmp_path, *own(MaxLogit), "protection=progip", "pass=first_forward")
    with pytest.raises(ProgipError, match="'progip': the input gradient is zero on every clean"):
        campaign(tmp_path, *own(Undeclared), "protection=progip", "pass=first_forward")
    _, rows = campaign(tmp_path, *own(MaxLogit), "protection=ranger", "pass=first_forward")
    assert rows["alarm"].any()


@pytest.mark.parametrize("protection", WATCHING)
def test_a_network_of_functions_has_nothing_to_check(tmp_path: Path, protection: str) -> None:
    chosen = [*users_model("InplaceFn"), f"protection={protection}"]
    with pytest.raises(
        ProgipError, match=rf"'{protection}': InplaceFn has no activation .*with_own"
    ):
        campaign(tmp_path, *chosen)
    assert not list(tmp_path.rglob("part-*.parquet"))


@dataclass(kw_only=True)
class Rewritten(UsersModel):
    def prepared(self, network: nn.Module) -> nn.Module:
        return with_own_modules(network)


@pytest.mark.parametrize(("protection", "places"), list(zip(WATCHING, (4, 4, 2), strict=True)))
def test_the_remedy_that_is_named_works(tmp_path: Path, protection: str, places: int) -> None:
    sys.modules.setdefault("test_evidence", sys.modules[__name__])
    chosen = [*users_model("InplaceFn"), "model._target_=test_evidence.Rewritten"]
    folder, rows = campaign(tmp_path, *chosen, f"protection={protection}", "pass=first_forward")
    assert rows["alarm"].any()
    (count,) = json.loads((folder / "manifest.json").read_text())["watched"].values()
    assert count == places


class Positional(users_networks.Kwargs):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.fl(self.r(self.c(x))))


@pytest.mark.parametrize("fault_pass", ["first_forward", "backward", "second_forward"])
@pytest.mark.parametrize("method", ["odin", "mahalanobis"])
@pytest.mark.parametrize("protection", ["progip", *WATCHING])
def test_by_keyword_as_by_position(
    tmp_path: Path,
    protection: str,
    method: str,
    fault_pass: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = [*users_model("Kwargs"), f"protection={protection}", f"pass={fault_pass}", "runs=60"]
    chosen += [f"ood_method={method}", "fault_model.layers=.*"]
    _, by_keyword = campaign(tmp_path / "a", *chosen)
    monkeypatch.setitem(CLASSES, "Kwargs", Positional)
    monkeypatch.setattr(subject, "_ready", {})  # else the first network stays ready
    _, by_position = campaign(tmp_path / "b", *chosen)
    pd.testing.assert_frame_equal(by_keyword, by_position, check_exact=True)


@pytest.mark.parametrize("form", ["fused", "per_layer"])
def test_a_deployed_network_without_a_detector(form: str) -> None:
    cfg = composed([*ONE_PASS, "protection=ranger"], ROOT / "conf")
    settings = cell_settings(cfg)
    subject = prepare(settings.subject)
    with guarded_subject(subject, settings.protection, form) as detector:
        broken = subject.tested.images["id"][:4].clone()
        broken[2] *= 50
        answer = detector(broken)
    assert answer.alarm.tolist() == [False, False, True, False]
    assert answer.stage.tolist() == ["", "", "first_forward", ""]
    assert (answer.label == subject.tested.network(broken).argmax(1).numpy()).all()
    assert answer.in_distribution.all()
    assert np.isfinite(answer.score).all()


def test_the_runtime_of_a_network_without_a_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def runtime(protection: str) -> None:
        command = ["progip", "runtime", "--methods", "none", "--protections", protection]
        command += ["--batches", "2", "--seconds", "0.2", "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", [*command, "ood_dataset=none"])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # so that it is put back afterwards
        monkeypatch.delenv("HYDRA_FULL_ERROR")
        main()

    runtime("ranger")
    measured = json.loads(next((tmp_path / "runtime").glob("*.json")).read_text())
    forms = [(v["protection"], v["range_checks"]) for v in measured["variants"]]
    assert forms == [("none", ""), ("ranger", "fused"), ("ranger", "per_layer")]
    with pytest.raises(SystemExit):
        runtime("progip")
    assert "'progip' looks at grad_max, score, which ood_method 'none'" in capsys.readouterr().err
