"""Networks that no campaign can be right about are refused in one line, before any run."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from users_model import users_model

from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.errors import ProgipError
from progip.models.checking import check_repeatable

ROOT = Path(__file__).resolve().parents[2]
RANDOM = "gives other outputs when it is executed again"
MIXES = "gives an image other outputs beside other images"


def start(tmp_path: Path, kind: str, *overrides: str) -> None:
    own = [f"outputs={tmp_path}", "runs=20", *users_model(kind), *overrides]
    cfg = composed(own, ROOT / "conf")
    run_cell(cell_settings(cfg), resolved(cfg))


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        ("MCDropout", [], f"'MCDropout' {RANDOM}: .* in the forward of MCDropout after layer"),
        ("StuckTrain", [], rf"{RANDOM}: layer 'f\.3' \(Dropout\), which is in training mode"),
        ("BatchNormTrain", [], rf"{MIXES}: layer 'r' \(ReLU\) is the first that differs, by up to"),
        ("ViewErr", [], r"does not run in the memory format channels_last .*channels_last=false"),
        ("EmbedNet", ["ood_method=odin"], "'odin' needs the gradient.*ood_method=none needs no"),
        ("NoGradNet", ["ood_method=odin"], "'odin' needs the gradient.*ood_method=none needs no"),
        ("NoGradNet", ["ood_method=mahalanobis"], "'mahalanobis' needs the gradient"),
        ("Half", [], r"layer 'f\.0' \(Conv2d\) has a float16 weight, .*only float32"),
        ("HalfBody", [], r"layer 'f\.0' gives bfloat16; only float32 can be hit"),
        ("Double", [], r"layer 'f\.0' gives float64; only float32 can be hit"),
        ("Lazy", [], r"layer 'f\.0' \(LazyConv2d\) has no 'weight' yet: .*Model\.network\(\)"),
        ("Scripted", [], "layer 'm' .* is compiled by torch.jit"),
    ],
)
def test_one_line_names_the_culprit(
    tmp_path: Path, kind: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(ProgipError, match=message) as refused:
        start(tmp_path, kind, *overrides)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.rglob("part-*.parquet"))


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        ("ViewErr", ["channels_last=false"]),
        ("EmbedNet", ["ood_method=none", "ood_dataset=none", "population=id"]),
        ("NoGradNet", ["ood_method=none", "ood_dataset=none", "population=id"]),
    ],
)
def test_what_the_line_advises_works(tmp_path: Path, kind: str, overrides: list[str]) -> None:
    start(tmp_path, kind, "protection=none", "pass=first_forward", *overrides)
    assert list(tmp_path.rglob("part-*.parquet"))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return self.fc(x.flatten(1))


class Compiled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.compile(nn.Linear(4, 3), backend="eager")

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1))


class TokenMixer(nn.Module):
    """Attention over the images: axes exchanged by mistake."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.block = nn.MultiheadAttention(8, 2, batch_first=False)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.flatten(2))  # (B, 1, 8), taken for (tokens, batch, width)
        return self.fc(self.block(tokens, tokens, tokens)[0].mean(1))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_what_changes_by_itself(count: int) -> None:
    images = torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    with pytest.raises(ProgipError, match="N changes its own 'seen' whenever it is executed"):
        check_repeatable(Counting().eval(), "N", images)
    with pytest.raises(ProgipError, match=f"N {MIXES}: .*'block"):
        check_repeatable(TokenMixer().eval(), "N", images)
    check_repeatable(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval(), "N", images)


def test_compiled_layers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("users_model").CLASSES, "Compiled", lambda c, n: Compiled())
    with pytest.raises(ProgipError, match=r"layer 'body' .* compiled by torch\.compile"):
        start(tmp_path, "Compiled")
