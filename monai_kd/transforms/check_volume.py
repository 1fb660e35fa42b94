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

import re
import zlib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
from monai.utils import optional_import

itk, _ = optional_import("itk")
NIFTI = (".nii", ".nii.gz")
WITH_CHECKSUM = 47  # zlib's number for gzip or zlib data, whichever they are
GZIP = b"\x1f\x8b"
STEP = 1 << 22  # bytes
_whole: dict[tuple[str, int, int], int] = {}  # bytes of the data of files that were read to their checksum


def check_volume(path: Path, whole: bool = True) -> None:
    """
    Refuse a volume file (NIfTI, NRRD, MetaImage) that cannot be read right. Readers stop at the last voxel, where the
    checksum of compressed data has not come yet, so that one wrong bit gives other values without an error.

    Args:
        path: the file.
        whole: whether to read compressed data to the checksum, once in a process for a file of one size and time.

    Raises:
        ValueError: when it has not three axes or one real number a voxel, when its affine is not invertible, and when
            it is damaged or truncated.
        OSError, RuntimeError: when its header cannot be read.

    Example::

        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "ct.nii")
        >>> nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5), np.int16), np.eye(4)), file)
        >>> check_volume(Path(file))
        Traceback (most recent call last):
        ...
        ValueError: it must have three axes, but got the shape (4, 5).
    """
    name = path.name.lower()
    if name.endswith(NIFTI):
        _check_nifti(path, whole)
    else:
        _check_itk(path)
    if not whole:
        return
    if name.endswith((".nrrd", ".nhdr")):
        _check_nrrd_data(path)
    elif name.endswith((".mha", ".mhd")):
        _check_meta_data(path)


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


def _check_nifti(path: Path, whole: bool) -> None:
    compressed = path.name.lower().endswith(".gz")
    found = path.stat().st_size
    if compressed and whole:
        found = _inflate(path, 0)
    image: Any = nibabel.load(path)
    kind = image.get_data_dtype()
    if kind.fields is not None or kind.kind == "c":
        raise ValueError(f"it must hold one real number a voxel, but got {'colours' if kind.fields else kind.name}.")
    _check_axes(image.shape, trailing=True)
    check_affine(np.asarray(image.affine))
    data = image.dataobj
    needed = int(data.offset + np.prod(data.shape, dtype=np.int64) * data.dtype.itemsize)
    if found < needed and (whole or not compressed):
        raise ValueError(f"it is truncated, it holds {found} of {needed} bytes; copy it once more.")


def _check_itk(path: Path) -> None:
    header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if header is None:
        raise OSError("it is of none of the formats that its suffix stands for")
    header.SetFileName(str(path))
    header.ReadImageInformation()
    numbers = header.GetNumberOfComponents()
    if numbers != 1:
        raise ValueError(f"it must hold one real number a voxel, but got vectors of {numbers}.")
    _check_axes([header.GetDimensions(axis) for axis in range(header.GetNumberOfDimensions())])


def _check_axes(shape: Sequence[int], trailing: bool = False) -> None:
    sizes = list(shape)
    while trailing and len(sizes) > 3 and sizes[-1] == 1:
        del sizes[-1]
    if len(sizes) != 3 or 0 in sizes:
        raise ValueError(f"it must have three axes, but got the shape {tuple(shape)}.")


def _check_nrrd_data(path: Path) -> None:
    """The data follow the header after an empty line, or lie in a file of their own."""
    head = _head(path)
    if not re.search(rb"^encoding: *gz(ip)?\s*$", head, re.M | re.I):
        return
    apart = re.search(rb"^data ?file: *(.+?)\s*$", head, re.M | re.I)
    if apart is not None:
        file = path.parent / apart[1].decode()
        if file.is_file():  # and no list of files, which ITK's reader checks
            _inflate(file, 0)
        return
    end = re.search(rb"\r?\n\r?\n", head)
    if end is not None:
        _inflate(path, end.end())


def _check_meta_data(path: Path) -> None:
    """The data follow the header's last line, or lie in the file that it names."""
    head = _head(path)
    if not re.search(rb"^CompressedData *= *(True|1)", head, re.M | re.I):
        return
    place = re.search(rb"^ElementDataFile *= *(.+?) *\r?\n", head, re.M | re.I)
    if place is None:
        return
    if place[1].upper() == b"LOCAL":
        _inflate(path, place.end())
        return
    file = path.parent / place[1].decode()
    if file.is_file():
        _inflate(file, 0)


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(1 << 16)


def _inflate(path: Path, start: int) -> int:
    """Reads gzip or zlib data to the end; returns how many bytes they hold."""
    state = path.stat()
    key = (str(path.resolve()), state.st_size, state.st_mtime_ns)
    if key in _whole:
        return _whole[key]
    with path.open("rb") as stream:
        stream.seek(start)
        try:
            _whole[key] = _inflated_size(stream)
        except zlib.error as error:
            raise ValueError(f"its compressed data are damaged, {error}; copy it once more.") from error
    return _whole[key]


def _inflated_size(stream: BinaryIO) -> int:
    """In steps, since some MB of air are GB of zeros."""
    size, part = 0, zlib.decompressobj(WITH_CHECKSUM)
    data = stream.read(STEP)
    while data:
        size += len(part.decompress(data, STEP))
        if not part.eof:
            data = part.unconsumed_tail or stream.read(STEP)
            continue
        data = part.unused_data or stream.read(STEP)
        if not data.startswith(GZIP):
            break
        part = zlib.decompressobj(WITH_CHECKSUM)  # another member
    if not part.eof:
        size += len(part.flush())
    if not part.eof:
        raise ValueError("its compressed data are truncated; copy it once more.")
    return size
