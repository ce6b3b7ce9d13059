"""Build step of the package: compile the C kernels into it, and tag the wheel as one per platform for every Python.

CC may name a compiler for another system; QUANTCLI_PLATFORM then is the wheel's tag (scripts/build_wheels.py).
QUANTCLI_URL is the repository's address, for the links of a package page.
"""

import os
import re
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))
import build_kernels
import package_page


class BuildWithKernels(build_py):
    """Python files, then the library: beside them, or in the checkout for an editable install."""

    def run(self):
        super().run()
        folder = (ROOT if self.editable_mode else Path(self.build_lib)) / "quantcli" / "_lib"
        if not self.editable_mode:
            shutil.rmtree(folder, ignore_errors=True)  # the library of another platform
        build_kernels.build(folder)


class PlatformWheel(bdist_wheel):
    """No Python headers are used: py3-none-<platform>."""

    def get_tag(self):
        return ("py3", "none", os.environ.get("QUANTCLI_PLATFORM") or super().get_tag()[2])


class PlatformDistribution(Distribution):
    """The wheel holds a library, so it is not pure although there is no extension module."""

    def has_ext_modules(self):
        return True


MAN = ROOT / "build" / "man" / "quantcli.1"  # where `make man` was run before

VERSION = re.search(r'"(.+)"', (ROOT / "quantcli" / "__init__.py").read_text(encoding="utf-8"))[1]
ADDRESS = os.environ.get("QUANTCLI_URL")  # of the repository; who publishes says it
PLACES = {"Documentation": "blob/v{}/README.md", "Changelog": "blob/v{}/CHANGELOG.md", "Issues": "issues"}

setup(
    long_description=package_page.absolute((ROOT / "README.md").read_text(encoding="utf-8"), ADDRESS, f"v{VERSION}"),
    long_description_content_type="text/markdown",
    project_urls={}
    if ADDRESS is None
    else {"Source": ADDRESS, **{name: f"{ADDRESS}/{place.format(VERSION)}" for name, place in PLACES.items()}},
    cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel},
    distclass=PlatformDistribution,
    data_files=[("share/man/man1", [str(MAN.relative_to(ROOT))])] if MAN.exists() else [],
)
