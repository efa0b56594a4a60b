"""The same cells on a GPU; skipped where there is none."""

import numpy as np
import pytest
import torch

from progip import records

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("executor", ["reference", "incremental"])
@pytest.mark.parametrize("method", ["odin", "mahalanobis"])
@pytest.mark.parametrize("fault_pass", records.PASSES)
def test_null_campaign_on_cuda(run, fault_pass: str, method: str, executor: str) -> None:
    rows = run(
        "device=cuda", "fault_model=none", f"pass={fault_pass}", f"ood_method={method}",
        f"executor={executor}", "runs=200",
    )  # fmt: skip
    for name in ("class", "score", "grad_max"):
        assert rows[f"faulty_{name}"].equals(rows[f"golden_{name}"]), name


@pytest.mark.parametrize("fault_pass", records.PASSES)
def test_cuda_and_cpu_plan_the_same_and_nearly_agree(run, fault_pass: str) -> None:
    cpu, cuda = (
        run(f"device={device}", f"name={device}", f"pass={fault_pass}", "runs=300")
        for device in ("cpu", "cuda")
    )
    assert cpu[records.PLAN.names].equals(cuda[records.PLAN.names])
    differ = cpu["verdict_changed"] != cuda["verdict_changed"]
    assert differ.mean() <= 0.01
    np.testing.assert_allclose(cpu["golden_score"], cuda["golden_score"], rtol=1e-5)
