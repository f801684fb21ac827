"""What pyproject.toml cannot say: configs/ is shipped inside the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["flax_transformer*"]), "flax_transformer.configs"],
    package_dir={"flax_transformer.configs": "configs"},
)
