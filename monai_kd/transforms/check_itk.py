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

"""Refusing a file of NRRD or MetaImage that is damaged, or no volume."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from monai.utils import optional_import

from monai_kd.transforms.inflated_size import inflated_size
from monai_kd.transforms.volume_rules import check_axes, check_numbers, check_size

itk, _ = optional_import("itk")
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
HEAD = 1 << 16  # bytes, in which the header ends
# how many numbers stand behind the keys of a volume
NRRD_COUNTS = {"spacedirections": 9, "spaceorigin": 3, "spacings": 3}
META_COUNTS = {
    "ElementSpacing|ElementSize": 3,
    "Offset|Position|Origin": 3,
    "CompressedDataSize": 1,
    "TransformMatrix|Rotation|Orientation": 9,
}


class Voxels(NamedTuple):
    """Where the voxels lie, and whether they are compressed."""

    file: Path
    start: int
    compressed: bool


def check_itk(path: Path, whole: bool = True) -> None:
    """
    Refuse a file of NRRD or MetaImage that is damaged, or no volume. ITK takes 1 mm where the voxel size is missing,
    and other bytes for voxels where the header says too little, without a word.

    Args:
        path: the file.
        whole: whether to read compressed data to the checksum.

    Raises:
        ValueError: when it cannot be read right.
    """
    header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if header is None:
        raise ValueError("it must be of the format that its suffix stands for, but ITK knows none; copy it once more.")
    header.SetFileName(str(path))
    header.ReadImageInformation()
    numbers = header.GetNumberOfComponents()
    check_numbers("" if numbers == 1 else f"vectors of {numbers}")
    shape = [header.GetDimensions(axis) for axis in range(header.GetNumberOfDimensions())]
    check_axes(shape)
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    of_nrrd = path.name.lower().endswith((".nrrd", ".nhdr"))
    voxels = _nrrd_voxels(path, head) if of_nrrd else _meta_voxels(path, head)
    if whole and voxels is not None:
        needed = header.GetImageSizeInBytes()
        file, start, compressed = voxels
        found = inflated_size(file, start) if compressed else file.stat().st_size - start
        check_size(found, needed, needed // shape[2])


def _nrrd_voxels(path: Path, head: bytes) -> Voxels | None:
    """The voxels follow the header after an empty line, or lie in a file of their own; None for lists and texts."""
    end = re.search(rb"\r?\n\r?\n|\Z", head)
    fields = dict(re.findall(rb"^([\w ]+): *(.+?) *\r?$", head[: end.start() if end else None], re.M))
    named = {key.decode().lower().replace(" ", ""): value.decode(errors="replace") for key, value in fields.items()}
    if not {"spacedirections", "spacings"} & set(named):
        _refuse_size("`space directions` or `spacings`")
    for name, count in NRRD_COUNTS.items():
        _check_count({name: named[name]} if name in named else {}, count)
    encoding = named.get("encoding", "").lower()
    if encoding not in ("raw", "gz", "gzip") or {"byteskip", "lineskip"} & set(named):
        return None
    apart = named.get("datafile")
    file = path if apart is None else path.parent / apart
    start = end.end() if end and apart is None else 0
    return Voxels(file, start, encoding != "raw") if file.is_file() else None


def _meta_voxels(path: Path, head: bytes) -> Voxels | None:
    """The voxels follow the header's last line, or lie in the file that it names; None for lists and texts."""
    last = re.search(rb"^ElementDataFile *= *(.+?) *\r?\n", head, re.M)
    fields = re.findall(rb"^(\w+) *= *(.*?) *\r?$", head[: last.end() if last else None], re.M)
    named = {key.decode(): value.decode(errors="replace") for key, value in fields}
    for names, count in META_COUNTS.items():
        _check_count({name: named[name] for name in names.split("|") if name in named}, count)
    if not {"ElementSpacing", "ElementSize"} & set(named):
        _refuse_size("`ElementSpacing`")
    if last is None or not _is_true(named, "BinaryData", "True") or named.get("HeaderSize", "0") != "0":
        return None
    local = named["ElementDataFile"].upper() == "LOCAL"
    file = path if local else path.parent / named["ElementDataFile"]
    if not file.is_file():
        return None
    voxels = Voxels(file, last.end() if local else 0, _is_true(named, "CompressedData"))
    if local or "CompressedDataSize" in named:
        found = file.stat().st_size - voxels.start if voxels.compressed else 0
        _check_compressed_size(int(named.get("CompressedDataSize", 0)), found)
    return voxels


def _check_compressed_size(said: int, found: int) -> None:
    if found < said and found:
        raise ValueError(f"its compressed data are truncated, {found} of {said} bytes; copy it once more.")
    if found != said:
        raise ValueError(
            f"`CompressedDataSize` must be the bytes of its compressed data, {found}, but got {said}; "
            "write the file anew."
        )


def _is_true(named: dict[str, str], key: str, default: str = "False") -> bool:
    """As ITK reads it."""
    return named.get(key, default)[:1] in ("T", "t", "1")


def _check_count(found: dict[str, str], count: int) -> None:
    for name, text in found.items():
        words = re.sub(r"[(),]", " ", text).split()
        if len(words) != count or not all(re.fullmatch(NUMBER, word) for word in words):
            raise ValueError(f"`{name}` must be {count} numbers, but got {text!r}; write the header anew.")


def _refuse_size(names: str) -> None:
    raise ValueError(f"it must say its voxel size, but got no {names}; write the header anew.")
