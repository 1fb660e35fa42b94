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

"""What every file of a volume must be, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.config import DtypeLike


def check_affine(affine: np.ndarray) -> None:
    """
    Refuse an affine that is no map from voxels to space.

    Args:
        affine: (4, 4).

    Raises:
        ValueError: when it is not finite or not invertible.

    Example::

        >>> check_affine(np.eye(4))
    """
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise ValueError(f"the affine must be finite and invertible, but got {affine[:3].tolist()}; repair the header.")


def check_axes(shape: Sequence[int]) -> None:
    """
    Refuse a shape that is not that of a volume.

    Raises:
        ValueError: when it has not three axes of one voxel or more.

    Example::

        >>> check_axes((4, 5, 6))
    """
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"it must have three axes, but got the shape {tuple(shape)}; write one volume as a file.")


def check_numbers(found: str) -> None:
    """
    Refuse voxels that are something else than one real number.

    Args:
        found: what they are; empty where they are right.

    Raises:
        ValueError: when it is not empty.

    Example::

        >>> check_numbers("")
    """
    if found:
        raise ValueError(f"it must hold one real number a voxel, but got {found}; convert it to a volume of numbers.")


def check_fits(values: np.ndarray, dtype: DtypeLike) -> None:
    """
    Refuse values that an integer type would cut off or wrap around, as NumPy does in silence.

    Args:
        values: of any type.
        dtype: the type that they are to have; nothing is refused where it is no integer type.

    Raises:
        ValueError: when it cannot hold them.

    Example::

        >>> check_fits(np.array([0, 1.5]), np.uint8)
        Traceback (most recent call last):
        ...
        ValueError: its values must be whole numbers from 0 to 255, as uint8 holds, but got 1.5; choose another `dtype`.
    """
    kind = np.dtype(dtype) if dtype is not None else values.dtype
    if kind.kind not in "iu" or np.can_cast(values.dtype, kind):
        return
    limits = np.iinfo(kind)
    wrong = ~((values >= limits.min) & (values <= limits.max))  # also what is not a number
    if values.dtype.kind == "f":
        wrong |= values != np.rint(values)
    if wrong.any():
        raise ValueError(
            f"its values must be whole numbers from {limits.min} to {limits.max}, as {kind.name} holds, but got "
            f"{values[wrong][0]:g}; choose another `dtype`."
        )


def check_size(found: int, needed: int, section: int) -> None:
    """
    Refuse a file that is too short, or longer by a section of the volume or more: its header says too little. A few
    bytes behind the voxels are filling.

    Args:
        found: bytes of the file.
        needed: bytes that its header says.
        section: bytes of a section.

    Raises:
        ValueError: when they do not agree.

    Example::

        >>> check_size(1000, 990, 100)
    """
    if found < needed:
        raise ValueError(f"it is truncated, it must hold {needed} bytes, but got {found}; copy it once more.")
    if found >= needed + section:
        raise ValueError(
            f"it must hold the {needed} bytes that its header says, but got {found}; "
            "write it anew with the shape and data type that it has."
        )


def reason_of(error: Exception) -> str:
    """
    Why a file cannot be read, on one line with a remedy: the last line of an error is its cause.

    Example::

        >>> reason_of(RuntimeError("itk::ERROR:\\nunknown header"))
        'unknown header; copy it once more, or convert it.'
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[-1].strip()
    return reason if "; " in reason else f"{reason.rstrip('.')}; copy it once more, or convert it."
