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

"""A CT volume as its file has it, or an error that names the file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.config import DtypeLike, KeysCollection, PathLike
from monai.data.image_reader import ImageReader, NibabelReader
from monai.data.meta_tensor import MetaTensor
from monai.transforms import LoadImage, MapTransform, Transform
from monai.utils import convert_data_type, convert_to_numpy, ensure_tuple, ensure_tuple_rep

from monai_kd.transforms.check_nifti import NIFTI
from monai_kd.transforms.check_volume import check_one_place, check_volume
from monai_kd.transforms.dicom_files import is_dicom
from monai_kd.transforms.dicom_series_reader import DicomSeriesReader
from monai_kd.transforms.volume_rules import check_affine, check_fits, reason_of


class SformReader(NibabelReader):
    """
    MONAI's reader of NIfTI files with nibabel's affine: the sform where its code is above 0, else the qform, else the
    voxel size. MONAI takes the qform, even of code 0, where the sform's voxel size is not that of ``pixdim``, which
    some converters leave at 1.
    """

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """
        Args:
            data: the file.
            kwargs: of ``nibabel.load``.
        """
        self.filenames = ensure_tuple(data)
        image: Any = nibabel.load(self.filenames[0], **self.kwargs, **kwargs)
        return nibabel.squeeze_image(image) if len(image.shape) > 3 else image


class LoadVolume(Transform):
    """
    Reads a CT volume or its label, whole: what MONAI's ``LoadImage(ensure_channel_first=True)`` gives, with these
    differences. Every error names the file. Compressed files are read to their checksum, a file of colours, vectors or
    other than three axes is refused, and so is a DICOM folder that is not one whole series
    (:py:class:`~monai_kd.transforms.DicomSeriesReader`). NIfTI files have nibabel's
    affine (:py:class:`SformReader`). Axes of length one behind the third are dropped.

    Args:
        dtype: data type, which must hold the values; None for the file's own.

    Shapes: (1, X, Y, Z), a MetaTensor with MONAI's meta data.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        RuntimeError: when it cannot be read, or is no volume of one real number a voxel.

    Example::

        >>> LoadVolume()("ct.nii.gz")
        Traceback (most recent call last):
        ...
        FileNotFoundError: `filename` must be a file or a DICOM folder, but got ct.nii.gz, which is not there.
    """

    def __init__(self, dtype: DtypeLike = np.float32) -> None:
        self.dtype = dtype

    def __call__(self, filename: PathLike) -> MetaTensor:
        """
        Args:
            filename: volume file, or folder of one DICOM series.
        """
        path = existing(filename)
        try:
            return load_volume(path, self.dtype)
        except Exception as error:
            raise unreadable(path, error) from error


class LoadVolumed(MapTransform):
    """
    Dictionary version of :py:class:`LoadVolume`. What it loads lies in one place: the first key's shape and affine must
    be those of the others.

    Args:
        keys: keys of the paths, the image first.
        geometry_key: one of `keys` whose affine holds for all where the arrays correspond although the headers do not
            say so (LiTS as published: "image"); default: affines must agree to 1e-3 mm.
        dtype: data type, one for all or one for each key.
        allow_missing_keys: whether a missing key is no error.

    Raises:
        ValueError: when `geometry_key` is not among `keys`, or a label does not lie where its image lies.
        FileNotFoundError, RuntimeError: as :py:class:`LoadVolume`.

    Example::

        >>> LoadVolumed(["image", "label"])({"image": "ct.nii.gz", "label": "label.nii.gz"})
        Traceback (most recent call last):
        ...
        FileNotFoundError: `filename` must be a file or a DICOM folder, but got ct.nii.gz, which is not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        geometry_key: str | None = None,
        dtype: DtypeLike | list[DtypeLike] = np.float32,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_geometry_key(geometry_key, self.keys)
        self.geometry_key = geometry_key
        dtypes = ensure_tuple_rep(dtype, len(self.keys))
        self.loaders = {key: LoadVolume(one) for key, one in zip(self.keys, dtypes)}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        grids = {}
        for key in self.key_iterator(d):
            d[key] = self.loaders[key](data[key])
            grids[key] = (d[key].shape[1:], np.asarray(d[key].affine))
        check_one_place(data, grids, same_affine=self.geometry_key is None)
        for key in grids if self.geometry_key is not None else ():
            d[key].affine = torch.as_tensor(d[self.geometry_key].affine).clone()
        return d


def load_volume(path: Path, dtype: DtypeLike) -> MetaTensor:
    """What :py:class:`LoadVolume` returns, with errors that do not name the file."""
    reader: ImageReader | None = None
    if is_series(path):
        reader = DicomSeriesReader()
    else:
        check_volume(path)
        reader = SformReader() if path.name.lower().endswith(NIFTI) else None
    whole = dtype is not None and np.dtype(dtype).kind in "iu"
    image = LoadImage(dtype=None if whole else dtype, ensure_channel_first=True)(path, reader)
    if image.ndim != 4 or image.shape[0] != 1:
        raise ValueError(f"it must be a 3D volume with one channel, but got shape {tuple(image.shape)}.")
    check_affine(np.asarray(image.affine))
    if whole:
        check_fits(convert_to_numpy(image), dtype)
        image = convert_data_type(image, dtype=dtype)[0]
    return image


def is_series(path: Path) -> bool:
    """Whether it is a folder, which holds one DICOM series, or a DICOM file."""
    return path.is_dir() or (path.suffix.lower() in ("", ".dcm") and is_dicom(path))


def check_geometry_key(geometry_key: str | None, keys: Sequence[Hashable]) -> None:
    """Refuse a key that is not loaded."""
    if geometry_key is not None and geometry_key not in keys:
        raise ValueError(f"`geometry_key` must be one of {tuple(keys)}, but got {geometry_key!r}.")


def existing(filename: PathLike) -> Path:
    """The path of a file or folder that is there."""
    path = Path(filename).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"`filename` must be a file or a DICOM folder, but got {path}, which is not there.")
    return path


def unreadable(path: Path, error: Exception) -> RuntimeError:
    """The error that says which file cannot be read, why, and what helps."""
    return RuntimeError(f"{path} cannot be read, {type(error).__name__}: {reason_of(error)}")
