"""Build step: an installed wheel carries the data manifests, which lie beside the package in a checkout."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = "data_manifests"


class BuildWithManifests(build_py):
    """Copies `data_manifests/*.yaml` into the built package (`rfdetr.sources.shipped_folder` finds them)."""

    def run(self) -> None:
        """Build the package, then add the manifests; an editable install reads those of the checkout."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "rfdetr" / SHIPPED
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted((Path(__file__).parent / SHIPPED).glob("*.yaml")):
            shutil.copyfile(path, target / path.name)


setup(cmdclass={"build_py": BuildWithManifests})
