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

"""The values of a DICOM object in Hounsfield units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import itk
import numpy as np
from pydicom.pixels import get_decoder
from pydicom.uid import UID, JPEGExtended12Bit

from monai_kd.transforms.dicom_files import DicomSlice, read_dicom
from monai_kd.transforms.dicom_frames import count_frames

Rescale = tuple[float, float] | None
SYNTAXES = {  # (implicit VR, little endian) -> transfer syntax of a file that names none
    (True, True): UID("1.2.840.10008.1.2"),
    (False, True): UID("1.2.840.10008.1.2.1"),
    (False, False): UID("1.2.840.10008.1.2.2"),
}
ITK_SYNTAXES = (  # what ITK decodes itself: JPEG, JPEG lossless, JPEG-LS
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
)


def check_pixels(one: DicomSlice) -> None:
    """
    Refuses a file whose pixels are cut off, of another size than its header says, or compressed in a way that nothing
    here decodes. The pixels are not read.

    Args:
        one: file and header.

    Raises:
        ValueError: when its pixels are not whole or cannot be decoded.
    """
    header = one.header
    if "PixelData" not in header:
        raise ValueError(f"a CT slice must hold its pixels whole, but got none in {one.file}; copy it again.")
    if header.get("SamplesPerPixel", 1) != 1:
        raise ValueError(
            f"a CT slice must hold one value a pixel, but got {header.SamplesPerPixel} in {one.file}; leave it out."
        )
    _check_description(one)
    syntax = _transfer_syntax(header)
    _check_decoder(one, syntax)
    if not syntax.is_encapsulated:
        _check_length(one)


def _check_description(one: DicomSlice) -> None:
    """What readers take in different ways."""
    header = one.header
    meaning = str(header.get("PhotometricInterpretation") or "none")
    if not meaning.startswith("MONOCHROME"):
        raise ValueError(
            f"a CT slice must hold grey values, but got `PhotometricInterpretation` {meaning} in {one.file}; "
            "leave it out."
        )
    used = int(header.get("BitsStored") or 0)
    highest = int(header.get("HighBit", used - 1))
    if highest != used - 1:
        raise ValueError(
            f"`HighBit` must be one below `BitsStored`, but got {highest} and {used} in {one.file}; convert it."
        )


def hounsfield_frames(file: Path, size: tuple[int, int], rescales: Sequence[Rescale]) -> list[np.ndarray]:
    """
    Reads the frames of a file, each scaled by its own slope and intercept.

    Args:
        file: DICOM file that :py:func:`check_pixels` accepts.
        size: rows and columns.
        rescales: slope and intercept of each frame, or None where the values are stored as they are.

    Returns:
        an array (rows, columns) for each frame, int16 or int32 where its values are whole, else float32.

    Raises:
        ValueError: when the pixels cannot be decoded, or are of another number or size.
    """
    dataset = read_dicom(file)
    syntax = _transfer_syntax(dataset)
    dataset.file_meta.TransferSyntaxUID = syntax
    by_itk = _needs_itk(dataset, syntax)
    values = _decode_by_itk(file, rescales[0]) if by_itk else _decode(file, dataset)
    stack = values.reshape(-1, *values.shape[-2:])
    if stack.shape != (len(rescales), *size):
        raise ValueError(
            f"the pixels of a DICOM file must be {(len(rescales), *size)} as its header says, but got {stack.shape} in "
            f"{file}; copy it again."
        )
    if by_itk:  # which has scaled them
        return [_compact(frame) for frame in stack]
    _check_bits(file, dataset, stack)
    return [_compact(_scaled(frame, rescale)) for frame, rescale in zip(stack, rescales)]


def _transfer_syntax(header: Any) -> UID:
    named = header.file_meta.get("TransferSyntaxUID")
    return UID(named) if named else SYNTAXES[header.original_encoding]


def _check_length(one: DicomSlice) -> None:
    header = one.header
    element = header.get_item("PixelData")
    bits = int(header.get("BitsAllocated") or 0)
    if bits not in (8, 16, 32):
        raise ValueError(
            f"`BitsAllocated` must be 8, 16 or 32, but got {header.get('BitsAllocated')} in {one.file}; convert it."
        )
    expected = count_frames(one) * int(header.Rows) * int(header.Columns) * bits // 8
    found = element.length if element.value is None else len(element.value)
    if element.value is None:
        found = min(found, one.file.stat().st_size - element.value_tell)
    if found not in (expected, expected + expected % 2):
        raise ValueError(
            f"a CT slice must hold its pixels whole, {expected} bytes, but got {found} in {one.file}; copy it again."
        )


def _check_decoder(one: DicomSlice, syntax: UID) -> None:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ValueError(
            f"a CT slice must have a transfer syntax of images, but got {syntax.name} in {one.file}; convert the files."
        ) from None
    if _needs_itk(one.header, syntax) and (syntax not in ITK_SYNTAXES or count_frames(one) > 1):
        plugins = " or ".join(decoder.missing_dependencies)
        raise ValueError(
            f"the pixels of a CT slice must be decodable, but got {syntax.name} in {one.file}; install a plugin of "
            f"pydicom ({plugins}) or decompress the files."
        )


def _needs_itk(header: Any, syntax: UID) -> bool:
    """Whether no plugin of pydicom decodes a file; Pillow reads JPEG of 8 bits alone."""
    decoder = get_decoder(syntax)
    beyond_pillow = syntax == JPEGExtended12Bit and int(header.get("BitsStored") or 0) > 8
    return not decoder.is_available or (beyond_pillow and decoder.available_plugins == ("pillow",))


def _decode(file: Path, dataset: Any) -> np.ndarray:
    try:
        return np.asarray(dataset.pixel_array)
    except Exception as error:  # each plugin has errors of its own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"the pixels of a DICOM file must be decodable, but got {file}: {reason[-1].strip()}; copy it again."
        ) from error


def _check_bits(file: Path, dataset: Any, stored: np.ndarray) -> None:
    """What lies beyond the bits that are said to be used: some readers cut it off. Padding may lie there."""
    used = int(dataset.BitsStored)
    low, high = (-(2 ** (used - 1)), 2 ** (used - 1) - 1) if dataset.PixelRepresentation else (0, 2**used - 1)
    if low <= stored.min() and stored.max() <= high:
        return
    beyond = stored[((stored < low) | (stored > high)) & (stored != dataset.get("PixelPaddingValue"))]
    if beyond.size:
        raise ValueError(
            f"the pixels of a DICOM file must be {low} to {high}, as `BitsStored` {used} says, but got "
            f"{int(beyond[0])} in {file}; repair `BitsStored` or leave it out."
        )


def _decode_by_itk(file: Path, rescale: Rescale) -> np.ndarray:
    reader = itk.GDCMImageIO.New()
    try:
        values = np.asarray(itk.array_from_image(itk.imread(str(file), imageio=reader)))
    except RuntimeError as error:
        raise ValueError(
            f"the pixels of a DICOM file must be decodable, but ITK refuses {file}; copy it again."
        ) from error
    applied = (reader.GetRescaleSlope(), reader.GetRescaleIntercept())
    if not np.allclose(applied, rescale or (1, 0)):
        raise ValueError(
            f"ITK must scale a DICOM file as its header says, but got {applied} instead of {rescale} for {file}; "
            "decompress it."
        )
    return values


def _scaled(stored: np.ndarray, rescale: Rescale) -> np.ndarray:
    if rescale is None:
        return stored
    slope, intercept = rescale
    if slope == int(slope) and intercept == int(intercept):
        return stored.astype(np.int64) * int(slope) + int(intercept)
    return stored * slope + intercept  # in float64


def _compact(values: np.ndarray) -> np.ndarray:
    """The smallest of int16, int32 and float32 that holds the values."""
    if values.dtype.kind == "f" and (values != np.rint(values)).any():
        return values.astype(np.float32)
    low, high = int(values.min()), int(values.max())
    for kind in (np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    return values.astype(np.float32)
