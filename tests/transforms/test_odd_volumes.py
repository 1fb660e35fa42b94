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

"""Any NIfTI file is read right, or refused in one line: headers and data changed at any place."""

from __future__ import annotations

import gzip
import re
import struct
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.transforms import LoadImage, Orientation

from monai_kd.data import find_volumes, scan_cases
from monai_kd.transforms import LoadSlice, LoadSliced, LoadVolume, LoadVolumed
from tests.transforms.odd_files import read_or_refused

HU = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
AFFINE = np.array([[-0.8, 0.1, 0, 25], [0.1, 0.8, 0, 30], [0, 0, 2.5, -100], [0, 0, 0, 1.0]])
START = 352  # bytes before the voxels
# place and form of what stands in the header
FIELDS = {
    "xyzt_units": (123, "B"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "magic": (344, "i"),
    **{f"dim{k}": (40 + 2 * k, "h") for k in range(8)},
    **{f"pixdim{k}": (76 + 4 * k, "f") for k in range(4)},
    **{f"quatern{k}": (256 + 4 * k, "f") for k in range(3)},
    **{f"qoffset{k}": (268 + 4 * k, "f") for k in range(3)},
    **{f"srow{k}": (280 + 4 * k, "f") for k in range(12)},
}
WHOLE = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 32, 64, 128, 256, 511, 512, 768, 1024, 1536, 2304, -1, -4, 4096, 32767]
REAL = [0.0, 1.0, -1.0, 0.5, 2.5, 1e-3, 1e-8, 1e38, 352.0, 353.0, 360.0, 348.0, np.nan, np.inf, -np.inf, -1024.0]
KINDS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}


class Truth(NamedTuple):
    """What a file holds; `affine` is None where no code says how the volume lies."""

    array: np.ndarray
    affine: np.ndarray | None


def header_of(raw: bytes) -> tuple[dict[str, Any], str] | None:
    for order in "<>":
        if len(raw) >= START and 1 <= struct.unpack_from(order + "h", raw, 40)[0] <= 7:
            return {name: struct.unpack_from(order + form, raw, at)[0] for name, (at, form) in FIELDS.items()}, order
    return None


def truth_of(raw: bytes) -> Truth | None:
    """What the standard says of a file's bytes, by itself; None where it is no volume of CT."""
    found = header_of(raw)
    if found is None:
        return None
    head, order = found
    if not 3 <= head["dim0"] <= 7:
        return None
    shape = [head[f"dim{k + 1}"] for k in range(head["dim0"])]
    kind = KINDS.get(head["datatype"])
    if raw[344:348] != b"n+1\0" or min(shape) < 1 or set(shape[3:]) - {1}:
        return None
    if kind is None or head["bitpix"] != 8 * np.dtype(kind).itemsize or head["xyzt_units"] & 7 in (1, 3):
        return None
    offset, count = head["vox_offset"], int(np.prod(shape))
    if not (START <= offset < 1e6 and offset == int(offset)):
        return None
    needed = int(offset) + count * np.dtype(kind).itemsize
    slab = shape[0] * shape[1] * np.dtype(kind).itemsize
    if not needed <= len(raw) < needed + slab:
        return None
    values = np.frombuffer(raw, order + kind, count, int(offset)).astype(np.float64).reshape(shape[:3], order="F")
    slope, inter = head["scl_slope"], head["scl_inter"]
    if np.isfinite(slope) and slope != 0:
        if not np.isfinite(inter):
            return None
        with np.errstate(over="ignore"):  # no value of a CT
            values = (values * slope + inter).astype(np.float32)
    code = head["sform_code"] or head["qform_code"]
    sizes = np.array([head[f"pixdim{k}"] for k in (1, 2, 3)])
    if not (0 <= code <= 5 and (head["sform_code"] or (sizes.min() > 0 and np.isfinite(sizes).all()))):
        return None
    if code == 0:
        return Truth(values, None)
    affine = np.eye(4)
    if head["sform_code"] > 0:
        affine[:3] = np.reshape([head[f"srow{k}"] for k in range(12)], (3, 4))
    else:
        b, c, d = (head[f"quatern{k}"] for k in range(3))
        rest = 1 - b * b - c * c - d * d
        if not (rest > -1e-6 and abs(head["pixdim0"]) in (0, 1)):
            return None
        a = np.sqrt(max(rest, 0))
        sizes[2] *= -1 if head["pixdim0"] < 0 else 1
        turn = [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
        affine[:3, :3] = np.array(turn) * sizes
        affine[:3, 3] = [head[f"qoffset{k}"] for k in range(3)]
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        return None
    return Truth(values, affine)


def nifti(values: np.ndarray = HU, sform: int = 1, qform: int = 1) -> bytes:
    image = nibabel.Nifti1Image(values, None, dtype=values.dtype)
    image.set_qform(AFFINE, qform)
    image.set_sform(AFFINE, sform)
    return image.to_bytes()


@st.composite
def odd_nifti(draw) -> bytes:
    """One or two changes of a header, of voxels, or of the end."""
    raw = bytearray(nifti(HU, *draw(st.sampled_from([(1, 1), (1, 0), (0, 1), (0, 0)]))))
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from(["field", "field", "field", "bit", "voxel", "end"]))
        if kind == "field":
            at, form = FIELDS[draw(st.sampled_from(sorted(FIELDS)))]
            value = draw(st.sampled_from(REAL if form == "f" else WHOLE))
            struct.pack_into("<" + form, raw, at, value % 256 if form == "B" else value)
        elif kind == "end":
            end = draw(st.integers(-len(raw), 300))
            return bytes(raw[:end]) if end < 0 else bytes(raw) + bytes(end)
        else:
            first, last = (0, START) if kind == "bit" else (START, len(raw))
            raw[draw(st.integers(first, last - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(raw)


def stored(folder: Path, raw: bytes, compressed: bool) -> Path:
    """A file of its own, since checksums are remembered by name, size and time."""
    file = Path(tempfile.mkdtemp(dir=folder)) / ("a.nii.gz" if compressed else "a.nii")
    file.write_bytes(gzip.compress(raw) if compressed else raw)
    return file


def check_place(affine: Any, truth: Truth) -> None:
    if truth.affine is not None:
        np.testing.assert_allclose(affine, truth.affine, rtol=1e-4, atol=1e-3)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd_nifti(), st.booleans())
def test_nifti_is_read_right_or_refused(tmp_path, raw, compressed):
    file, truth = stored(tmp_path, raw, compressed), truth_of(raw)
    loaded = read_or_refused(lambda: LoadVolume()(file), file)
    volume = read_or_refused(lambda: LoadSlice().volume(file), file)
    by_monai = read_or_refused(lambda: find_volumes(file) and LoadImage(ensure_channel_first=True)(file), file)
    assert (loaded is None) == (volume is None) == (truth is None), truth
    if truth is None:
        assert by_monai is None
        return
    np.testing.assert_allclose(loaded[0], truth.array, rtol=1e-6, atol=1e-4)
    with np.errstate(over="ignore"):
        values = np.asarray(volume.array).astype(np.float32)
    np.testing.assert_allclose(values, truth.array, rtol=1e-6, atol=1e-4)
    check_place(loaded.affine, truth)
    check_place(volume.affine, truth)
    if by_monai is not None:  # which takes other affines
        np.testing.assert_allclose(by_monai[0], truth.array, rtol=1e-6, atol=1e-4)
        check_place(by_monai.affine, truth)
    whole = Orientation("RAS", labels=None)(loaded)
    np.testing.assert_array_equal(LoadSlice()(file, 0), whole[..., 0])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_compressed_bytes_are_read_right_or_refused(tmp_path, data):
    raw = nifti()
    whole = gzip.compress(raw, mtime=0)
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    odd = data.draw(st.sampled_from([bytes(changed), whole[:place], whole + whole[:place], whole + bytes(place)]))
    file = stored(tmp_path, raw, True)
    file.write_bytes(odd)
    loaded = read_or_refused(lambda: LoadVolume()(file), file)
    volume = read_or_refused(lambda: LoadSlice().volume(file), file)
    assert (loaded is None) == (volume is None)
    if loaded is not None:
        np.testing.assert_array_equal(loaded[0], HU)
        np.testing.assert_array_equal(volume.array, HU)
        np.testing.assert_allclose(loaded.affine, AFFINE, atol=1e-5)


LABEL = (HU % 3).astype(np.int16)
VALUES = {"i1": 127, "u1": 255, "i2": 300, "u2": 65535, "i4": -1, "f4": 1.5, "f8": np.nan, "c8": 1j, "u8": 2**63}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(VALUES)), st.booleans(), st.sampled_from(["uint8", "int16", "float32"]))
def test_label_is_read_right_or_refused(tmp_path, kind, odd, dtype):
    values = LABEL.astype(kind)
    if odd:
        values[2, 3, 1] = VALUES[kind]
    image, label = stored(tmp_path, nifti(), True), stored(tmp_path, nifti(values), False)
    item = {"image": image, "label": label}
    whole = read_or_refused(lambda: LoadVolumed(["image", "label"], dtype=[np.float32, dtype])(item), label)
    load = LoadSliced(["image", "label"], dtype=[np.float32, dtype])
    section = read_or_refused(lambda: load({**item, "slice": 1}), label)
    assert (whole is None) == (section is None) == (kind == "c8" or not fits(values, dtype))
    if whole is not None:
        np.testing.assert_array_equal(whole["label"][0], values.astype(np.float32))
        expected = Orientation("RAS", labels=None)(whole["label"])
        np.testing.assert_array_equal(section["label"], expected[..., 1])
    case = {**item, "case": str(label)}
    scan = read_or_refused(lambda: scan_cases([case], progress=False)[0]["labels"], label)
    counted = {int(v): sorted({*np.nonzero(values == v)[2].tolist()}) for v in np.unique(values) if v == v and v}
    assert scan == (None if kind == "c8" or (odd and kind in ("f4", "f8")) else counted)


def fits(values: np.ndarray, dtype: str) -> bool:
    if dtype == "float32":
        return True
    limits = np.iinfo(dtype)
    exact = values.astype(np.float64)
    return bool(np.all((exact == np.rint(exact)) & (exact >= limits.min) & (exact <= limits.max)))


HEADS = {
    "a.mha": "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 10 20 -30\n"
    "ElementSpacing = 0.8 0.7 2.5\nDimSize = 6 5 4\nElementType = MET_SHORT\nElementDataFile = LOCAL\n",
    "a.nrrd": "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 5 4\n"
    "space directions: (0.8,0,0) (0,0.7,0) (0,0,2.5)\nkinds: domain domain domain\nendian: little\n"
    "encoding: raw\nspace origin: (10,20,-30)\n\n",
}
OPTIONAL = {
    "ObjectType",
    "BinaryData",
    "BinaryDataByteOrderMSB",
    "CompressedData",
    "TransformMatrix",
    "Offset",
    "kinds",
    "space origin",
}
SIZE = {"a.mha": "DimSize = {} {} {}", "a.nrrd": "sizes: {} {} {}"}
SPACING = {"a.mha": "ElementSpacing = {} {} {}", "a.nrrd": "space directions: ({},0,0) (0,{},0) (0,0,{})"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(HEADS)), st.sampled_from(["size", "spacing", "line", "end"]), st.data())
def test_nrrd_and_metaimage_are_read_right_or_refused(tmp_path, name, kind, data):
    head, size, spacing = HEADS[name], (6, 5, 4), (0.8, 0.7, 2.5)
    raw, right = head.encode() + HU.tobytes(order="F"), True
    if kind == "size":
        size = data.draw(st.tuples(st.sampled_from([6, 5, 0]), st.sampled_from([5, 6]), st.sampled_from([4, 3, 8])))
        raw = raw.replace(SIZE[name].format(6, 5, 4).encode(), SIZE[name].format(*size).encode())
        right = size[0] * size[1] * size[2] <= HU.size < size[0] * size[1] * (size[2] + 1)
    elif kind == "spacing":
        spacing = data.draw(st.tuples(*[st.sampled_from([0.8, 2, 1e2, 0, "nan", "x", ""])] * 3))
        raw = raw.replace(SPACING[name].format(0.8, 0.7, 2.5).encode(), SPACING[name].format(*spacing).encode())
        right = not {0, "nan", "x", ""} & set(spacing)
    elif kind == "line":
        lost = data.draw(st.sampled_from(head.strip().split("\n")))
        raw = raw.replace(lost.encode() + b"\n", b"", 1)
        right = re.split(" =|:", lost)[0] in OPTIONAL
    else:
        end = data.draw(st.integers(-len(raw), 50))
        raw = raw[:end] if end < 0 else raw + bytes(end)
        right = end >= 0
    file = Path(tempfile.mkdtemp(dir=tmp_path), name)
    file.write_bytes(raw)
    loaded = read_or_refused(lambda: LoadVolume()(file), file)
    volume = read_or_refused(lambda: LoadSlice().volume(file), file)
    assert (loaded is not None) == (volume is not None) == right
    if right:
        values = HU.ravel(order="F")[: np.prod(size)].reshape(size, order="F")
        for array, affine in ((loaded[0], loaded.affine), (volume.array, volume.affine)):
            np.testing.assert_array_equal(array, values)
            np.testing.assert_allclose(affine[:3, :3], np.diag([-1, -1, 1]) * spacing, rtol=1e-6)
