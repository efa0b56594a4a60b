"""A wheel in an environment of its own, outside the checkout: what a new user types first."""

import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from progip.launching.launched import job_of, sweep_of

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    *("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"),
    *("src", "conf", "campaigns"),
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, without the network."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, copy / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(copy / "dist"), str(copy)], check=True, timeout=240)
    (found,) = (copy / "dist").glob("progip-*.whl")
    return found


@pytest.fixture(scope="module")
def progip(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of the wheel; what it needs is taken from the environment of the tests."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = home / "lib" / version / "site-packages"
    target = ["--target", str(packages), str(wheel)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, *target], check=True, timeout=240)
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    script = home / "bin/progip"
    made_for, _, rest = (packages / "bin/progip").read_text().partition("\n")
    assert made_for.startswith("#!")
    script.write_text(f"#!{home}/bin/python\n{rest}")
    script.chmod(0o755)
    return script


def call(command: Path, folder: Path, *words: str) -> str:
    unwanted = ("PYTHONPATH", "PROJECT_ROOT", "HYDRA_FULL_ERROR")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    done = subprocess.run(
        [str(command), *words], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_holds_the_configuration_of_the_checkout(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for folder in ("conf", "campaigns"):
            held = {name: archive.read(name) for name in archive.namelist()}
            walked = os.walk(ROOT / folder, followlinks=True)  # ood_dataset is a link to dataset
            files = [Path(here) / name for here, _, names in walked for name in names]
            here = {f"progip/{p.relative_to(ROOT).as_posix()}": p.read_bytes() for p in files}
            assert here.items() <= held.items()
            assert {n for n in held if n.startswith(f"progip/{folder}/")} == set(here)
        assert {n for n in held if "/template/" in n} == {
            "progip/commands/template/campaigns/first.yaml",
            "progip/commands/template/conf/model/mine.yaml",
            "progip/commands/template/my_network.py",
        }


def test_what_a_new_user_types_first(progip: Path, tmp_path: Path) -> None:
    assert "progip run --config-name first" in call(progip, tmp_path, "init")
    few = ["runs=10", "batch_size=8", "dataset.limit=260"]
    call(progip, tmp_path, "run", *few)
    (cell,) = tmp_path.glob("outputs/campaign/*/*/*/progip")
    assert (cell / "run.log").exists()
    job = job_of(cell)
    assert job is not None
    assert job.command == f"progip run {' '.join(few)}"
    # its campaign with its network, narrowed; the network is not trained here
    own = ["model=mine", "model.weights=random", "pass=first_forward", "population=id"]
    own += ["protection=progip"]
    told = call(progip, tmp_path, "run", "--config-name", "first", *few, *own)
    assert told.count("10 runs in ") == 1
    sweep = sweep_of(tmp_path / "outputs/first")
    assert sweep is not None
    assert sweep.command.startswith("progip run --config-name first runs=10")
    assert "1 of 1 cells finished, 10 of 10 runs done" in call(
        progip, tmp_path, "report", "outputs/first"
    )
    assert (tmp_path / "outputs/first/report/report.html").exists()
