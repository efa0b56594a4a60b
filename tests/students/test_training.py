"""The stages: what each opens and draws, what an interrupted training leaves, the presets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from progip.config import build, composed
from progip.datasets.base import Images
from progip.errors import ProgipError
from progip.models.digits import DigitsResNet
from progip.models.dynamic.network import DynamicNetwork
from progip.models.dynamic.resnet import ResNetSpace
from progip.models.loading import weights_fingerprint
from progip.models.training_files import Run
from progip.students.cutting import Cutter
from progip.students.procedures import RSLAD, TRADES
from progip.students.stages import Stage, Teacher, Training
from progip.students.training import Trainer

SPACE = ResNetSpace(
    base=[1], depth=[0, 1], expand=[0.5, 1.0], widths=[8], strides=[2], stem=4, divisor=2,
    width=[0.5, 1.0], dropout=0.1,
)  # fmt: skip
SHORT: dict[str, Any] = {"budget": 8, "steps": 1}
WIDTH, DEPTH = {"width": [0.5, 1.0]}, {"depth": [0, 1]}


def training(**more: Any) -> Training:
    stages = [
        Stage(name="largest", epochs=1, learning_rate=0.05),
        Stage(name="width", opened=WIDTH, epochs=2, learning_rate=0.05),
        Stage(name="depth", opened=WIDTH | DEPTH, epochs=2, learning_rate=0.05, students=2),
        Stage(
            name="expand", opened=WIDTH | DEPTH | {"expand": [0.5, 1.0]}, epochs=2,
            learning_rate=0.05, students=3, sort=True,
        ),
    ]  # fmt: skip
    teacher = Teacher(epochs=2, warm_up_epochs=1, procedure=TRADES(**SHORT))
    options = {
        "name": "tiny", "space": SPACE, "procedure": RSLAD(name="rslad", **SHORT), "stages": stages,
        "teacher": teacher, "batch_size": 16, "crop_padding": 1, "flip": False, "calibration": 32,
    }  # fmt: skip
    return Training(**(options | more))


@pytest.fixture(scope="module")
def images() -> Images:
    random = np.random.default_rng(0)
    labels = np.arange(48) % 3
    pixels = random.integers(0, 90, (48, 1, 8, 8), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[0, 2 * label : 2 * label + 3] += 150
    return Images(pixels, labels.astype(np.int64), np.arange(48))


def trainer(folder: Path, images: Images, wanted: Training, **more: Any) -> Trainer:
    return Trainer(wanted, images, [0.3], [0.25], folder, 3, **more)


def stored(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {path.name: load_file(path) for path in sorted(folder.glob("*.safetensors"))}


NAMES = ["0_teacher", "1_largest", "2_width", "3_depth", "4_expand"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, images: Images) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    before = torch.random.get_rng_state()
    trainer(folder, images, training()).train()
    assert torch.equal(torch.random.get_rng_state(), before)
    return folder


class Killed(Exception):
    pass


def test_interrupted_in_every_epoch_of_every_stage(
    whole: Path, tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before and after each checkpoint in turn; the same weights, bit for bit."""
    checkpoint, calls, reached = Run.checkpoint, 0, set()

    def killed(self: Run, *state: Any) -> None:
        nonlocal calls
        calls += 1
        reached.add(self.output.stem)
        if calls % 2:
            raise Killed
        checkpoint(self, *state)
        raise Killed

    monkeypatch.setattr(Run, "checkpoint", killed)
    for _ in range(40):
        try:
            trainer(tmp_path, images, training()).train()
            break
        except Killed:
            continue
    assert reached == set(NAMES)
    assert calls == 2 * (2 + 1 + 2 + 2 + 2)
    ours, theirs = stored(tmp_path), stored(whole)
    assert [name.removesuffix(".safetensors") for name in ours] == NAMES
    for name, tensors in theirs.items():
        assert all(torch.equal(ours[name][key], tensor) for key, tensor in tensors.items()), name
    assert not list(tmp_path.glob("*.checkpoint.pt"))


def test_stages_draw_what_is_opened(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, Any]] = []
    sample = ResNetSpace.sample
    monkeypatch.setattr(
        ResNetSpace, "sample", lambda self, opened=None: seen.append(opened) or sample(self, opened)
    )
    trainer(tmp_path, images, training()).train()
    steps = 3  # 48 images in batches of 16
    width, depth, expand = (stage.opened for stage in training().stages[1:])
    assert seen == [width] * 2 * steps + [depth] * 2 * steps * 2 + [expand] * 2 * steps * 3
    for opened in (width, depth, expand):
        for _ in range(20):
            found = sample(SPACE, opened)
            closed = SPACE.choices.keys() - opened.keys()
            assert all(found[name] == SPACE.largest()[name] for name in closed)


def test_uniform_sampling_opens_everything_in_every_stage() -> None:
    planned, stages = training(progressive=False).planned, training().stages
    assert all(stage.opened == SPACE.choices and not stage.sort for stage in planned)
    assert [(s.epochs, s.learning_rate, s.students) for s in planned] == [
        (s.epochs, s.learning_rate, s.students) for s in stages
    ]


def test_each_stage_begins_with_the_last(whole: Path) -> None:
    files = stored(whole)
    largest = files["1_largest.safetensors"]["largest.conv1.weight"]
    assert not torch.equal(files["0_teacher.safetensors"]["largest.conv1.weight"], largest)
    # 2 of 4 stem channels are in every student of later stages, all 4 only in some
    for name in ("2_width", "3_depth"):
        weights = files[f"{name}.safetensors"]["largest.conv1.weight"]
        assert not torch.equal(weights, largest)
        assert torch.nn.functional.cosine_similarity(weights.flatten(), largest.flatten(), 0) > 0.8


def test_other_settings_do_not_go_on(whole: Path, images: Images) -> None:
    other = training(procedure=RSLAD(name="rslad", budget=9, steps=1))
    with pytest.raises(ProgipError, match=r"1_largest.*procedure\.budget: 8.*there, 9.* now"):
        trainer(whole, images, other).train()


def test_gradients_of_a_steps_students_are_added(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step by hand: plain SGD, three students, no momentum, against autograd's sum."""
    stage = Stage(name="all", opened=SPACE.choices, epochs=1, learning_rate=0.5, students=3)
    wanted = training(
        stages=[stage], batch_size=48, momentum=0.0, weight_decay=0.0, crop_padding=0,
        start="scratch", procedure=TRADES(**SHORT), teacher=Teacher(epochs=2, warm_up_epochs=1),
    )  # fmt: skip

    def squares(self: TRADES, student: nn.Module, teacher: Any, x: Any, y: Any) -> torch.Tensor:
        network: Any = student.network
        chosen.append(network.active)
        return sum(
            t.pow(2).sum() for t in network.slices(network.active).values() if t.requires_grad
        )

    chosen: list[Any] = []
    new: Callable[[], Any] = trainer(tmp_path, images, wanted)._new
    start: DynamicNetwork = new()[0]
    monkeypatch.setattr(TRADES, "loss", squares)
    monkeypatch.setattr(Trainer, "teacher", lambda self, resume: None)
    found = trainer(tmp_path, images, wanted).train()
    assert len(chosen) == 3
    for name, before in start.largest.named_parameters():
        counts = torch.zeros_like(before)
        for architecture in chosen:
            shape = start.empty(architecture).state_dict().get(name)
            if shape is not None:
                counts[tuple(slice(n) for n in shape.shape[:2])] += 1
        after = found.largest.get_parameter(name)
        torch.testing.assert_close(after, before - 0.5 * counts * 2 * before)


def test_a_model_of_ones_own_teaches(tmp_path: Path, images: Images) -> None:
    own = DigitsResNet(name="own", classes=3, channels=1, weights="random")
    short = [Stage(name="largest", epochs=1, learning_rate=0.05)]
    teacher = Teacher(source="model")
    wide = images.take(np.arange(32))
    wide = Images(wide.pixels.repeat(2, 2).repeat(2, 3), wide.labels, wide.index)
    wanted = training(stages=short, teacher=teacher, start="scratch")
    trainer(tmp_path, wide, wanted, own=own).train()
    assert [path.name for path in tmp_path.iterdir()] == ["1_largest.safetensors"]
    with pytest.raises(ProgipError, match=r"give students\.start=scratch"):
        training(teacher=teacher)


def test_students_are_calibrated_on_training_images(whole: Path, images: Images) -> None:
    network = trainer(whole, images, training()).train()
    cutter = Cutter(network, images, [0.3], [0.25], calibration=32, batch_size=16)
    before = weights_fingerprint(network)
    student = cutter.cut(SPACE.smallest())
    pixels = torch.from_numpy(images.pixels[:32]).float() / 255
    batches = ((pixels - 0.3) / 0.25).split(16)
    means = torch.stack([student.conv1(batch).mean((0, 2, 3)) for batch in batches])
    torch.testing.assert_close(student.bn1.running_mean, means.mean(0), atol=1e-5, rtol=1e-5)
    assert weights_fingerprint(network) == before


@pytest.mark.parametrize("preset", ["digits", "cifar10", "cifar10_mobilenet"])
@pytest.mark.parametrize("procedure", ["rslad", "ard", "trades"])
def test_presets(preset: str, procedure: str) -> None:
    cfg = composed([f"students={preset}", f"students.procedure={procedure}"], primary="students")
    found = build(cfg.students, Training, "students")
    assert (found.name, found.procedure.name) == (preset, procedure)
    assert found.procedure.budget == found.budget == found.teacher.procedure.budget
    assert cfg.attack.budget == found.budget
    last = found.stages[-1]
    assert last.opened == found.space.choices
    if preset == "digits":
        assert (found.procedure.steps, found.procedure.step) == (5, 8)
        return
    published = [(s.epochs, s.learning_rate, s.students) for s in found.stages[1:]]
    assert published == [
        (120, 0.03, 1), (25, 2.5e-3, 2), (120, 7.5e-3, 2), (25, 2.5e-3, 4), (120, 7.5e-3, 4),
    ]  # fmt: skip
    assert (found.teacher.epochs, found.teacher.procedure.beta) == (120, 6)


def test_wrong_stages_are_refused() -> None:
    with pytest.raises(ProgipError, match="'a' opens 'kernel'; the space has depth"):
        training(stages=[Stage(name="a", opened={"kernel": [3]})])
    with pytest.raises(ProgipError, match=r"'a': width=\[0.7\] is not part of \[0.5, 1.0\]"):
        training(stages=[Stage(name="a", opened={"width": [0.7]})])
    with pytest.raises(ProgipError, match="names must be there, and differ"):
        training(stages=[Stage(name="a"), Stage(name="a")])
