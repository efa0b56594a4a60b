"""What the documents show works as it stands there."""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from tiny_networks import labelled
from torch import nn

from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.models import calls
from progip.models.loading import seeded_network
from progip.protections import correcting, placement
from progip.report import write_report

ROOT = Path(__file__).resolve().parent.parent


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of docs/extending.md, written where Python and Hydra find them."""
    for language in ("python", "yaml"):
        for block in blocks("docs/extending.md", language):
            first = block.partition("\n")[0]
            if first.startswith("# ") and first.endswith((".py", ".yaml")):
                path = tmp_path / ("" if language == "python" else "conf") / first[2:]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_every_example_holds_its_contract(written: Path) -> None:
    checks = [b for b in blocks("docs/extending.md", "python") if "progip.contracts" in b]
    assert len(checks) == 7
    for check in checks:
        exec(check, {})


@pytest.mark.parametrize(
    ("overrides", "column"),
    [
        (["protection=gradient_limit", "pass=backward"], "alarm"),
        (["ood_method=energy_step"], "class_changed"),
        (["fault_model=low_byte", "fault_model.rate=0.01"], "hits"),
        (["outcome=confident_error", "probes=[largest_logit]"], "confident_error"),
        (["condition=confident_image", "probes=[largest_logit]"], "sample_index"),
        (["probes=[gradient_norm.GradientNorm]"], "faulty_gradient_norm"),
    ],
)
def test_every_example_runs(written: Path, overrides: list[str], column: str) -> None:
    bits = [] if "fault_model=low_byte" in overrides else ["fault_model.bits=[28,30]"]
    cfg = composed(
        [
            f"hydra.searchpath=[file://{written}/conf]", f"outputs={written}", "runs=120",
            "batch_size=8", *bits, *overrides,
        ],
        ROOT / "conf",
    )  # fmt: skip
    folder = run_cell(cell_settings(cfg), resolved(cfg))
    rows = pq.read_table(next(folder.glob("part-*"))).to_pandas()
    assert len(rows) == 120
    assert rows[column].nunique() > 1
    assert column.removeprefix("faulty_") in write_report(written / "campaign") + " ".join(rows)


def test_a_network_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rewritten, with_head = blocks("docs/networks.md", "python")
    (yaml,) = blocks("docs/networks.md", "yaml")
    head = "from dataclasses import dataclass\nimport torch.nn.functional as F\n"
    head += "from torch import nn\nfrom progip.models.base import Model\n"
    network = """
class MyNetwork(nn.Module):
    def __init__(self, channels, width, classes):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(channels, width, 3), nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(F.relu(self.conv(x)).mean([2, 3]))

"""
    imports, _, method = rewritten.partition("\n\n")
    indented = "\n".join(f"    {line}" for line in method.strip().splitlines())
    source = f"{head}{imports}\n{network}{model}\n{indented}\n"
    (tmp_path / "my_module.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_conf/model").mkdir(parents=True)
    (tmp_path / "my_conf/model/mine.yaml").write_text(yaml.replace("mine.pth", "random"))
    cfg = composed(
        [
            f"hydra.searchpath=[file://{tmp_path}/my_conf]", f"outputs={tmp_path}", "runs=40",
            "model=mine", "+model.channels=1", "protection=ranger", "batch_size=8",
        ],
        ROOT / "conf",
    )  # fmt: skip
    folder = run_cell(cell_settings(cfg), resolved(cfg))
    assert json.loads((folder / "manifest.json").read_text())["watched"] == {
        "range_checked_calls": 2  # the ReLU and the mean that follows it
    }
    settings = cell_settings(
        composed(
            [
                f"hydra.searchpath=[file://{tmp_path}/my_conf]",
                "model=mine",
                "+model.channels=1",
                "model.head=text_guided",
            ],
            ROOT / "conf",
        )
    )
    assert seeded_network(settings.subject.model).fc.classify.weight.shape == (8, 512)
    np.save(tmp_path / "embeddings.npy", np.eye(10, 512, dtype=np.float32))
    monkeypatch.chdir(tmp_path)
    names = {"network": nn.Sequential(nn.Flatten(), nn.Linear(4, 10))}
    exec(with_head, names)
    assert torch.equal(names["network"][1].classify.weight, torch.eye(10, 512))


def test_detectors_are_plain_classes(network: nn.Module, images: torch.Tensor) -> None:
    (source,) = [block for block in blocks("docs/data.md", "python") if "ODIN(" in block]
    batches = [(images, torch.arange(40) % 4)]
    names = {"network": network, "images": images, "batches": batches}
    exec(source, names)
    assert names["score"].shape == (40,)  # type: ignore[attr-defined]
    assert names["found"].score.dtype == torch.float64  # type: ignore[attr-defined]


def test_a_guarded_detector_in_five_lines(
    network: nn.Module, images: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, keeping, of_campaign, learning = blocks("docs/deploying.md", "python")
    batches = [(images, torch.arange(40) % 4)]
    names = {"network": network, "images": images, "batches": batches}
    names |= {"held_out": images[:20], "outliers": 2 * images[20:]}
    exec(source, names)
    assert names["answer"].alarm.shape == (40,)  # type: ignore[attr-defined]
    assert not names["answer"].alarm[:20].any()  # type: ignore[attr-defined]
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        exec(keeping, names)
    again = names["detector"](images)  # type: ignore[operator]
    assert again.alarm.tolist() == names["answer"].alarm.tolist()  # type: ignore[attr-defined]
    monkeypatch.chdir(ROOT)
    exec(of_campaign, names)
    assert names["detector"].protection.score_side == "both"  # type: ignore[attr-defined]
    small = '"protection.runs=200", "protection.label_by=any", "protection.epochs=1", "protection='
    monkeypatch.setenv("PROGIP_CACHE", str(tmp_path / "cache"))
    exec(learning.replace('"protection=', small, 1), names)
    assert names["detector"].protection.state()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a campaign in outputs/demo."""
    folder = tmp_path_factory.mktemp("demo")
    for name in ("progip", "ranger"):
        for method in ("odin", "mahalanobis"):
            overrides = [f"outputs={folder}/outputs", "name=demo", "runs=80", "batch_size=8"]
            overrides += [
                f"protection={name}",
                f"ood_method={method}",
                "fault_model.bits=[28,29,30]",
            ]
            cfg = composed(overrides, ROOT / "conf")
            run_cell(cell_settings(cfg), resolved(cfg))
    return folder


def executed(source: str, names: dict[str, Any]) -> Any:
    """What the last line of an example shows; None where it shows nothing."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "example", "exec"), names)
    return last and eval(compile(ast.Expression(last.value), "example", "eval"), names)


def test_campaigns_tables_and_figures_from_python(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo)
    names: dict[str, Any] = {}
    shown = [executed(source, names) for source in blocks("docs/library.md", "python")]
    assert len(names["campaign"].cells) == 4
    assert set(names["overall"]["protection"]) == {"none", "progip", "ranger"}
    assert (names["by_population"]["population"] == "id").all()
    assert len(names["where"].data) > 4
    assert {path.suffix for path in Path("figures").iterdir()} == {".svg", ".pdf", ".png", ".csv"}
    assert Path("outputs/demo/report/report.html").exists()
    assert names["text"].startswith("Fault-injection campaign demo")
    assert shown[-1].sum() == names["campaign"].cells["detection_failures"].sum()


def test_raw_rows_in_pandas_duckdb_polars(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    by_pandas, by_campaign, by_duckdb, by_polars = blocks("docs/rows.md", "python")
    names: dict[str, Any] = {}
    counts = executed(by_pandas, names)
    assert counts.sum() > 0
    rows = names["rows"].reset_index(drop=True)
    executed(by_campaign, names)
    pd.testing.assert_frame_equal(names["rows"], rows)
    expected = [(*key, n) for key, n in counts.sort_index().items()]
    assert executed(by_duckdb, {}).fetchall() == expected
    assert executed(by_polars, {}).rows() == expected
    everything = Path("outputs").rglob("*.parquet")
    others = {p for p in everything if p not in names["files"]}
    assert {p.parent.name for p in others} == {"_execution"}


def test_a_correcting_protection_is_fit_and_protect(
    network: nn.Module, images: torch.Tensor
) -> None:
    users, source = blocks("docs/correcting.md", "python")
    own: dict[str, Any] = {"network": network, "batches": labelled([images])}
    exec(users.replace('name="fitact"', 'name="fitact", epochs=1'), own)
    assert torch.isfinite(own["protected"](images)).all()
    names: dict[str, Any] = {"dataclass": dataclass, "torch": torch, "__name__": "documented"}
    names |= vars(correcting) | vars(placement) | vars(calls)
    exec(source, names)
    protection = names["NonFinite"](name="non_finite")
    copy = protection.protect(network, protection.fit(network, labelled([images])))
    copy[0].register_forward_hook(
        lambda m, a, o: torch.where(torch.arange(40).view(-1, 1, 1, 1) == 3, torch.nan, o)
    )
    assert torch.isfinite(copy(images)).all()
    assert correcting.protected_evidence(copy)["flagged"].nonzero().tolist() == [[3]]


@pytest.mark.parametrize("document", ["README.md", *sorted(
    str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")
)])  # fmt: skip
def test_links_lead_somewhere(document: str) -> None:
    page = ROOT / document
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


def test_every_make_target_named_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    pages = [ROOT / "README.md"]
    pages += [*(ROOT / "docs").rglob("*.md"), *(ROOT / "campaigns").rglob("*.yaml")]
    for page in pages:
        for name in re.findall(r"(?:`|^[# ]*)make ([a-z][a-z-]+)", page.read_text(), re.M):
            assert name in targets, f"{page.name}: make {name}"
