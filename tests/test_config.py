"""Every option of every config group composes, and builds or runs one tiny cell."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from decomposed_networks import DECOMPOSED

from progip.campaign.runner import run_cell
from progip.config import GROUPS, build, cell_settings, composed, resolved
from progip.errors import ProgipError

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that replace both data sets by a few random 32x32 colour images of 10 classes."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for name, count in (("train", 20), ("test", 12), ("ood", 12)):
        np.savez(
            folder / f"{name}.npz",
            data=random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8),
            labels=np.arange(count) % 10,
        )
    return [
        "dataset=npz", "ood_dataset=npz", "dataset.classes=10", "dataset.name=photos",
        f"dataset.train={folder}/train.npz", f"dataset.test={folder}/test.npz",
        f"ood_dataset.test={folder}/ood.npz", "dataset.calibration=6", "ood_dataset.calibration=6",
    ]  # fmt: skip


def run_one(tmp_path: Path, *overrides: str) -> int:
    cfg = composed([f"outputs={tmp_path}", "runs=4", "batch_size=4", *overrides], CONF)
    folder = run_cell(cell_settings(cfg), resolved(cfg))
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("part-*"))


SMALL = ("protection.images=12", "protection.validation=12")
SEARCHES = {
    "ft_clipact": ["protection.maps=1", "protection.rounds=1", "protection.least_rounds=1"],
    "fitact": ["protection.epochs=1"],
    "proact": ["protection.epochs=1", "protection.decays=[4e-5]"],
}
STEPS = ("ood_method=pro", "ood_method.steps=3")
#: what an option needs beside itself
LIST = 'Layer,TensorIndex,Bit\nlayer1.0.conv1,"(0, 1, 2, 2)",30\n'
NEEDS = {
    "fault_model=parameter_bit": ["pass=all"],
    "fault_model=bit_error_rate": ["pass=all"],
    "fault_model=listed": ["pass=all", "fault_model.images_per_map=4"],
    "fault_model=metadata_bit": ["number_format=integer"],
    "fault_model=parameter_metadata_bit": [
        "pass=all",
        "number_format=integer",
        "number_format.quantise=[weights]",
    ],
    "pass=all": ["fault_model=parameter_bit"],
    # ProGIP, the default, watches a gradient
    **{
        f"ood_method={name}": ["protection=ranger"]
        for name in ("none", "max_softmax", "max_logit", "energy", "openmax")
    },
    "ood_method=generalised_odin": DECOMPOSED,
    **{
        f"protection=open_set{score}": [f"probes=[{probe}]"]
        for score, probe in {
            "": "largest_logit",
            "_energy": "energy",
            "_msp": "confidence",
            "_distance": "class_distance",
            "_openmax": "openmax",
        }.items()
    },
    **{
        f"protection=facer_like{kind}": [
            "probes=[layer_traces]",
            "fault_model.layers=linear",
            "fault_model.bits=[0]",
            "protection.images=8",
            "protection.runs=40",
            "protection.label_by=any",
        ]
        for kind in ("", "_ood", "_three")
    },
    "protection=progip_steps": [*STEPS, "probes=[step_gradients]"],
    **{f"pass={way}_{step}": [*STEPS] for way in ("forward", "backward") for step in (2, 3)},
    # searches that take hours at their published size
    **{
        f"protection={name}{short}": [*SMALL, *more]
        for name, more in SEARCHES.items()
        for short in ("", "_short")
    },
}


def needs(tmp_path: Path, *given: str) -> list[str]:
    """What some options need beside themselves, a list of faults among it."""
    path = tmp_path / "list.csv"
    path.write_text(LIST)
    files = [f"fault_model.file={path}"] if "fault_model=listed" in given else []
    if {"protection=facer_like_ood", "protection=facer_like_three"} & set(given):
        pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
        np.savez(tmp_path / "ood.npz", data=pixels, labels=np.arange(20) % 10)
        files = [f"protection.ood.{part}={tmp_path}/ood.npz" for part in ("train", "test")]
    return [*(more for option in given for more in NEEDS.get(option, [])), *files]


def test_groups_have_the_folders_that_are_documented() -> None:
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    others = ("model.head", "pass", "recipe", "attack", "students", "students.procedure")
    assert folders == {*GROUPS, *others}


@pytest.mark.parametrize(
    ("group", "option"),
    [(group, option) for group in GROUPS for option in options(group)],
)
def test_every_option_builds_and_is_called_by_its_file_name(
    tmp_path: Path, group: str, option: str
) -> None:
    cfg = composed([f"{group}={option}", *needs(tmp_path, f"{group}={option}")], CONF)
    component = build(cfg[group], GROUPS[group], group)
    rate = getattr(component, "rate", None)  # part of the name, so that it can be swept
    expected = option if rate is None else f"{option}_{rate}"
    if group == "number_format":  # widths are part of the name, too
        expected += component.name.removeprefix(option) if component.name != option else ""
    assert component.name == expected


#: alike to another one that is run, or run whole by other tests
ALIKE = ("resnet32", "resnet34", "resnet44", "resnet56", "densenet_bc_100_12", "student")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ())
        for name in options("model")
    ],
)
def test_every_model_runs_one_tiny_cell(tmp_path: Path, model: str, photographs: list[str]) -> None:
    if model == "digits_resnet":
        assert run_one(tmp_path, f"model={model}") == 4
        return
    extra = ["model.arch=squeezenet1_1"] if model == "torchvision" else []
    assert run_one(tmp_path, f"model={model}", "model.weights=random", *extra, *photographs) == 4


@pytest.mark.parametrize(
    ("group", "option"),
    [
        (group, option)
        for group in ("ood_method", "protection", "fault_model", "pass", "number_format")
        for option in options(group)
    ],
)
def test_every_other_option_runs_one_tiny_cell(tmp_path: Path, group: str, option: str) -> None:
    given = f"{group}={option}"
    assert run_one(tmp_path, given, *needs(tmp_path, given)) == 4


def every_pair() -> list[Any]:
    """Every protection with every fault model; with two of them each where time matters."""
    fault_models = options("fault_model")
    pairs = []
    for place, protection in enumerate(options("protection")):
        for other, fault_model in enumerate(fault_models):
            often = (other - place) % len(fault_models) in (0, 6)
            marks = () if often else (pytest.mark.slow,)
            pairs.append(pytest.param(protection, fault_model, marks=marks))
    return pairs


@pytest.mark.parametrize(("protection", "fault_model"), every_pair())
def test_every_protection_meets_every_fault_model(
    tmp_path: Path, protection: str, fault_model: str
) -> None:
    rated = fault_model in ("burst", "one_bit", "six_bits", "word")
    rate = ["fault_model.rate=1e-3"] if rated else []
    learns = protection.startswith("facer_like") and fault_model != "single_bit_flip"  # refused
    more = needs(tmp_path, f"fault_model={fault_model}", f"protection={protection}")
    if learns:  # other fault models lack these keys, or mean something else by them
        restricted = ("fault_model.layers=", "fault_model.bits=")
        more = [option for option in more if not option.startswith(restricted)]
    cell = (f"protection={protection}", f"fault_model={fault_model}", *rate, *more)
    if learns:
        with pytest.raises(ProgipError, match="learns from single bit flips of other layers"):
            run_one(tmp_path, *cell)
    else:
        assert run_one(tmp_path, *cell) == 4


@pytest.mark.parametrize("campaign", sorted(p.stem for p in (ROOT / "campaigns").glob("*.yaml")))
def test_every_campaign_file_composes_and_says_its_command_and_cost(campaign: str) -> None:
    from hydra import compose, initialize_config_dir

    from progip.config import register

    register()
    with initialize_config_dir(f"{ROOT}/campaigns", version_base="1.3"):
        cfg = compose(
            campaign, overrides=[f"hydra.searchpath=[file://{CONF}]"], return_hydra_config=True
        )
    assert cfg.hydra.mode.name == "MULTIRUN"
    assert campaign.startswith(cfg.name)
    head = (ROOT / "campaigns" / f"{campaign}.yaml").read_text().splitlines()[:6]
    assert any("make " in line for line in head)
    assert any("runs" in line for line in head)
