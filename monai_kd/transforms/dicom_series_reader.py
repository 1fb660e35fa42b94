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

"""MONAI's LoadImage reads CT series in DICOM by our reader."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data.image_reader import ImageReader
from monai.transforms.io.array import SUPPORTED_READERS, get_default_reader_registration_order
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from monai_kd.transforms.dicom_files import holds_ct, is_dicom
from monai_kd.transforms.dicom_series import DicomSeries

KEY = "dicomseriesreader"


class DicomSeriesReader(ImageReader):
    """
    Reads folders of one CT series each in DICOM, and refuses those that are not one whole volume
    (see :py:class:`monai_kd.transforms.dicom_series.DicomSeries`).

    ``import monai_kd.transforms`` or ``monai_kd.data`` adds it to MONAI's ``SUPPORTED_READERS``, the place for custom
    readers. A :py:class:`monai.transforms.LoadImage` that is made after that takes it for folders with CT slices, and
    its other readers for all else.

    Shapes: the array is (columns, rows, slices), or (volumes, columns, rows, slices) for several folders.

    Example::

        >>> import tempfile
        >>> from monai.transforms import LoadImage
        >>> from monai_kd.data import write_dicom_series
        >>> folder = tempfile.mkdtemp()
        >>> files = write_dicom_series(folder, np.full((8, 6, 5), -1000), np.diag([-1.0, -1.0, 3.0, 1.0]))
        >>> LoadImage(ensure_channel_first=True)(folder).shape
        torch.Size([1, 8, 6, 5])
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether all paths are folders with CT slices."""
        names = ensure_tuple(filename)
        if not names or not all(isinstance(name, (str, os.PathLike)) for name in names):
            return False
        return all(Path(name).is_dir() and holds_ct(Path(name)) for name in names)

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> list[Path]:
        """
        Accepts folders with CT slices, and files of an enhanced CT, which LoadImage takes to this reader where it is
        named. LoadImage tries its other readers where this method of a reader that is named
        fails, so that damaged series are refused later, in :py:meth:`get_data`.

        Args:
            data: a folder or file, or several whose volumes become channels.
            kwargs: none is known.

        Raises:
            ValueError: when a path is no folder with CT slices.
        """
        if not self.verify_suffix(data) and not all(_is_object(Path(name)) for name in ensure_tuple(data)):
            raise ValueError(f"`data` must be folders with CT slices in DICOM, but got {data}; use another reader.")
        return [Path(name) for name in ensure_tuple(data)]

    def get_data(self, img: Sequence[PathLike]) -> tuple[np.ndarray, dict[str, Any]]:
        """
        Reads the files, and compares them with each other before.

        Args:
            img: what :py:meth:`read` returns.

        Returns:
            the array and its meta data: the affine to RAS millimetres, the shape, the spacing.

        Raises:
            ValueError: when a folder does not hold one whole CT series, a file cannot be decoded, or several volumes
                differ in shape or affine.
        """
        volumes = [DicomSeries.of_path(path) for path in img]
        first = volumes[0]
        for other in volumes[1:]:
            if other.shape != first.shape or not np.allclose(other.affine, first.affine, atol=1e-3):
                raise ValueError(
                    f"volumes that become channels must have one shape and affine, but got {first.shape} and "
                    f"{other.shape}; load each by itself."
                )
        meta = {
            MetaKeys.AFFINE: first.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: first.affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(first.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if len(volumes) == 1 else 0,
            "spacing": np.linalg.norm(first.affine[:3, :3], axis=0),
        }
        arrays = [series.array() for series in volumes]
        return arrays[0] if len(arrays) == 1 else np.stack(arrays), meta


def _is_object(path: Path) -> bool:
    return path.is_file() and is_dicom(path)


def register_dicom_series_reader() -> None:
    """Makes :py:class:`DicomSeriesReader` the reader that MONAI tries first. Calling it again changes nothing."""
    SUPPORTED_READERS[KEY] = DicomSeriesReader


def is_read_first() -> bool:
    """Whether a LoadImage that is made now tries our reader first; ``MONAI_DICOM_READER`` puts another before it."""
    return get_default_reader_registration_order()[-1] == KEY
