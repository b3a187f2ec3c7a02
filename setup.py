"""Packaging of keras_made."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"', (HERE / "keras_made" / "__init__.py").read_text(), re.M
).group(1)

EXPORT = ["ai-edge-litert>=2.1", "onnxruntime>=1.20", "tf2onnx>=1.16"]
TABLES = ["pandas>=2", "scikit-learn>=1.6"]
EXAMPLES = [
    "fastapi>=0.110",
    "matplotlib>=3.8",
    *TABLES,
    "tensorboard>=2.18",
    "uvicorn>=0.29",
]
DOCS = [
    *EXAMPLES,
    "furo>=2024.8.6",
    "myst-nb>=1.3",
    "sphinx>=8",
    "sphinx-copybutton>=0.5",
    "sphinx-design>=0.6",
]

setup(
    name="keras_made",
    version=VERSION,
    description="Autoregressive density estimation in Keras 3, built around MADE",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["keras_made", "keras_made.*"]),
    package_data={"keras_made": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "keras>=3.12",
        "numpy>=1.26",
        "tensorflow>=2.20",
        "tensorflow-probability[tf]>=0.25",
    ],
    extras_require={
        "docs": DOCS,
        "examples": EXAMPLES,
        "export": EXPORT,
        "tables": TABLES,
        "test": ["pytest>=8", "pytest-xdist>=3.5", *EXAMPLES, *EXPORT],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
