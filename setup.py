"""The step of the build that pyproject.toml cannot say: the page's third-party files are placed, then packed."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent / "page"))
import place


class WithPage(build_py):
    """build_py, after the page has its files. An editable install leaves them to ``make page``."""

    def run(self) -> None:
        """Place what is missing, then build."""
        if not self.editable_mode:
            try:
                place.place()
            except place.NotPlaced as error:
                raise SystemExit(f"The page of 'rasr serve' lacks third-party files: {error}") from error
        super().run()


setup(cmdclass={"build_py": WithPage})
