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

"""Refusing a NIfTI header that readers would repair, each in another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.openers import ImageOpener

from monai_kd.transforms.inflated_size import inflated_size
from monai_kd.transforms.volume_rules import check_affine, check_axes, check_numbers, check_size

NIFTI = (".nii", ".nii.gz")
UNITS = {1: "metres", 3: "micrometres"}
CODES = range(6)  # of NIfTI: unknown, scanner, aligned, Talairach, MNI, template


def check_nifti(path: Path, whole: bool = True) -> None:
    """
    Refuse a NIfTI file that is damaged, or no volume (see :py:func:`monai_kd.transforms.check_volume.check_volume`).

    Args:
        path: the file.
        whole: whether to read compressed data to the checksum.

    Raises:
        ValueError: when it cannot be read right.

    Example::

        >>> check_nifti(Path("ct.nii"))
        Traceback (most recent call last):
        ...
        FileNotFoundError: ...
    """
    compressed = path.name.lower().endswith(".gz")
    found = inflated_size(path) if compressed and whole else path.stat().st_size
    image = open_nifti(path)
    kind = image.get_data_dtype()
    check_numbers("colours" if kind.fields is not None else kind.name if kind.kind == "c" else "")
    shape = list(image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        del shape[-1]
    check_axes(shape)
    check_affine(np.asarray(image.affine))
    if whole or not compressed:
        data = image.dataobj
        section = int(np.prod(shape[:2], dtype=np.int64) * data.dtype.itemsize)
        check_size(found, int(data.offset) + shape[2] * section, section)


def open_nifti(path: Path) -> Any:
    """
    Opens a NIfTI file, whose header must need no repair. What nibabel would repair, or read in another way than ITK,
    with no more than a line of its log: a unit other than mm, an unknown code of the sform or qform, a voxel size of
    zero or below, and a number of bits that is not that of the data type.

    Args:
        path: the file.

    Returns:
        nibabel's image, whose voxels have not been read.

    Raises:
        ValueError: when the header is no header of NIfTI, or one that is refused.

    Example::

        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "ct.nii")
        >>> image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4))
        >>> image.header.set_xyzt_units("meter")
        >>> nibabel.save(image, file)
        >>> open_nifti(Path(file))
        Traceback (most recent call last):
        ...
        ValueError: its unit must be mm, but got metres in `xyzt_units`; scale the affine and write the header anew.
    """
    try:
        image: Any = nibabel.load(path)
        with ImageOpener(str(path)) as stream:
            stored: Any = type(image.header).from_fileobj(stream, check=False)
    except Exception as error:  # nibabel raises errors of many classes on damaged headers
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"its header must be that of a NIfTI file, but got: {reason}; copy it once more.") from error
    _check_stored(stored)
    return image


def _check_stored(header: Any) -> None:
    bits, own = int(header["bitpix"]), 8 * header.get_data_dtype().itemsize
    if bits != own:
        raise ValueError(f"`bitpix` must be that of its data type, {own}, but got {bits}; write the header anew.")
    unit = int(header["xyzt_units"]) & 7
    if unit in UNITS:
        raise ValueError(
            f"its unit must be mm, but got {UNITS[unit]} in `xyzt_units`; scale the affine and write the header anew."
        )
    name = "sform_code" if header["sform_code"] else "qform_code"
    if int(header[name]) not in CODES:
        raise ValueError(f"`{name}` must be 0 to {CODES[-1]}, but got {int(header[name])}; write the header anew.")
    if header["sform_code"]:
        return
    sizes = header["pixdim"][1:4]
    if not (np.isfinite(sizes).all() and sizes.min() > 0):
        raise ValueError(f"`pixdim` must be above 0, but got {sizes.tolist()}; write the header anew.")
    if header["qform_code"] and header["pixdim"][0] not in (-1, 0, 1):
        raise ValueError(f"`pixdim[0]` must be 1 or -1, but got {header['pixdim'][0]:g}; write the header anew.")
