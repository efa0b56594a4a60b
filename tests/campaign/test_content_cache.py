import importlib
from pathlib import Path

import pytest

from progip.storage import content_cache
from progip.storage.content_cache import code_digest

METHOD = """
class Mine:
    def score(self):
        return {}
"""


def test_an_edited_class_does_not_meet_what_its_former_self_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "my_method_of_the_cache.py"
    source.write_text(METHOD.format(1))
    module = importlib.import_module(source.stem)
    before = code_digest([module.Mine(), None])
    assert before == code_digest([None, module.Mine()]) != code_digest([])
    assert before == code_digest([], [module.Mine()])
    source.write_text(METHOD.format(2))
    assert code_digest([module.Mine()]) == before  # what runs is what was imported
    assert code_digest([importlib.reload(module).Mine()]) != before


def test_only_code_that_computes_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("engine", "report"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "module.py").write_text("a = 1")
    for name in content_cache.COMPUTING:
        if name.endswith(".py"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("a = 1")
    monkeypatch.setattr(content_cache, "PACKAGE", tmp_path)
    before = code_digest([])
    (tmp_path / "report/module.py").write_text("a = 2")
    assert code_digest([]) == before
    (tmp_path / "engine/module.py").write_text("a = 2")
    edited = code_digest([])
    assert edited != before
    (tmp_path / "batch_axis.py").write_text("a = 2")
    assert code_digest([]) != edited
