"""Only what pyproject.toml cannot say: a wheel carries the models of Resources/Models inside the library."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithModels(build_py):
    """Copies the models; an editable installation finds them where they are."""

    def run(self) -> None:
        super().run()
        models = Path(__file__).parent / "Resources" / "Models"
        if not self.editable_mode and models.is_dir():
            shutil.copytree(models, Path(self.build_lib, "LKSegmentLib", "Resources", "Models"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithModels})
