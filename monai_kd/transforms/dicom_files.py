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

"""Which files of a folder are CT slices in DICOM, and what the others are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pydicom
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

logger = logging.getLogger(__name__)

CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image
)
APPLE_DOUBLE = "macOS ._ files"
DICOMDIR = "DICOMDIR"
DEFER_SIZE = 65536  # bytes; a longer value, such as the pixels, is left in the file
TAGS = (
    "SOPClassUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "ImageType",
    "AcquisitionNumber",
    "InstanceNumber",
    "ImagesInAcquisition",
    "NumberOfSeriesRelatedInstances",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
)


class DicomSlice(NamedTuple):
    """A file and its header, in which the pixels may be missing (see `read_dicom`)."""

    file: Path
    header: Any


class DicomFiles(NamedTuple):
    """The CT slices among some files, and how many other DICOM objects there are of each kind."""

    slices: list[DicomSlice]
    passed_over: Counter[str]


def is_dicom(file: Path) -> bool:
    """
    Whether a file is a DICOM object. The suffix ``.dcm`` says so, or the preamble, or a first element of the groups
    2 and 8, with which files without preamble start.

    Args:
        file: an existing file. A DICOMDIR and hidden files are no objects.

    Example::

        >>> is_dicom(Path("._slice.dcm"))
        False
    """
    if file.name.upper() == DICOMDIR or file.name.startswith("."):
        return False
    if file.suffix.lower() == ".dcm":
        return True
    with file.open("rb") as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or _starts_with_element(start)


def _starts_with_element(start: bytes) -> bool:
    little = len(start) == 132 and start[0] in (2, 8) and start[1] == 0 and start[3] == 0
    big = len(start) == 132 and start[:2] == b"\x00\x08" and start[2] == 0
    explicit = start[4:6] in (b"UL", b"CS", b"UI", b"DA", b"OB")
    implicit = little and start[6:8] == b"\x00\x00"
    return (little and (explicit or implicit)) or (big and explicit)


def read_dicom(file: Path, pixels: bool = True) -> Any:
    """
    Reads the attributes of a DICOM object that describe a volume.

    Args:
        file: DICOM file, with or without preamble.
        pixels: whether to read the pixels too. Without, only their place and length are read.

    Raises:
        ValueError: when the file cannot be read.

    Example::

        >>> read_dicom(Path("missing.dcm"))
        Traceback (most recent call last):
        ...
        ValueError: a DICOM file must be readable, but got missing.dcm: ...; copy it again.
    """
    defer_size = None if pixels else DEFER_SIZE
    with errors_named(file):
        dataset = pydicom.dcmread(file, defer_size=defer_size, force=True, specific_tags=list(TAGS))
        if not pixels and dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return read_dicom(file)  # places in the inflated data say nothing
    return dataset


@contextmanager
def errors_named(file: Path) -> Iterator[None]:
    """
    Turns what pydicom raises on damaged files, errors of many classes and also when an attribute is looked at, into a
    ValueError that names the file. Errors that name it already stay.

    Example::

        >>> with errors_named(Path("a.dcm")):
        ...     pydicom.Dataset().Rows
        Traceback (most recent call last):
        ...
        ValueError: a DICOM file must be readable, but got a.dcm: 'Dataset' object has no attribute 'Rows'; ...
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and str(file) in str(error):
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"a DICOM file must be readable, but got {file}: {reason[-1].strip()}; copy it again."
        ) from error


def dicom_files(files: Iterable[Path]) -> DicomFiles:
    """
    Tells CT slices from the other objects that archives deliver beside them: structure sets, segmentations, reports,
    captures, localizers, other modalities, DICOMDIR and the ``._`` files of macOS.

    Args:
        files: existing files, DICOM or not. Files that are not DICOM are ignored.

    Raises:
        ValueError: when a file is damaged, so that nobody can say what it is.

    Example::

        >>> dicom_files([Path("._slice.dcm"), Path("DICOMDIR")]).passed_over["DICOMDIR"]
        1
    """
    slices: list[DicomSlice] = []
    passed_over: Counter[str] = Counter()
    empty: list[Path] = []
    for file in sorted(files):
        if file.name.startswith("._"):
            passed_over[APPLE_DOUBLE] += 1
        elif file.name.upper() == DICOMDIR:
            passed_over[DICOMDIR] += 1
        elif is_dicom(file):
            header = read_dicom(file, pixels=False)
            with errors_named(file):
                kind = _other_kind(file, header)
            if kind:
                passed_over[kind] += 1
            else:
                slices.append(DicomSlice(file, header))
        elif not file.name.startswith(".") and file.stat().st_size == 0:
            empty.append(file)
    _refuse_empty(slices, empty)
    return DicomFiles(slices, passed_over)


def holds_ct(folder: Path) -> bool:
    """
    Whether a folder holds a CT slice, or only damaged files that may have been some.

    Args:
        folder: an existing folder; those inside it do not count.

    Example::

        >>> import tempfile
        >>> holds_ct(Path(tempfile.mkdtemp()))
        False
    """
    damaged = others = False
    for file in sorted(folder.iterdir()):
        if not file.is_file() or not is_dicom(file):
            continue
        try:
            with errors_named(file):
                other = _other_kind(file, read_dicom(file, pixels=False))
            if not other:
                return True
            others = True
        except ValueError:
            damaged = True
    return damaged and not others


def passed_over_text(passed_over: Counter[str]) -> str:
    """
    The numbers of objects by kind, in words.

    Example::

        >>> passed_over_text(Counter({"Segmentation": 2, "DICOMDIR": 1}))
        'DICOMDIR (1), Segmentation (2)'
    """
    return ", ".join(f"{kind} ({passed_over[kind]})" for kind in sorted(passed_over))


def log_passed_over(passed_over: Counter[str], where: str) -> None:
    """One line in the log that counts what was passed over, or none."""
    if passed_over:
        logger.warning(f"{where}: passed over what is no CT slice: {passed_over_text(passed_over)}.")


def _other_kind(file: Path, header: Any) -> str:
    """What a file is that is no CT slice; empty for a CT slice."""
    sop_class = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    modality = header.get("Modality")
    if not sop_class and not modality and "Rows" not in header:
        raise ValueError(f"a DICOM file must be readable, but {file} names no `SOPClassUID`; copy it again.")
    if sop_class and sop_class not in CT_CLASSES:
        return str(UID(sop_class).name).removesuffix(" Storage")
    if not sop_class and (modality or "CT") != "CT":
        return f"modality {modality}"
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "localizer"
    if header.get("SamplesPerPixel", 1) != 1 and "ImagePositionPatient" not in header:
        return "colour picture"
    return ""


def _refuse_empty(slices: list[DicomSlice], empty: list[Path]) -> None:
    suffixes = {one.file.suffix.lower() for one in slices}
    for file in empty:
        if file.suffix.lower() in suffixes:
            raise ValueError(f"a DICOM file must be readable, but {file} is empty; copy it again.")
