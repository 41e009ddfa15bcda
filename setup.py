"""The packages of the wheel: those of sparta/, and slurm/ as sparta.slurm. Everything else is said in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["sparta", "sparta.*"]), "sparta.slurm"])
