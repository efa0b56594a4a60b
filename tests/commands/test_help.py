"""What ``--help`` says, and what ``progip init`` writes or refuses to."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from progip.cli import main, parser
from progip.commands import init
from progip.commands.run_help import ELSEWHERE, wanted_help
from progip.config import composed
from progip.errors import ProgipError

ROOT = Path(__file__).resolve().parents[2]


def test_help_shows_every_key_with_its_comment_every_group_and_campaign() -> None:
    text = wanted_help(["run.py", "--help"])
    assert text is not None
    config = (ROOT / "conf/config.yaml").read_text()
    for line in config[config.index("\nname:") : config.index("\n# the folder")].splitlines():
        assert line.rstrip() in text
    for group in (ROOT / "conf").iterdir():
        if group.is_dir() and group.name not in ELSEWHERE:
            assert re.search(rf"^  {group.name} +\w", text, re.M)
            assert all(re.search(rf"\b{path.stem}\b", text) for path in group.glob("*.yaml"))
    for path in (ROOT / "campaigns").glob("*.yaml"):
        assert re.search(rf"^  {path.stem}  +\w", text, re.M)


def test_help_of_one_group_shows_the_options_of_its_choices() -> None:
    text = wanted_help(["progip run", "protection", "-h"])
    assert text is not None
    assert "protection=progip\n" in text
    assert (ROOT / "conf/protection/progip.yaml").read_text().splitlines()[0] in text
    with pytest.raises(ProgipError, match=r"--help protections: no such group\. There are: cond"):
        wanted_help(["run.py", "--help", "protections"])
    assert wanted_help(["run.py", "runs=3"]) is None


def test_every_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.search(r"\{([a-z,-]+)\}|COMMAND", parser().format_usage())
    assert commands
    text = parser().format_help()
    names = re.findall(r"^    ([a-z-]+)", text, re.M)
    assert {"run", "init", "report", "status", "replay", "train", "runtime"} <= set(names)
    for name in set(names) - {"run"}:
        with pytest.raises(SystemExit) as ended:
            parser().parse_args([name, "--help"])
        assert ended.value.code == 0
        told = capsys.readouterr().out
        assert re.search(r"\n\n[A-Z][^\n]+", told), name  # a sentence after the usage


def test_progip_run_is_handed_to_hydra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["progip", "run", "--help", "pass"])
    main()
    assert "pass=backward" in capsys.readouterr().out


@pytest.mark.parametrize("program", ["python run.py", "progip run"])
def test_the_shell_completes(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, script = program.split()
    words = [sys.executable, *(["run.py"] if script == "run.py" else ["-m", "progip"])]
    monkeypatch.setenv("COMP_LINE", f"{program} protection=rang")
    query = [*words, "-sc", "query=bash"]
    found = subprocess.run(query, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "protection=ranger_clip" in found.split()


def test_a_beginning_composes_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = init.write(tmp_path / "new")
    assert f"cd {tmp_path}/new" in told
    monkeypatch.chdir(tmp_path / "new")
    monkeypatch.delenv("PROJECT_ROOT", raising=False)
    cfg = composed(["model=mine"], campaign="first")  # conf and campaigns of this folder are found
    assert (cfg.name, cfg.runs, cfg.model.name) == ("first", 200, "mine")
    assert cfg.outputs == "./outputs"
    swept = yaml.safe_load(Path("campaigns/first.yaml").read_text())["hydra"]["sweeper"]["params"]
    cells = 1
    for values in swept.values():
        cells *= len(str(values).split(","))
    assert f"{cells} cells" in told
    Path("my_network.py").write_text("mine")
    with pytest.raises(ProgipError, match=r"my_network.py: already there, so nothing is written"):
        init.write(Path())
    assert Path("my_network.py").read_text() == "mine"


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_shell_completes_choices(shell: str) -> None:
    line = "python run.py protection=progip"
    found = subprocess.run(
        [sys.executable, "run.py", "-sc", f"query={shell}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))},
    )  # fmt: skip
    there = sorted(path.stem for path in (ROOT / "conf/protection").glob("progip*.yaml"))
    assert found.stdout.split() == [f"protection={name}" for name in there]
    # Hydra's function for fish completes a script only where it finds this
    assert "@hydra.main" in (ROOT / "run.py").read_text()
