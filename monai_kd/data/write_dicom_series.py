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

"""A CT volume as a DICOM series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.utils import optional_import

from monai_kd.data.write_aside import write_aside

pydicom, _ = optional_import("pydicom")

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
INTERCEPT = -1024
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's x and y point the other way than RAS


def write_dicom_series(folder: PathLike, image: np.ndarray, affine: np.ndarray, name: str = "phantom") -> list[Path]:
    """
    Writes a volume in HU as a CT series, one file a slice: uncompressed, unsigned 16 bits, RescaleSlope 1 and
    RescaleIntercept -1024, positions and orientation from the affine. For tests, tutorials and phantoms: it carries
    what readers need and no patient. Equal input gives equal files.

    Args:
        folder: where to write ``slice_0000.dcm`` and so on; made when absent.
        image: volume in HU, (X, Y, Z) with slices on the last axis; values -1024 to 64511.
        affine: 4 x 4, from index to RAS millimetres, axes perpendicular to each other.
        name: patient's name and id.

    Returns:
        the files, in the order of the slices.

    Raises:
        ValueError: when the image is not 3D or out of range, or the affine's axes are not perpendicular.

    Example::

        >>> import tempfile
        >>> volume, affine = np.full((64, 64, 20), -1000), np.diag([-1.0, -1.0, 3.0, 1.0])
        >>> len(write_dicom_series(tempfile.mkdtemp(), volume, affine))
        20
    """
    volume = np.rint(np.asarray(image)).astype(np.int64)
    if volume.ndim != 3 or volume.min() < INTERCEPT or volume.max() > INTERCEPT + 65535:
        raise ValueError(
            f"`image` must be 3D with values in {INTERCEPT} to {INTERCEPT + 65535} HU, "
            f"but got shape {volume.shape} and values from {volume.min()} to {volume.max()}."
        )
    matrix = LPS @ np.asarray(affine, dtype=float)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    directions = matrix[:3, :3] / spacing
    if not np.allclose(directions.T @ directions, np.eye(3), atol=1e-4):
        raise ValueError(f"`affine` must have perpendicular axes, but got {np.asarray(affine).tolist()}.")
    path = Path(folder)
    files = [path / f"slice_{k:04d}.dcm" for k in range(volume.shape[2])]
    for k, file in enumerate(files):
        stored = (volume[:, :, k] - INTERCEPT).astype("<u2").T  # rows run along the second axis of the array
        dataset = _dataset(stored, name, k, matrix[:3, 3] + k * matrix[:3, 2], directions, spacing)
        with write_aside(file) as aside:
            dataset.save_as(aside, enforce_file_format=True)
    return files


def _dataset(
    stored: np.ndarray, name: str, k: int, position: np.ndarray, directions: np.ndarray, spacing: np.ndarray
) -> Any:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT_VR_LITTLE_ENDIAN
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CT_IMAGE_STORAGE
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = _uid(name, f"slice{k}")
    dataset.StudyInstanceUID = _uid(name, "study")
    dataset.SeriesInstanceUID = _uid(name, "series")
    dataset.FrameOfReferenceUID = _uid(name, "frame")
    dataset.PatientName = dataset.PatientID = name
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyID = dataset.AccessionNumber = ""
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = "20000101"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = "000000"
    dataset.Modality, dataset.Manufacturer, dataset.SeriesNumber = "CT", "monai_kd", 1
    dataset.InstanceNumber = dataset.AcquisitionNumber = k + 1
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    dataset.ImagePositionPatient = [_decimal(value) for value in position]
    dataset.ImageOrientationPatient = [_decimal(value) for value in (*directions[:, 0], *directions[:, 1])]
    dataset.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
    dataset.SliceThickness = _decimal(spacing[2])
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", str(INTERCEPT), "HU"
    dataset.PixelData = stored.tobytes()
    return dataset


def _uid(name: str, what: str) -> str:
    return str(pydicom.uid.generate_uid(entropy_srcs=["monai_kd", name, what]))


def _decimal(value: float) -> str:
    text = f"{value:.9f}".rstrip("0").rstrip(".")
    return text[:16] if text not in ("-0", "") else "0"  # a decimal string holds 16 characters
