"""Puts what ships beside the code (llava/common/shipped.py) into the wheel. All else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("configs", "playground/tiny-llava")


class BuildWithShippedFiles(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the checkout itself is used
            return
        target = Path(self.build_lib) / "llava" / "shipped"
        shutil.rmtree(target, ignore_errors=True)
        for folder in SHIPPED:
            shutil.copytree(folder, target / folder)


setup(cmdclass={"build_py": BuildWithShippedFiles})
