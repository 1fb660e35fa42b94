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

"""One axial slice of a CT volume, read from the volume itself."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import torch
from monai.config import DtypeLike, KeysCollection, PathLike
from monai.data.meta_tensor import MetaTensor
from monai.transforms import LoadImage, MapTransform, Orientation, SqueezeDim, Transform
from monai.utils import ImageMetaKey, convert_to_numpy, ensure_tuple_rep

from monai_kd.transforms.check_hounsfield import PADDING, hounsfield_range
from monai_kd.transforms.check_volume import check_one_place, check_volume
from monai_kd.transforms.dicom_series import DicomSeries
from monai_kd.transforms.load_volume import check_geometry_key, existing, is_series, load_volume, unreadable
from monai_kd.transforms.volume_rules import check_affine, check_fits


class Volume(NamedTuple):
    """
    A volume as its file orders it: `array[i, j, k]` by index, `affine` to RAS millimetres, range of its values.
    `series` is what the headers of a DICOM series say.
    """

    array: Any
    affine: np.ndarray
    value_range: tuple[float, float]
    series: DicomSeries | None = None

    @property
    def axial(self) -> tuple[int, bool]:
        """The array axis nearest to the body axis, and whether it runs from head to feet."""
        check_affine(self.affine)
        orientation = nibabel.io_orientation(self.affine)
        axis = int(np.where(orientation[:, 0] == 2)[0][0])
        return axis, bool(orientation[axis, 1] < 0)


class LoadSlice(Transform):
    """
    Reads one axial slice of a CT volume, oriented as MONAI's ``Orientation("RAS")`` orients the whole volume: equal to
    ``Orientation("RAS")(LoadImage(ensure_channel_first=True)(filename))[..., index]``. Slice 0 is the one nearest to
    the feet, whatever axis and direction the file stores slices along (KiTS19 stores them on the first axis).

    The volume is read by MONAI's :py:class:`monai.transforms.LoadImage`, a DICOM series by
    :py:class:`monai_kd.transforms.DicomSeriesReader`. The last few are kept, so that reading slice after slice of a
    case decodes its volume once. Of an uncompressed NIfTI file only the slice is read. No slice
    is ever written. Each process keeps volumes of its own; a pickled or copied transform keeps none.

    Args:
        reader: another MONAI reader for DICOM series ("ITKReader", "PydicomReader"), whose result must have the
            geometry of the files; default: ours. All other formats are read by the reader that MONAI takes for their
            suffix.
        dtype: data type of the slice.
        num_volumes: how many volumes are kept in memory, at least 1; one of LiTS takes up to 0.5 GB.

    Shapes: the slice is (1, X, Y) with x growing to the patient's right and y to the front, a MetaTensor with
    a 3 x 3 affine in mm and ``filename_or_obj``, ``slice`` and ``volume_range`` (for the check of Hounsfield units) in
    its meta data.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        RuntimeError: when the volume cannot be read, or is not a 3D volume with one number a voxel.
        ValueError: when its affine is not invertible, or it has no slice `index`.

    Example::

        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "ct.nii")
        >>> nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([-1.0, -1.0, 2.0, 1.0])), file)
        >>> LoadSlice()(file, 2).shape
        torch.Size([1, 4, 5])
    """

    def __init__(self, reader: str | None = None, dtype: DtypeLike = np.float32, num_volumes: int = 2) -> None:
        if num_volumes < 1:
            raise ValueError(f"`num_volumes` must be at least 1, but got {num_volumes}.")
        self.reader = reader
        self.dtype = dtype
        self.num_volumes = int(num_volumes)
        self._orient = Orientation("RAS", labels=None)
        self._squeeze = SqueezeDim(dim=-1)
        self._start()

    def _start(self) -> None:
        self._volumes: OrderedDict[tuple, Volume] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        private = ("_volumes", "_lock")  # nothing that reading changes: a cache's key stays the same
        return {name: value for name, value in self.__dict__.items() if name not in private}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def volume(self, filename: PathLike) -> Volume:
        """The volume of a file or DICOM folder, decoded or from memory."""
        path = existing(filename)
        key = (str(path), path.stat().st_mtime_ns, path.stat().st_size)
        with self._lock:
            if key not in self._volumes:
                while len(self._volumes) >= self.num_volumes:
                    self._volumes.popitem(last=False)
                self._volumes[key] = self._read(path)
            self._volumes.move_to_end(key)
            return self._volumes[key]

    def _read(self, path: Path) -> Volume:
        try:
            return _lazy_nifti(path) if path.suffix.lower() == ".nii" else self._decode(path)
        except Exception as error:
            raise unreadable(path, error) from error

    def _decode(self, path: Path) -> Volume:
        if not is_series(path):
            array, affine = _content(load_volume(path, dtype=None))
            return Volume(array, affine, hounsfield_range(array))
        series = DicomSeries.of_path(path)
        if self.reader is None:
            array, affine = series.array(), series.affine
        else:
            array, affine = _content(LoadImage(self.reader, dtype=None, ensure_channel_first=True)(path))
            _check_geometry(series, array, affine, self.reader)
        return Volume(array, affine, hounsfield_range(array), series)

    def __call__(self, filename: PathLike, index: int, affine: np.ndarray | None = None) -> torch.Tensor:
        """
        Args:
            filename: volume file, or folder of one DICOM series.
            index: number of the slice, from the feet.
            affine: affine of the volume, instead of the file's own.
        """
        volume = self.volume(filename)
        if affine is not None:
            volume = volume._replace(affine=affine)
        axis, head_first = volume.axial
        size = volume.array.shape[axis]
        if not 0 <= int(index) < size:
            raise ValueError(f"`index` must be a slice of {filename}, 0 to {size - 1}, but got {index}.")
        stored = size - 1 - int(index) if head_first else int(index)
        section = tuple(slice(stored, stored + 1) if a == axis else slice(None) for a in range(3))
        stored_values = np.asarray(volume.array[section])
        try:
            check_fits(stored_values, self.dtype)
        except ValueError as error:
            raise unreadable(Path(filename), error) from error
        array = np.array(stored_values, dtype=self.dtype)  # a copy, in the machine's byte order
        slab_affine = volume.affine.copy()
        slab_affine[:3, 3] += stored * slab_affine[:3, axis]
        image = self._squeeze(self._orient(MetaTensor(torch.from_numpy(array)[None], affine=slab_affine)))
        value_range = volume.value_range
        if not isinstance(volume.array, np.ndarray):  # of some slices
            value_range = _joined(value_range, hounsfield_range(array))
        meta = {ImageMetaKey.FILENAME_OR_OBJ: str(filename), "slice": int(index), "volume_range": value_range}
        return MetaTensor(image.as_tensor().contiguous(), affine=image.affine, meta=meta)


class LoadSliced(MapTransform):
    """
    Dictionary version of :py:class:`LoadSlice`: replaces the paths under `keys` by the slice that ``data[slice_key]``
    numbers. :py:func:`monai_kd.data.slice_list` makes such items.

    Args:
        keys: keys of the paths, image and label for example.
        slice_key: key of the slice's number, which stays in the item.
        geometry_key: one of `keys` whose affine holds for all, see :py:class:`monai_kd.transforms.CopyAffined`; LiTS as
            published needs "image". Default: each file's own.
        reader: see :py:class:`LoadSlice`.
        dtype: data type, one for all or one for each key.
        num_volumes: volumes kept in memory for each key.
        allow_missing_keys: whether a missing key is no error.

    Raises:
        ValueError: when `geometry_key` is not among `keys`, and as :py:class:`LoadSlice`.

    Example::

        >>> load = LoadSliced(("image", "label"), dtype=["float32", "uint8"])
        >>> load({"image": "volume-0.nii", "label": "segmentation-0.nii", "slice": 40})
        Traceback (most recent call last):
        ...
        FileNotFoundError: `filename` must be a file or a DICOM folder, but got volume-0.nii, which is not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        slice_key: str = "slice",
        geometry_key: str | None = None,
        reader: str | None = None,
        dtype: DtypeLike | list[DtypeLike] = np.float32,
        num_volumes: int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_geometry_key(geometry_key, self.keys)
        self.slice_key = slice_key
        self.geometry_key = geometry_key
        self.loaders = {
            key: LoadSlice(reader, one_dtype, num_volumes)
            for key, one_dtype in zip(self.keys, ensure_tuple_rep(dtype, len(self.keys)))
        }

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        affine = None
        if self.geometry_key is not None:
            affine = self.loaders[self.geometry_key].volume(data[self.geometry_key]).affine
        volumes = {key: self.loaders[key].volume(data[key]) for key in self.key_iterator(d)}
        grids = {key: (volume.array.shape, volume.affine) for key, volume in volumes.items()}
        check_one_place(data, grids, same_affine=self.geometry_key is None)
        for key in self.key_iterator(d):
            d[key] = self.loaders[key](data[key], int(data[self.slice_key]), affine)
        return d


def _joined(volume: tuple[float, float], section: tuple[float, float]) -> tuple[float, float]:
    """One slice may hold padding and air alone, so that its lowest value says nothing of the volume."""
    low = max(section[0], PADDING) if np.isfinite(section[0]) else section[0]
    return min(volume[0], low), max(volume[1], section[1])


def _check_geometry(series: DicomSeries, array: np.ndarray, affine: np.ndarray, reader: str) -> None:
    """Whether a reader gives the volume that the files describe, whatever the order and direction of its axes."""
    expected = _canonical(series.shape, series.affine)
    found = _canonical(array.shape, affine)
    if expected[0] != found[0] or not np.allclose(expected[1], found[1], atol=0.01):
        raise ValueError(
            f"`reader` must read the series as its files say, shape {expected[0]} and affine "
            f"{np.round(expected[1][:3], 3).tolist()}, but {reader} gives {found[0]} and "
            f"{np.round(found[1][:3], 3).tolist()}; leave `reader` out."
        )


def _canonical(shape: tuple[int, ...], affine: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    orientation = nibabel.io_orientation(affine)
    turned = affine @ nibabel.orientations.inv_ornt_aff(orientation, shape)
    size = [0, 0, 0]
    for axis, (target, _) in enumerate(orientation):
        size[int(target)] = shape[axis]
    return tuple(size), turned


def _content(image: Any) -> tuple[np.ndarray, np.ndarray]:
    if image.ndim != 4 or image.shape[0] != 1:
        raise ValueError(f"it must be a 3D volume with one channel, but got shape {tuple(image.shape)}.")
    array = convert_to_numpy(image)[0]
    array = array.astype(np.float32) if array.dtype == np.float64 else array  # scaled integers: exact in float32
    return array, convert_to_numpy(image.affine)


def _lazy_nifti(path: Path) -> Volume:
    check_volume(path)
    image: Any = nibabel.load(path)
    if len(image.shape) > 3:
        image = nibabel.squeeze_image(image)
    few = np.linspace(0, image.shape[2] - 1, 5).astype(int)  # enough to see air or fat, and that the file is whole
    sections = np.stack([image.dataobj[:, :, k] for k in few])
    return Volume(image.dataobj, np.asarray(image.affine), hounsfield_range(sections.astype(np.float32)))
