"""Which code a folder's rows were made by: the classes of its cell and what these import.

Counted are the source files of a cell's own classes (model, method, fault model, ...), of the
network's layers, and, for code that is neither of progip nor installed, of all that it imports.
Installed packages and the rest of progip are in the manifest by version and commit.
"""

import ast
import hashlib
import importlib.util
import inspect
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from progip.described import Described

PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED_PARTS = {"site-packages", "dist-packages"}
_INSTALLED = [
    Path(folder).resolve()
    for folder in (
        *(sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")),
        site.getusersitepackages(),
    )
]

#: name -> the module when it was first looked at, its spec then, what its source said
_seen: dict[str, tuple[object, object, tuple[str, frozenset[str]]]] = {}


def code_identity(
    components: Mapping[str, object], layers: Iterable[object] = ()
) -> dict[str, dict[str, str]]:
    """What a manifest says of the code of a cell.

    Args:
        components: model, method, ... by what they are; None is passed by.
        layers: the modules of the network.

    Returns:
        ``classes``: the class of each component; ``modules``: sha256 by name of each module that
        counts, over what its source says: comments, docstrings and layout do not matter.
    """
    own = {kind: type(thing) for kind, thing in components.items() if thing is not None}
    return {
        "classes": {kind: f"{cls.__module__}.{cls.__qualname__}" for kind, cls in own.items()},
        "modules": digests((thing for thing in components.values() if thing is not None), layers),
    }


def digests(components: Iterable[object], layers: Iterable[object] = ()) -> dict[str, str]:
    """sha256 by module of the source of these objects' classes, and of what users' modules import.

    A module is read once a process and import: what counts is the code that runs, not what its
    file was edited to since.
    """
    waiting: set[str] = set()
    for component, things in ((True, components), (False, layers)):
        for cls in {type(thing) for thing in things}:
            waiting.update(_modules_of(cls, component))
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        digest, imports = _source(name)
        found[name] = digest
        waiting |= {other for other in imports if other not in found and _is_users(other)}
    return dict(sorted(found.items()))


def source_file(name: str) -> Path | None:
    """Where the source of a module is, imported or not; None where there is no file."""
    module = sys.modules.get(name)
    if module is not None:
        file = getattr(module, "__file__", None)
        return Path(file).resolve() if isinstance(file, str) and Path(file).is_file() else None
    top, *below = name.split(".")
    try:
        spec = importlib.util.find_spec(top)  # of a top-level name: imports nothing
    except (ImportError, ValueError):
        return None
    if spec is None or not below:
        return Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *below)
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                return file.resolve()
    return None


def _modules_of(cls: type, component: bool) -> Iterator[str]:
    """The modules of a class and of those it inherits from, as far as they count.

    Abstract classes of progip are its engine, not the cell's; of what is installed, a component's
    own class counts.
    """
    for base in cls.__mro__:
        name = base.__module__
        counts = _is_users(name) or (
            _is_own(name) and not inspect.isabstract(base) and base is not Described
        )
        if counts or (component and base is cls and source_file(name) is not None):
            yield name


def _is_own(name: str) -> bool:
    file = source_file(name)
    return file is not None and PACKAGE in file.parents


def _is_users(name: str) -> bool:
    """Whether a module is neither of progip nor of the standard library nor installed."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        return False
    file = source_file(name)
    return (
        file is not None
        and not _INSTALLED_PARTS & set(file.parts)
        and not any(folder in file.parents for folder in (PACKAGE, *_INSTALLED))
    )


def _source(name: str) -> tuple[str, frozenset[str]]:
    """sha256 of what a module's source says, and the names of the modules it imports."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)  # another one after importlib.reload
    if name in _seen and _seen[name][0] is module and _seen[name][1] is spec:
        return _seen[name][2]
    file = source_file(name)
    content = file.read_bytes() if file else b""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # a compiled extension
        result = hashlib.sha256(content).hexdigest(), frozenset[str]()
    else:
        package = name if file and file.stem == "__init__" else name.rpartition(".")[0]
        digest = hashlib.sha256("\n".join(_said(tree)).encode("utf-8", "surrogatepass"))
        result = digest.hexdigest(), frozenset(_imports(tree, package))
    if module is not None:
        _seen[name] = (module, spec, result)
    return result


def _said(node: Any) -> Iterator[str]:
    """What a syntax tree says, the same under every version of Python that can read it."""
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            if isinstance(node, ast.Constant) and name == "value":
                yield f"{type(value).__name__} {value!a}"
            elif isinstance(node, ast.JoinedStr):  # Python 3.12 adds empty strings to some
                yield from _said([part for part in value if not _is_string(part, "")])
            elif value not in (None, []):  # a newer Python's fields are empty for older code
                yield name
                yield from _said(value)
        yield ")"
    elif isinstance(node, list):
        for item in node:
            # a string that stands alone: a docstring, or as good as a comment
            if not (isinstance(item, ast.Expr) and _is_string(item.value)):
                yield from _said(item)
        yield "]"
    else:
        yield ascii(node)


def _is_string(node: ast.AST, value: str | None = None) -> bool:
    found = node.value if isinstance(node, ast.Constant) else None
    return isinstance(found, str) and value in (None, found)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The modules that are imported anywhere in a source, in functions, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                first = len(parts) if alias.asname else 1
                yield from (".".join(parts[:end]) for end in range(first, len(parts) + 1))
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if source_file(inner) else base
