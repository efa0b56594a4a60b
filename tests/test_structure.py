"""The house: no circle of files, nothing below the report that renders, no room too long."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"
RENDERERS = ("jinja2", "matplotlib", "tabulate", "progip.report")
LONGEST = 300  # lines; 80 to 200 are wished for


def modules() -> dict[str, Path]:
    found = {}
    for path in (SOURCE / "progip").rglob("*.py"):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path) -> set[str]:
    """Every name a file imports, wherever in it: ``from a import b`` gives a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def graph() -> dict[str, set[str]]:
    """By module the modules it imports; a package is imported only where nothing in it is."""
    known = modules()
    edges = {}
    for name, path in known.items():
        found = (imported(path) & known.keys()) - {name}
        edges[name] = {m for m in found if not any(o.startswith(f"{m}.") for o in found)}
    return edges


def test_no_circle_of_files() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_a_circle_would_be_found() -> None:
    edges = graph()
    assert "progip.analysis.campaign" in edges["progip.analysis.comparing"]
    edges["progip.analysis.campaign"].add("progip.analysis.comparing")
    with pytest.raises(CycleError):
        TopologicalSorter(edges).prepare()


@pytest.mark.parametrize("room", ["analysis", "storage", "statistics", "campaign", "engine"])
def test_nothing_below_the_report_renders(room: str) -> None:
    for name, path in modules().items():
        if name.startswith(f"progip.{room}"):
            wrong = [i for i in imported(path) if i.startswith(RENDERERS)]
            assert not wrong, name


def test_no_module_is_too_long() -> None:
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()
    }
    assert {name: n for name, n in lines.items() if n > LONGEST} == {}
