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

"""Why a component of a bundle cannot be built, in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import monai

# packages that pip knows under another name than Python
PIP_NAMES = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "pytorch3dunet": "pytorch-3dunet",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


@contextmanager
def bundle_errors(bundle: Path, identifier: str) -> Iterator[None]:
    """
    Errors in its block name the component, the reason and the remedy.

    MONAI hides a package that is missing, and an argument that it no longer has, behind "Failed to instantiate
    component" and a chain of causes.

    Args:
        bundle: the folder of the bundle.
        identifier: id of the component, as ``network_def``.

    Raises:
        ImportError: when a package is missing.
        ValueError: for every other reason.
    """
    try:
        yield
    except Exception as error:  # an expression may do anything
        raise _explained(error, bundle, identifier) from error


def root_cause(error: BaseException) -> BaseException:
    """The first error of a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _explained(error: Exception, bundle: Path, identifier: str) -> Exception:
    root = root_cause(error)
    what = f"`{identifier}` of {bundle.name}"
    package = _missing_package(root)
    if package:
        pip = PIP_NAMES.get(package, package)
        return ImportError(f"{what} must be built with the package {package}, which is missing; pip install {pip}.")
    argument = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(root))
    if argument:
        return ValueError(
            f"{what} must fit MONAI {monai.__version__.partition('+')[0]}, but got the argument `{argument[2]}`, which "
            f"{argument[1]} does not have (any more); give the block without it: override={{{identifier!r}: {{...}}}}."
        )
    reason = " ".join(str(root).split())[:300]
    return ValueError(
        f"{what} must be readable on this machine, but got {type(root).__name__}: {reason}; change what fails by an "
        "override."
    )


def _missing_package(error: BaseException) -> str:
    """The package that an error asks for, or an empty text."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return error.name.partition(".")[0]
    named = re.search(r"required package `(\w+)`|No module named '(\w+)", str(error))
    return next(filter(None, named.groups()), "") if named else ""
