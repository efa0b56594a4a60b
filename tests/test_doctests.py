"""The examples in docstrings of public functions give what they show."""

import doctest
import importlib
import pkgutil

import pytest

import progip.report.formats
import progip.statistics

MODULES = [
    *(f"progip.statistics.{m.name}" for m in pkgutil.iter_modules(progip.statistics.__path__)),
    progip.report.formats.__name__,
]
#: those whose functions a user calls
WITH_EXAMPLES = {"intervals", "comparison", "roc", "sizing", "sequential", "formats"}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0
    assert (found.attempted > 0) >= (name.rpartition(".")[2] in WITH_EXAMPLES)
