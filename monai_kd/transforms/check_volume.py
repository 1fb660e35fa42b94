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

"""Refusing a volume file that is damaged, or no volume."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_kd.transforms.check_itk import check_itk
from monai_kd.transforms.check_nifti import NIFTI, check_nifti


def check_volume(path: Path, whole: bool = True) -> None:
    """
    Refuse a volume file (NIfTI, NRRD, MetaImage) that cannot be read right.

    Args:
        path: the file.
        whole: whether to read compressed data to the checksum, once in a process for a file of one size and time.

    Raises:
        ValueError: when its header cannot be read or has to be repaired, when it has not three axes or one real number
            a voxel, when its affine is not invertible, and when it is damaged or truncated.

    Example::

        >>> import nibabel, os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "ct.nii")
        >>> nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5), np.int16), np.eye(4)), file)
        >>> check_volume(Path(file))
        Traceback (most recent call last):
        ...
        ValueError: it must have three axes, but got the shape (4, 5); write one volume as a file.
    """
    if path.name.lower().endswith(NIFTI):
        check_nifti(path, whole)
    else:
        check_itk(path, whole)


def check_grids(
    image_shape: Sequence[int],
    image_affine: np.ndarray,
    label_shape: Sequence[int],
    label_affine: np.ndarray,
    same_affine: bool = True,
) -> None:
    """
    Refuse a label that does not lie where its image lies.

    Args:
        image_shape: voxels of the image along each axis.
        image_affine: its (4, 4) affine.
        label_shape: voxels of the label.
        label_affine: its affine.
        same_affine: whether the affines must agree to 1e-3 mm.

    Raises:
        ValueError: when they differ.

    Example::

        >>> check_grids((4, 5, 6), np.eye(4), (5, 4, 6), np.eye(4))
        Traceback (most recent call last):
        ...
        ValueError: the label must have the image's shape, but got (5, 4, 6) and (4, 5, 6).
    """
    shapes = [tuple(int(size) for size in shape) for shape in (label_shape, image_shape)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the label must have the image's shape, but got {shapes[0]} and {shapes[1]}.")
    if same_affine and not np.allclose(image_affine, label_affine, atol=1e-3):
        affines = [np.round(affine[:3], 3).tolist() for affine in (label_affine, image_affine)]
        raise ValueError(
            f"the label must have the image's affine, but got {affines[0]} and {affines[1]}; "
            'if the arrays correspond all the same, pass `geometry_key="image"`'
        )


def check_one_place(
    data: Mapping[Hashable, Any],
    grids: Mapping[Hashable, tuple[Sequence[int], np.ndarray]],
    same_affine: bool = True,
) -> None:
    """
    Refuse an item whose label does not lie where its image lies, by the names of their files.

    Args:
        data: the files, by key.
        grids: shape and affine of what they hold, the image first.
        same_affine: see :py:func:`check_grids`.

    Raises:
        ValueError: when they differ.

    Example::

        >>> check_one_place({"image": "a.nii"}, {"image": ((4, 5, 6), np.eye(4))})
    """
    image, *labels = grids
    for label in labels:
        try:
            check_grids(*grids[image], *grids[label], same_affine)
        except ValueError as error:
            raise ValueError(f"{str(error).rstrip('.')} ({data[image]}, {data[label]}).") from error
