"""``progip artefact``: all that another person needs to execute a campaign again, in one file."""

import argparse
import hashlib
import io
import json
import os
import platform
import tarfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from progip.analysis.manifests import CellFolder, correction_of, find_cells
from progip.errors import ProgipError
from progip.launching.launched import job_of, sweep_of
from progip.report.rendering.csvs import replace_file
from progip.report.writing import write_report
from progip.storage import provenance, store
from progip.storage.reading import read_columns

CHECKSUMS = "checksums.json"
RESULTS = "results"
#: of a checkout, what a container needs to install it
_SOURCE = (
    *("pyproject.toml", "setup.py", "MANIFEST.in", "constraints.txt"),
    *("README.md", "LICENSE", "CITATION.cff", "run.py"),
)
_SOURCE_FOLDERS = ("src", "conf", "campaigns")
_CONTAINER = """\
# docker build -t {name} -f Containerfile . && docker run --rm {name}
FROM python:{python}-slim
WORKDIR /artefact
COPY . .
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu -c environment.txt ./source
CMD ["python", "-m", "progip", "reproduce", "/artefact"]
"""
_README = """\
# Artefact of the fault-injection campaign {name}
{cells} cells, {runs:,} runs, made by progip {version} (commit {commit}).

- `results/`: every row (Parquet), with faults and without, each cell's manifest, `report/` with
  tables, figures and page
- `commands.txt`: what made them; `environment.txt`, `machine.json`: with which packages, on what
- `source/`: progip as it was here, with its configuration; `Containerfile`: a recipe with both
- `checksums.json`: sha256 of every file; `CITATION.cff`: how to cite

Execute it again and compare:

    python -m progip reproduce ARCHIVE

says of the rows and of every table "reproduced" or "differs". Data and weights that progip does not
bring itself are named by fingerprint in the manifests and are not in here: put them where the
configuration in the manifests looks for them. Rows recur bit for bit on the same kind of processor
with the same packages and number of threads; elsewhere rounding may differ.
"""


def add(commands: Any) -> None:
    """Make the command known."""
    sub = commands.add_parser("artefact", help=artefact.__doc__, description=artefact.__doc__)
    sub.add_argument("folder", type=Path, help="a finished campaign's folder")
    sub.add_argument("--out", type=Path, help="default: FOLDER-artefact.tar.gz beside the folder")
    sub.set_defaults(action=artefact)


def artefact(arguments: argparse.Namespace) -> None:
    """Write an archive of a campaign that another person can execute again and compare."""
    folder = arguments.folder
    out = arguments.out or folder.resolve().with_name(f"{folder.resolve().name}-artefact.tar.gz")
    files = contents(folder)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder.resolve().name}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    try:
        replace_file(out, buffer.getvalue())
    except OSError as error:
        raise ProgipError(f"cannot write {out} ({error.strerror or error}); give --out") from error
    print(
        f"{len(files)} files, {len(buffer.getvalue()) / 2**20:.1f} MiB, in {out}\n"
        f"whoever has it: python -m progip reproduce {out.name}"
    )


def contents(folder: Path) -> dict[str, bytes]:
    """The files of an artefact by name.

    Raises:
        ProgipError: a cell is not finished, or there is no campaign.
    """
    cells = find_cells(folder)
    for cell in cells:
        done = sum(len(read_columns(shard, ["run_id"])) for shard in cell.shards)
        if done < cell.manifest["runs"]:
            raise ProgipError(
                f"{cell.name} holds {done:,} of {cell.manifest['runs']:,} planned runs; finish the "
                f"campaign first (python -m progip status {folder})"
            )
    write_report(folder, allow_mixed=True)
    files: dict[str, bytes] = {}
    for cell in cells:
        golden = store.execution_folder(cell.path, correction_of(cell) or None)
        clean = (cell.path / store.CLEAN, golden / store.CLEAN, golden / store.UNPERTURBED)
        for path in (cell.path / "manifest.json", *cell.shards, *filter(Path.exists, clean)):
            files[f"{RESULTS}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    for path in sorted((folder / "report").iterdir()):
        if path.is_file() and not path.name.startswith("."):
            files[f"{RESULTS}/report/{path.name}"] = path.read_bytes()
    root = Path.cwd()
    files |= source(root)
    name = folder.resolve().name
    python = ".".join(platform.python_version_tuple()[:2])
    texts = {
        "README.md": _README.format(
            name=name,
            cells=len(cells),
            runs=sum(int(cell.manifest["runs"]) for cell in cells),
            version=provenance.versions()["progip"],
            commit=provenance.commit(),
        ),
        "commands.txt": "\n".join(commands_of(folder, cells)) + "\n",
        "environment.txt": "\n".join(packages()) + "\n",
        "machine.json": json.dumps(
            [made for cell in cells[:1] for made in cell.manifest.get("made_by", [])], indent=1
        ),
        "Containerfile": _CONTAINER.format(name=name.lower(), python=python),
    }
    files |= {key: text.encode() for key, text in texts.items()}
    if (root / "CITATION.cff").exists():
        files["CITATION.cff"] = (root / "CITATION.cff").read_bytes()
    sums = {key: hashlib.sha256(content).hexdigest() for key, content in sorted(files.items())}
    files[CHECKSUMS] = json.dumps(sums, indent=1).encode()
    return files


def commands_of(folder: Path, cells: list[CellFolder]) -> list[str]:
    """What made the cells: the last sweep, and the command of each cell that is not its own."""
    sweep = sweep_of(folder)
    jobs = [job for cell in cells if (job := job_of(cell.path))]
    if sweep is None:
        return list(dict.fromkeys(job.command for job in jobs))
    return [sweep.command, *(job.command for job in jobs if not job.is_in(sweep.jobs))]


def packages() -> list[str]:
    """Every installed package with its version, as a constraints file, without progip itself."""
    found = {d.metadata["Name"]: d.version for d in distributions()}
    return [f"{name}=={found[name]}" for name in sorted(found, key=str.lower) if name != "progip"]


def source(root: Path) -> dict[str, bytes]:
    """The checkout's files that a container installs; none where this is no checkout."""
    if not (root / "pyproject.toml").exists() or not (root / "conf").is_dir():
        return {}
    paths = [root / name for name in _SOURCE if (root / name).is_file()]
    for name in _SOURCE_FOLDERS:
        for folder, _, names in os.walk(root / name, followlinks=True):  # conf/ood_dataset is one
            paths += [Path(folder) / file for file in sorted(names)]
    return {
        f"source/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in paths
        if "__pycache__" not in path.parts and ".egg-info" not in str(path)
    }
