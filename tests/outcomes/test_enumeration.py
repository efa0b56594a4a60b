"""Every fault of a tiny network, once by the package and once by a plain hook and plain loops."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progip import records
from progip.campaign.execution import observed_table
from progip.campaign.judge import runs_of
from progip.engine.observe import golden_table
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.none import NoMethod
from progip.outcomes.base import Context
from progip.outcomes.loss import DeltaLoss
from progip.outcomes.scm import SCM
from progip.outcomes.sdc import SDC
from progip.probes import BASE, probes_named
from progip.records import run_fields

IMAGES, CLASSES = 6, 7
GROUPS = "aabbcdd"  # a, b: supergroup A
LAYERS = ("0", "4")


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, CLASSES)
        )
        for parameter in model.parameters():
            parameter.data *= 3
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def inputs() -> tuple[nn.Sequential, Tensor, np.ndarray]:
    model = network()
    images = torch.randn(IMAGES, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    labels = model(images).argmax(1).numpy()
    labels[::3] = (labels[::3] + 2) % CLASSES  # some are wrong without any fault
    return model, images, labels


@pytest.fixture(scope="module")
def executed(inputs: tuple[nn.Sequential, Tensor, np.ndarray]) -> pa.Table:
    """All faults, executed and observed by the package."""
    model, images, labels = inputs
    method = NoMethod(name="none")
    with profiling(model, images[:2]) as ranges:
        method.fit(model, [(images, torch.from_numpy(labels))])
    probes = probes_named(["confidence", "loss", "top_five"])
    pipeline = Pipeline(model, method, ranges, probes)
    found = find_sites(model, method, images[:2])["first_forward"]
    sites = SingleBitFlip(name="flip").select(found)
    assert [site.layer for site in sites] == list(LAYERS)
    every = [
        (image, site.layer, neuron, bit)
        for image, site in product(range(IMAGES), sites)
        for neuron, bit in product(range(site.neurons), range(32))
    ]
    image, layer, neuron, bit = zip(*every, strict=True)
    zeros = np.zeros(len(every))
    plan = pa.table(
        {
            "run_id": np.arange(len(every)), "sample_index": image, "layer": layer, "call": zeros,
            "neuron": neuron, "bit": bit, "weight": zeros + 1, "stratum": zeros,
        }
    ).cast(records.PLAN)  # fmt: skip
    golden = golden_table(pipeline, images, labels, 64)
    executor = ReferenceExecutor(pipeline, sites, "first_forward", images, 64, labels=labels)
    parts = [run_fields(probe.produces) for probe in (*BASE, *probes)]
    fields = [field for part in parts for field in part]
    schema = pa.schema([*records.PLAN, *records.FAULT, *fields])
    return observed_table(plan, golden, executor.run(plan), schema, sites=sites)


@pytest.fixture(scope="module")
def truth(inputs: tuple[nn.Sequential, Tensor, np.ndarray]) -> pd.DataFrame:
    """The same faults by a hook on each layer, one logit vector a fault; no code of the package."""
    model, images, labels = inputs
    golden = model(images)
    rows = []
    for name in LAYERS:
        layer = model.get_submodule(name)
        size = layer(images if name == "0" else model[:4](images))[0].numel()
        for neuron, bit in product(range(size), range(32)):

            def flip(_: nn.Module, __: tuple, output: Tensor, n: int = neuron, b: int = bit):
                faulty = output.flatten(1).clone()
                words = faulty[:, n].contiguous().view(torch.int32)
                mask = np.array(1 << b, dtype=np.uint32).view(np.int32)
                faulty[:, n] = (words ^ int(mask)).view(torch.float32)
                return faulty.view_as(output)

            handle = layer.register_forward_hook(flip)
            logits = model(images)
            handle.remove()
            rows += [
                (i, name, neuron, bit, golden[i], logits[i], int(labels[i])) for i in range(IMAGES)
            ]
    names = ["sample_index", "layer", "neuron", "bit", "golden", "faulty", "label"]
    return pd.DataFrame(rows, columns=names)


def joined(truth: pd.DataFrame, executed: pa.Table, flags: dict[str, np.ndarray]) -> pd.DataFrame:
    keys = ["sample_index", "layer", "neuron", "bit"]
    ours = pd.DataFrame({name: executed[name].to_pylist() for name in keys}).assign(**flags)
    whole = truth.merge(ours, on=keys, validate="one_to_one")
    assert len(whole) == len(truth) == len(executed)
    return whole


def klass(logits: Tensor) -> int:
    return -1 if torch.isnan(logits).any() else int(logits.argmax())


def test_sdc_of_every_fault(truth: pd.DataFrame, executed: pa.Table) -> None:
    outcome = SDC(name="sdc", top_five=True, confidence=[10, 20])
    flags = outcome.judge(runs_of(executed, outcome.needs), Context("id", 0.0))
    whole = joined(truth, executed, flags)
    for row in whole.itertuples():
        before, after = klass(row.golden), klass(row.faulty)
        five = torch.sort(row.golden, descending=True).indices[:5].tolist()
        assert row.sdc == (before != after)
        assert row.sdc_5 == (after not in five)
        assert row.invalid_class == (after == -1)
        p, q = (float(torch.softmax(x.double(), 0).max()) for x in (row.golden, row.faulty))
        for share, flag in ((0.1, row.sdc_10_percent), (0.2, row.sdc_20_percent)):
            assert flag == (not abs(q - p) <= share * p)
    assert 0 < whole["sdc_5"].sum() < whole["sdc"].sum()
    assert whole["invalid_class"].any()


def test_scm_of_every_fault(truth: pd.DataFrame, executed: pa.Table, tmp_path: Path) -> None:
    rows = [f"{i},{g},{'A' if g in 'ab' else 'B'}" for i, g in enumerate(GROUPS)]
    groups = tmp_path / "groups.csv"
    groups.write_text("\n".join(["class_index,group,supergroup", *rows]))
    for reference in ("golden", "truth"):
        outcome = SCM(name="scm", groups=str(groups), reference=reference)
        flags = outcome.judge(runs_of(executed, outcome.needs), Context("id", 0.0))
        whole = joined(truth, executed, flags)
        for row in whole.itertuples():
            golden, after = klass(row.golden), klass(row.faulty)
            before = golden if reference == "golden" else row.label
            other = after == -1 or GROUPS[after] != GROUPS[before]
            assert row.scm == (golden != after and GROUPS[before] in "ab" and other)
        assert 0 < whole["scm"].sum() < whole["sdc"].sum()


def test_delta_loss_of_every_fault(truth: pd.DataFrame, executed: pa.Table) -> None:
    outcome = DeltaLoss(name="loss", among="correct", cap=3.0)
    flags = outcome.judge(runs_of(executed, outcome.needs), Context("id", 0.0))
    whole = joined(truth, executed, flags)
    for row in whole.itertuples():
        target = torch.tensor(row.label)
        clean, faulty = (F.cross_entropy(x.double(), target) for x in (row.golden, row.faulty))
        change = abs(float(faulty) - float(clean))
        assert row.counted == (klass(row.golden) == row.label)
        assert row.mismatch == (row.counted and klass(row.faulty) != row.label)
        if np.isfinite(change):
            assert row.delta_loss == pytest.approx(change, rel=1e-4, abs=1e-6)
            assert row.delta_loss_capped == pytest.approx(min(change, 3.0), rel=1e-4, abs=1e-6)
        else:
            assert not np.isfinite(row.delta_loss)
            assert row.delta_loss_capped == 3.0
            assert row.nonfinite_loss == row.counted
