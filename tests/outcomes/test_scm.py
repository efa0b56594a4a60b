"""Safety-critical misclassification: its rule, its file of groups, and a campaign's rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progip.analysis.campaign import Campaign
from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.errors import ProgipError
from progip.outcomes.base import Context
from progip.outcomes.groups import Groups
from progip.outcomes.scm import SCM
from progip.report.writing import write_report

ROOT = Path(__file__).resolve().parents[2]
#: group and supergroup of eight classes
GROUPS = ["wide", "wide", "tall", "tall", "round", "flat", "flat", "other"]
CRITICAL = {"wide", "tall", "round"}
HEADER = "class_index,group,supergroup"


def rows_of() -> list[str]:
    return [f"{i},{g},{'A' if g in CRITICAL else 'B'}" for i, g in enumerate(GROUPS)]


def written(path: Path, rows: list[str], header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture(scope="session")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("groups") / "groups.csv", rows_of())


def rule(before: int, after: int) -> bool:
    """The rule as the source words it."""
    if GROUPS[before] not in CRITICAL:
        return False
    if after == -1:
        return True
    return GROUPS[after] not in CRITICAL or GROUPS[after] != GROUPS[before]


@given(st.lists(st.tuples(*[st.integers(0, 7)] * 2, st.integers(-1, 7)), min_size=1))
@pytest.mark.parametrize("reference", ["golden", "truth"])
def test_the_rule(groups: Path, reference: str, cases: list[tuple[int, int, int]]) -> None:
    label, golden, faulty = (np.array(c, dtype=np.int32) for c in zip(*cases, strict=True))
    outcome = SCM(name="scm", groups=str(groups), reference=reference)
    runs = {"label": label, "golden_class": golden, "faulty_class": faulty}
    found = outcome.judge(runs, Context("id", 0.0))
    for i, (y, g, f) in enumerate(cases):
        assert found["sdc"][i] == (f != g)
        before = g if reference == "golden" else y
        assert found["scm"][i] == (f != g and rule(before, f))
        assert found["golden_scm"][i] == (g != y and rule(y, g))


def test_classes_by_name_are_in_the_order_of_labels(groups: Path, tmp_path: Path) -> None:
    named = [f"class {row}" for row in rows_of()]
    path = written(tmp_path / "named.csv", named, "class,group,supergroup")
    shuffled = written(tmp_path / "shuffled.csv", sorted(rows_of(), reverse=True))
    first = Groups.read(str(groups), "A")
    for other in (path, shuffled):
        same = Groups.read(str(other), "A")
        np.testing.assert_array_equal(first.critical, same.critical)
        equal = first.group[:, None] == first.group
        np.testing.assert_array_equal(equal, same.group[:, None] == same.group)
        assert same.digest == first.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], r"has 7 classes, the dataset 8"),
        (lambda rows: rows[:4] + rows[5:], r"7 rows, but none of class 4"),
        (lambda rows: [*rows, rows[3]], r"names class 3 twice"),
        (lambda rows: [*rows[:-1], "x,other,B"], r"class_index 'x' is no class number"),
        (lambda rows: [*rows[:-1], "7,flat,A"], r"group 'flat' is in two supergroups"),
        (
            lambda rows: [row.replace("A", "C") for row in rows],
            r"no supergroup 'A'; there are B, C",
        ),
        (lambda rows: [], r"lacks every row"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, change, message: str) -> None:
    path = written(tmp_path / "groups.csv", change(rows_of()))
    with pytest.raises(ProgipError, match=rf"groups={path}: .*{message}"):
        SCM(name="scm", groups=str(path)).check(8)


def test_columns_and_files_that_are_not_there(tmp_path: Path) -> None:
    path = written(tmp_path / "groups.csv", ["1,2"], "class_index,kind")
    with pytest.raises(ProgipError, match="lacks group, supergroup; its columns are"):
        Groups.read(str(path), "A")
    with pytest.raises(ProgipError, match="cannot be read as a CSV file"):
        Groups.read(str(tmp_path / "absent.csv"), "A")


def campaign(folder: Path, *overrides: str) -> pd.DataFrame:
    chosen = ["ood_method=none", "protection=none", "runs=600", "fault_model.bits=[28,30]"]
    cfg = composed([f"outputs={folder}", *chosen, *overrides], ROOT / "conf")
    cell = run_cell(cell_settings(cfg), resolved(cfg))
    parts = [pq.read_table(path) for path in sorted(cell.glob("part-*.parquet"))]
    return pa.concat_tables(parts).to_pandas()


def test_a_campaigns_table_is_that_of_its_rows(groups: Path, tmp_path: Path) -> None:
    rows = campaign(tmp_path, "outcome=scm", f"outcome.groups={groups}")
    flags = [rule(r.golden_class, r.faulty_class) and r.sdc for r in rows.itertuples()]
    assert (rows["scm"] == flags).all()
    (cell,) = Campaign.load(tmp_path / "campaign").cells.to_dict("records")
    assert cell["scm_failures"] == cell["scm_of_sdc_failures"] == rows["scm"].sum() > 0
    assert cell["sdc_failures"] == rows["sdc"].sum() > rows["scm"].sum()
    text = write_report(tmp_path / "campaign")
    assert "SCMs among SDCs" in text


def test_another_file_of_groups_does_not_continue_a_cell(groups: Path, tmp_path: Path) -> None:
    campaign(tmp_path, "outcome=scm", f"outcome.groups={groups}")
    moved = written(tmp_path / "moved.csv", rows_of())
    campaign(tmp_path, "outcome=scm", f"outcome.groups={moved}")  # the same content
    other = written(tmp_path / "other.csv", [*rows_of()[:-1], "7,wide,A"])
    with pytest.raises(ProgipError, match="groups_sha256"):
        campaign(tmp_path, "outcome=scm", f"outcome.groups={other}")


def test_what_does_not_fit_is_refused(groups: Path, tmp_path: Path) -> None:
    with pytest.raises(ProgipError, match=r"outcome 'scm' needs a file of class groups: gr"):
        campaign(tmp_path, "outcome=scm")
    with pytest.raises(ProgipError, match="reference='label' is not one of golden, truth"):
        campaign(tmp_path, "outcome=scm", f"outcome.groups={groups}", "outcome.reference=label")
    assert not list(tmp_path.rglob("*.parquet"))
