"""An archive of a campaign: what is in it, and that both words appear when they should."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_judging_again import command, run

from progip.commands import reproduce
from progip.errors import ProgipError
from progip.storage import store


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a campaign of two cells."""
    folder = tmp_path_factory.mktemp("artefact")
    for protection in ("none", "progip"):
        run(folder, f"protection={protection}", "runs=200")
    from progip.cli import parser

    arguments = parser().parse_args(["artefact", str(folder / "campaign")])
    arguments.action(arguments)
    return folder / "campaign-artefact.tar.gz"


def words_of(said: str) -> dict[str, str]:
    """Of rows and each table, what was said."""
    found = {}
    for line in said.splitlines():
        for word in (reproduce.REPRODUCED, reproduce.DIFFERS):
            if f"  {word}" in line:
                found[line.partition(f"  {word}")[0].strip()] = word
    return found


def test_what_is_in_it(archive: Path) -> None:
    with tarfile.open(archive) as files:
        names = [name.partition("/")[2] for name in files.getnames()]
        read = {name: files.extractfile(f"campaign/{name}").read().decode() for name in (  # type: ignore[union-attr]
            "README.md", "environment.txt", "Containerfile", "CITATION.cff", "machine.json"
        )}  # fmt: skip
    assert sum("/part-" in name for name in names) == 2
    golden = {name.rpartition("/")[2] for name in names if "/_execution/" in name}
    assert golden == {"clean.parquet", "unperturbed.parquet"}
    assert sum(name.endswith("manifest.json") for name in names) == 2
    for name in (
        "results/report/report.html",
        "source/src/progip/cli.py",
        "source/setup.py",
        "source/conf/config.yaml",
        "source/conf/ood_dataset/digits_unseen.yaml",  # of a folder that is a link
    ):
        assert name in names
    assert not any("__pycache__" in name for name in names)
    assert "2 cells, 400 runs" in read["README.md"]
    assert f"pyarrow=={pa.__version__}" in read["environment.txt"].splitlines()
    assert "progip==" not in read["environment.txt"]
    assert '"reproduce"' in read["Containerfile"]
    assert json.loads(read["machine.json"])[0]["hardware"]["cores"]


def test_executed_again_it_is_reproduced(archive: Path, tmp_path: Path, capsys) -> None:
    said = command(capsys, "reproduce", str(archive), "--out", str(tmp_path))
    found = words_of(said)
    assert set(found.values()) == {reproduce.REPRODUCED}
    assert {"rows", "Overall results", "Cells"} <= set(found)
    assert len(list((tmp_path / "campaign").rglob("_execution/part-*"))) == 1  # really executed

    # one outcome of one run changed: rows and the tables that count it differ, others do not
    shard = next(p for p in tmp_path.glob("campaign/**/none/part-*.parquet"))
    table = pq.read_table(shard)
    flags = table["detection_failure"].to_pylist()
    first = flags.index(False)
    right = table["originally_correct"].to_pylist()
    first = next(i for i, flag in enumerate(flags) if not flag and right[i])
    flags[first] = True
    place = table.schema.get_field_index("detection_failure")
    store.write_table(shard, table.set_column(place, table.schema.field(place), pa.array(flags)))
    with pytest.raises(SystemExit) as code:
        command(
            capsys, "reproduce", str(archive), "--out", str(tmp_path / "b"),
            "--against", str(tmp_path / "campaign"),
        )  # fmt: skip
    assert code.value.code == 1
    said = capsys.readouterr().out
    found = words_of(said)
    assert found["rows"] == found["Overall results"] == reproduce.DIFFERS
    assert found["Base metrics without faults"] == reproduce.REPRODUCED
    assert f"detection_failure of run {first}: False and True" in said


def test_a_cell_that_is_not_there_differs(archive: Path, tmp_path: Path, capsys) -> None:
    run(tmp_path, "protection=none", "runs=200")
    with pytest.raises(SystemExit):
        command(
            capsys, "reproduce", str(archive), "--out", str(tmp_path / "b"),
            "--against", str(tmp_path / "campaign"),
        )  # fmt: skip
    assert "progip is not there" in capsys.readouterr().out


def test_what_is_no_artefact_or_was_changed_is_refused(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "text.tar.gz").write_text("text")
    with pytest.raises(ProgipError, match="cannot be unpacked"):
        reproduce.unpacked(tmp_path / "text.tar.gz", tmp_path / "a")
    with tarfile.open(tmp_path / "empty.tar.gz", "w:gz") as files:
        files.addfile(tarfile.TarInfo("x"), io.BytesIO())
    with pytest.raises(ProgipError, match=r"no artefact.*checksums\.json"):
        reproduce.unpacked(tmp_path / "empty.tar.gz", tmp_path / "b")
    folder = reproduce.unpacked(archive, tmp_path / "c")
    (folder / "environment.txt").write_text("torch==1.0\n")
    with pytest.raises(ProgipError, match=r"environment\.txt is not the file"):
        reproduce.unpacked(tmp_path / "c", tmp_path / "d")


def test_an_unfinished_campaign_is_no_artefact(tmp_path: Path, capsys) -> None:
    cell = run(tmp_path, "runs=40", "shard_size=20")
    sorted(cell.glob("part-*"))[0].unlink()
    with pytest.raises(ProgipError, match="holds 20 of 40 planned runs; finish the campaign"):
        command(capsys, "artefact", str(tmp_path / "campaign"))
