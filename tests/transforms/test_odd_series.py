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

"""Any DICOM series is read right, or refused in one line: slices changed, cut, doubled and left out."""

from __future__ import annotations

import functools
import io
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.transforms import LoadImage
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from monai_kd.data import find_volumes
from monai_kd.transforms import LoadSlice, LoadVolume
from tests.transforms.dicom import HU, write_series
from tests.transforms.odd_files import read_or_refused

SLICES = 4
LOAD_IMAGE = LoadImage(ensure_channel_first=True)
CT = "1.2.840.10008.5.1.4.1.1.2"
NUMBERS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")
# what a slice may hold in place of what it has; None: nothing
VALUES: dict[str, list[Any]] = {
    "SOPClassUID": [None, "", "1.2.840.10008.5.1.4.1.1.4", CT],
    "Modality": [None, "", "CT", "MR"],
    "ImageType": [None, "", ["ORIGINAL", "PRIMARY", "LOCALIZER"], ["DERIVED", "PRIMARY", "AXIAL"]],
    "SeriesInstanceUID": [None, "1.2.3"],
    "FrameOfReferenceUID": [None, "1.2.3"],
    "InstanceNumber": [None, "", "7", "-1"],
    "SliceThickness": [None, "", "0", "7", "-2.5"],
    "ImagePositionPatient": [None, "", "x", ["0", "0"], ["-25", "-30", "nan"], ["-25", "-30", "1e400"]],
    "ImageOrientationPatient": [None, "", ["1"] * 6, ["0", "1", "0", "1", "0", "0"], ["2", "0", "0", "0", "1", "0"]],
    "PixelSpacing": [None, "", "0.7", ["0.8", "0.7"], ["0", "0.8"], ["-0.7", "0.8"], ["nan", "1"], ["1e9", "1e9"]],
    "RescaleSlope": [None, "", "x", "0", "2", "-1", "0.001", "nan", "1e400"],
    "RescaleIntercept": [None, "", "x", "0", "-1024.5", "-1e9"],
    "RescaleType": [None, "HU", "US", "ED", "Z_EFF", "MGML"],
    "Rows": [None, 0, 10, 4, 65535],
    "Columns": [None, 0, 8, 20],
    "NumberOfFrames": ["1", "2", "0", "-1", "x"],
    "SamplesPerPixel": [None, 0, 1, 3],
    "PhotometricInterpretation": [None, "MONOCHROME1", "RGB", "PALETTE COLOR"],
    "BitsAllocated": [None, 0, 8, 12, 32],
    "BitsStored": [None, 0, 8, 12, 16, 32],
    "HighBit": [None, 0, 11, 15],
    "PixelRepresentation": [None, 0, 1, 7],
}


def change(dataset: Any, name: str, value: Any) -> None:
    """Whatever the value, as a file would have it."""
    tag = Tag(name)
    kind = dictionary_VR(tag)
    if tag in dataset:
        del dataset[tag]
    if value is None:
        return
    if kind == "US":
        dataset.add_new(tag, kind, value)
        return
    raw = ("\\".join(value) if isinstance(value, list) else value).encode()
    raw += b" " * (len(raw) % 2)
    dataset[tag] = RawDataElement(tag, kind, len(raw), raw, 0, False, True)


class Slice(NamedTuple):
    """What the attributes of one file say."""

    place: np.ndarray
    axes: np.ndarray  # row, column
    spacing: np.ndarray  # along them
    values: np.ndarray
    alike: tuple


def slice_of(file: Path) -> Slice | None:
    """By pydicom's parser and the standard alone; None for what is no CT slice. Anything else is an error."""
    dataset = pydicom.dcmread(file)
    sop_class = dataset.get("SOPClassUID") or dataset.file_meta.MediaStorageSOPClassUID
    if sop_class != CT or "LOCALIZER" in (dataset.get("ImageType") or []):
        return None
    numbers = {name: np.array(dataset[name].value, float).ravel() for name in NUMBERS if name in dataset}
    assert all(np.isfinite(each).all() for each in numbers.values())
    row, column = numbers["ImageOrientationPatient"].reshape(2, 3)
    assert np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-3)
    (below, beside), position = numbers["PixelSpacing"], numbers["ImagePositionPatient"].reshape(3)
    assert min(below, beside) > 0
    rescale = [numbers[name] for name in ("RescaleSlope", "RescaleIntercept") if name in numbers]
    (slope,), (intercept,) = rescale or ([1.0], [0.0])
    assert slope != 0
    assert dataset.get("RescaleType", "HU") in ("HU", "US", "")
    assert dataset.SamplesPerPixel == 1
    assert int(dataset.get("NumberOfFrames", 1)) == 1
    assert dataset.get("PhotometricInterpretation").startswith("MONOCHROME")
    assert dataset.file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian) == ExplicitVRLittleEndian
    bits, used, sign = dataset.BitsAllocated, dataset.BitsStored, dataset.PixelRepresentation
    assert bits in (8, 16, 32)
    assert 1 <= used <= bits
    assert dataset.get("HighBit", used - 1) == used - 1
    assert sign in (0, 1)
    size = (dataset.Rows, dataset.Columns)
    assert len(dataset.PixelData) == size[0] * size[1] * bits // 8
    stored = np.frombuffer(dataset.PixelData, f"<{'ui'[sign]}{bits // 8}").reshape(size).astype(np.int64)
    low, high = (-(2 ** (used - 1)), 2 ** (used - 1)) if sign else (0, 2**used)
    assert low <= stored.min()
    assert stored.max() < high
    alike = (dataset.get("SeriesInstanceUID", ""), dataset.get("FrameOfReferenceUID", ""), size, len(rescale))
    return Slice(position, np.stack([row, column]), np.array([beside, below]), stored * slope + intercept, alike)


def truth_of(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Volume and affine (RAS) of a folder; None where the files are not one volume."""
    try:
        slices = [each for each in map(slice_of, sorted(folder.glob("*.dcm"))) if each is not None]
        assert len({each.alike for each in slices}) == 1
        first = slices[0]
        assert all(np.allclose(each.axes, first.axes) for each in slices)
        assert all(np.allclose(each.spacing, first.spacing) for each in slices)
    except Exception:  # whatever is wrong
        return None
    slices.sort(key=lambda each: each.place @ np.cross(*first.axes))
    places = np.stack([each.place for each in slices])
    steps = np.diff(places, axis=0)
    if len(slices) < 2 or not np.allclose(steps, steps.mean(axis=0), atol=0.2) or np.abs(steps).max() < 1e-3:
        return None
    lps = np.eye(4)
    lps[:3, :2] = (slices[0].axes * slices[0].spacing[:, None]).T
    lps[:3, 2] = (places[-1] - places[0]) / (len(slices) - 1)
    lps[:3, 3] = places[0]
    return np.stack([each.values.T for each in slices], axis=-1), np.diag([-1, -1, 1, 1]) @ lps


@st.composite
def changes(draw) -> list[tuple[str, int | None, Any]]:
    """Kind of change or name of an attribute, number of the slice (None: all), and the value."""
    found = []
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(["attribute", "attribute", "attribute", "attribute", "move", "file", "bit", "cut"]))
        number = draw(st.integers(0, SLICES - 1))
        if kind == "attribute":
            name = draw(st.sampled_from(sorted(VALUES)))
            found.append((name, draw(st.sampled_from([number, None])), draw(st.sampled_from(VALUES[name]))))
        elif kind == "move":
            found.append((kind, number, draw(st.tuples(*[st.sampled_from([0.0, 0.0, 0.05, 1.3, 2.5, -2.5])] * 3))))
        elif kind == "file":
            found.append((kind, number, draw(st.sampled_from(["lost", "doubled", "renamed", "empty", "text"]))))
        else:
            found.append((kind, number, draw(st.integers(0, 8 * 1200))))
    return found


@functools.cache
def whole_series() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return [file.read_bytes() for file in write_series(Path(folder), array=HU[..., :SLICES])]


def edited(raw: bytes, wanted: list[tuple[str, Any]]) -> bytes:
    if not wanted:
        return raw
    dataset = pydicom.dcmread(io.BytesIO(raw))
    for kind, value in wanted:
        if kind in VALUES:
            change(dataset, kind, value)
        elif isinstance(dataset.get("ImagePositionPatient"), MultiValue):  # and not changed before
            old = dataset.ImagePositionPatient
            dataset.ImagePositionPatient = [a + b for a, b in zip(old, value)]
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def write_changed(folder: Path, wanted: list[tuple[str, int | None, Any]]) -> None:
    files = [folder / f"slice_{number}.dcm" for number in range(SLICES)]
    for number, (file, raw) in enumerate(zip(files, whole_series())):
        own = [(kind, value) for kind, place, value in wanted if place in (None, number)]
        file.write_bytes(edited(raw, [each for each in own if each[0] not in ("file", "bit", "cut")]))
    for kind, place, value in wanted:
        if kind in ("file", "bit", "cut") and files[place].exists():
            change_file(files[place], kind, value)


def change_file(file: Path, kind: str, value: Any) -> None:
    raw = bytearray(file.read_bytes())
    if kind == "bit" and value // 8 < len(raw):
        raw[value // 8] ^= 1 << value % 8
        file.write_bytes(raw)
    elif kind == "cut":
        file.write_bytes(raw[: value // 8])
    elif value == "empty":
        file.write_bytes(b"")
    elif value == "text":
        file.with_name("notes.txt").write_text("no slice")
    elif value == "doubled":
        file.with_name("copy.dcm").write_bytes(raw)
    elif value == "lost":
        file.unlink()
    elif value == "renamed":
        file.rename(file.with_name("zz.dcm"))


@settings(max_examples=70, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes())
def test_series_is_read_right_or_refused(tmp_path, wanted):
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom, on odd values
        write_changed(folder, wanted)
        truth = truth_of(folder)
        loaded = read_or_refused(lambda: LoadVolume()(folder), folder)
        volume = read_or_refused(lambda: LoadSlice().volume(folder), folder)
        by_monai = read_or_refused(
            lambda: find_volumes(folder) and LoadImage(ensure_channel_first=True)(folder), folder
        )
    assert (loaded is None) == (volume is None) == (by_monai is None) == (truth is None)
    if truth is not None:
        for array, affine in (
            (loaded[0], loaded.affine),
            (by_monai[0], by_monai.affine),
            (volume.array, volume.affine),
        ):
            np.testing.assert_allclose(array, truth[0], rtol=1e-6, atol=1e-3)
            np.testing.assert_allclose(affine, truth[1], atol=1e-3)
