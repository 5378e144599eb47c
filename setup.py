"""Puts what ships beside the code (llava/common/shipped.py) into the wheel. All else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("configs", "playground/tiny-llava")


class BuildWithShippedFiles(build_py):
    def run(self) -> None:
        if self.editable_mode:  # the checkout itself is used
            super().run()
            return
        target = Path(self.build_lib)
        # an earlier build's files, which may have been moved or removed since
        for package in {name.partition(".")[0] for name in self.packages or ()}:
            shutil.rmtree(target / package, ignore_errors=True)
        super().run()
        for folder in SHIPPED:
            shutil.copytree(folder, target / "llava" / "shipped" / folder)


setup(cmdclass={"build_py": BuildWithShippedFiles})
