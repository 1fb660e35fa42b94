# Copyright (c) monai_kd contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "([^"]+)"', (ROOT / "monai_kd" / "__init__.py").read_text("utf-8"), re.M)
if VERSION is None:
    raise RuntimeError('monai_kd/__init__.py must hold a line `__version__ = "..."`, but has none.')

EXTRAS = {
    "export": ["onnx>=1.16", "onnxscript>=0.5", "onnxruntime>=1.18"],
    "openvino": ["openvino>=2024.6", "nncf>=2.14", "onnx>=1.16", "onnxscript>=0.5"],
    "transformers": ["transformers>=4.46", "safetensors>=0.4"],
    "tracking": ["tensorboard>=2.16", "mlflow>=2.16"],
    "video": ["av>=14.2"],
    "nnunet": ["nnunetv2>=2.6"],
    "dev": [
        "pytest>=8.2",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "einops>=0.8",
        "jsonschema>=4.20",
        "nbformat>=5.10",
        "nbclient>=0.10",
        "ipykernel>=6.29",
        "ruff>=0.9",
        "mypy>=1.14",
        "types-PyYAML>=6",
        "setuptools>=77",
        "wheel>=0.43",
    ],
}

setup(
    name="monai-kd",
    version=VERSION[1],
    description="Knowledge distillation for MONAI: smaller segmentation networks from larger ones",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="monai_kd contributors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    # the bundles lie beside the package, where MONAI's model zoo has them, and are installed inside it
    packages=[*find_packages(include=["monai_kd", "monai_kd.*"]), "monai_kd.bundles"],
    package_dir={"monai_kd.bundles": "bundles"},
    # named one by one, so that weights trained in a checkout (models/, eval/) do not travel
    package_data={
        "monai_kd.bundles": ["*/LICENSE", "*/large_files.yml", "*/configs/*", "*/docs/*"],
        "monai_kd.report": ["*.html.j2"],
    },
    install_requires=[
        "torch>=2.8",
        "monai>=1.6,<2",
        "pytorch-ignite>=0.5.2,<0.6",
        "numpy>=1.26",
        "scipy>=1.11",
        "pyyaml>=6",
        "fire>=0.7",
        "filelock>=3.30",
        "nibabel>=5.2",
        "pydicom>=3.0",
        "itk>=5.4",
        "scikit-image>=0.22",
        "tqdm>=4.66",
        "Jinja2>=3.1",
        "matplotlib>=3.8",
        "pillow>=10",
    ],
    extras_require={**EXTRAS, "all": sorted({requirement for extra in EXTRAS.values() for requirement in extra})},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Healthcare Industry",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
