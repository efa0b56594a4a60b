"""What pyproject.toml cannot say: a wheel holds the folders conf and campaigns of the checkout."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfiguration(build_py):
    """Copies both folders into the package; an editable installation uses those of the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in ("conf", "campaigns"):
            target = Path(self.build_lib) / "progip" / name
            shutil.rmtree(target, ignore_errors=True)  # files of an earlier build
            shutil.copytree(name, target, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithConfiguration})
