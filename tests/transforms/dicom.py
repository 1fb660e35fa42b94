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

"""DICOM files as scanners and archives write them, good and bad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from monai_kd.data import write_dicom_series

HU = np.random.RandomState(0).randint(-1000, 1000, (10, 8, 6)).astype(np.int16)  # columns, rows, slices
AFFINE = np.array([[-0.8, 0, 0, 25], [0, -0.7, 0, 30], [0, 0, 2.5, -100], [0, 0, 0, 1.0]])
SOP_CLASSES = {
    "RT Structure Set": "1.2.840.10008.5.1.4.1.1.481.3",
    "RT Dose": "1.2.840.10008.5.1.4.1.1.481.2",
    "Segmentation": "1.2.840.10008.5.1.4.1.1.66.4",
    "Secondary Capture Image": "1.2.840.10008.5.1.4.1.1.7",
    "X-Ray Radiation Dose SR": "1.2.840.10008.5.1.4.1.1.88.67",
    "Encapsulated PDF": "1.2.840.10008.5.1.4.1.1.104.1",
    "Positron Emission Tomography Image": "1.2.840.10008.5.1.4.1.1.128",
}
Edit = Callable[[int, Any], None]


def write_series(folder: Path, edit: Edit | None = None, array: np.ndarray = HU) -> list[Path]:
    """A CT series, whose slices `edit(number, dataset)` changes."""
    files = write_dicom_series(folder, array, AFFINE)
    for number, file in enumerate(files):
        if edit is not None:
            dataset = pydicom.dcmread(file)
            edit(number, dataset)
            dataset.save_as(file)
    return files


def write_other(file: Path, kind: str, edit: Edit | None = None) -> Path:
    """An object that is no CT slice, made from one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    source = write_dicom_series(file.parent / "source", HU[..., :1], AFFINE, name="other")[0]
    dataset = pydicom.dcmread(source)
    source.unlink()
    source.parent.rmdir()
    dataset.SOPClassUID = SOP_CLASSES.get(kind, dataset.SOPClassUID)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    if edit is not None:
        edit(0, dataset)
    dataset.save_as(file)
    return file


def localizer(number: int, dataset: Any) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def part(**entries: Any) -> Dataset:
    dataset = Dataset()
    for name, value in entries.items():
        setattr(dataset, name, value)
    return dataset


def position_of(number: int) -> list[float]:
    return [-25.0, -30.0, -100 + 2.5 * number]


def write_enhanced(
    file: Path, order: Sequence[int], slopes: Sequence[float] | None = None, edit: Edit | None = None
) -> Path:
    """An enhanced CT with frames `order` of HU, each stored with a slope of its own."""
    scale = [1.0] * HU.shape[2] if slopes is None else list(slopes)
    dataset = part(Modality="CT", Rows=8, Columns=10, NumberOfFrames=len(order))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    plane = part(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    measures = part(PixelSpacing=[0.7, 0.8], SliceThickness=2.5)
    dataset.SharedFunctionalGroupsSequence = [part(PlaneOrientationSequence=[plane], PixelMeasuresSequence=[measures])]
    groups = []
    for number in order:
        place = part(ImagePositionPatient=position_of(number))
        rescale = part(RescaleSlope=scale[number], RescaleIntercept=-1024, RescaleType="HU")
        groups.append(part(PlanePositionSequence=[place], PixelValueTransformationSequence=[rescale]))
    dataset.PerFrameFunctionalGroupsSequence = groups
    frames = [np.rint((HU[:, :, number].T + 1024.0) / scale[number]) for number in order]
    dataset.PixelData = np.stack(frames).astype("<u2").tobytes()
    if edit is not None:
        edit(0, dataset)
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)
    return file
