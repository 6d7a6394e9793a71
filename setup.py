"""What is installed: zfjax, and in a checkout that is installed with `pip install -e` its experiments too."""

import sys

from setuptools import find_packages, setup

ROOMS = ["zfjax*", "experiments*"] if "editable_wheel" in sys.argv else ["zfjax*"]

setup(packages=find_packages(include=ROOMS))
