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

"""Segments volumes with a student that `python -m monai_kd export` wrote.

    python run_exported_volumes.py models/model.onnx ct.nii.gz --output masks
    python run_exported_volumes.py models/model.onnx folder_of_series --output masks

It stands alone: copy it to where the student is to run. It needs numpy and nibabel, pydicom for DICOM, and
onnxruntime (.onnx) or openvino (.xml); neither torch nor MONAI nor monai_kd.

How a volume is turned, resampled, windowed, cropped and cut into windows, and what the logits mean, is read from the
file of the student. For each volume there will be a mask of its size and geometry, `NAME.nii.gz`, with the numbers of
the classes. The volume is processed slice by slice from one end to the other, so that only the part under the windows
is held with all classes. A volume that cannot be read is passed over and listed at the end, with exit code 1; with
--strict it ends the run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

VOLUMES = (".nii", ".nii.gz")
ENTRIES = ("reader", "in_channels", "input_shape", "classes", "size", "window", "mean", "std", "activation", "crop")
ENTRIES += (
    "threshold",
    "other",
    "patch_size",
    "spacing",
    "orientation",
    "overlap",
    "blending",
    "slice_axis",
    "inverse",
)
Network = Callable[[np.ndarray], np.ndarray]
APART = 1e-2  # of mm or of a part, where slices of a series may differ


@dataclass
class Volume:
    """Voxels (X, Y, Z) and the affine from voxels to mm (right, anterior, superior)."""

    voxels: np.ndarray
    affine: np.ndarray


def load_student(path: Path) -> tuple[Network, dict[str, Any]]:
    """The network as a function from windows (B, C, *spatial) to logits, and the block of metadata in its file."""
    if not path.is_file():
        raise ValueError(f"`model` must be a file, but got {path}, which is not there.")
    loaders = {".onnx": _load_onnx, ".xml": _load_openvino}
    if path.suffix not in loaders:
        raise ValueError(f"`model` must be .onnx or .xml, but got {path}.")
    try:
        network, text = loaders[path.suffix](path)
    except ImportError:
        raise
    except Exception as error:  # each runtime raises errors of its own
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"`model` must be a whole file, but got {path}: {said}") from error
    return network, _block(text, path)


def _load_onnx(path: Path) -> tuple[Network, str | None]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map.get("monai_kd")
    return lambda windows: session.run(["pred"], {"image": windows})[0], text


def _load_openvino(path: Path) -> tuple[Network, str | None]:
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    text = model.get_rt_info("monai_kd").value if model.has_rt_info("monai_kd") else None
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda windows: compiled(windows)[0], text


def _block(text: str | None, path: Path) -> dict[str, Any]:
    """The metadata, when it says of the student that volumes of one channel are what it takes."""
    try:
        block = json.loads(text or "null")
    except ValueError:
        block = text
    missing = ENTRIES if not isinstance(block, dict) else [name for name in ENTRIES if name not in block]
    if missing:
        raise ValueError(
            f"`model` must hold metadata with {', '.join(ENTRIES)}, but got {path} without {', '.join(missing)}; write "
            "it by `python -m monai_kd export`."
        )
    if block["reader"] == "LoadRGB" or block["in_channels"] != 1:
        raise ValueError(
            f"`model` must take volumes of one channel, but got one of {block['in_channels']} that reads by "
            f"{block['reader']}; run_exported.py is for frames."
        )
    beyond = {key: block[key] for key in ("other", "size") if block[key]}
    if block["slice_axis"] not in (None, 2):
        beyond["slice_axis"] = block["slice_axis"]
    if beyond or not block["patch_size"]:
        raise ValueError(
            "`model` must ask for orientation, spacing, a window, normalising, a crop and a sliding window alone, but "
            f"got {beyond or 'no patch_size'}."
        )
    return block


# reading


def find_volumes(path: Path) -> dict[str, Path]:
    """NIfTI files and folders of one DICOM series each, by the names of their masks."""
    if not path.exists():
        raise ValueError(f"`input` must be a volume or a folder, but got {path}, which is not there.")
    if path.is_file():
        return {_stem(path): path}
    found: dict[str, Path] = {}
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        shown = sorted(name for name in names if not name.startswith("."))
        files = [Path(folder, name) for name in shown if name.lower().endswith(VOLUMES)]
        if not files and any(_is_dicom(Path(folder, name)) for name in shown):
            files = [Path(folder)]
        for file in files:
            parts = file.relative_to(path).parts or (path.name,)
            found["_".join((*parts[:-1], _stem(file)))] = file
    if not found:
        raise ValueError(f"`input` must hold NIfTI files or DICOM series, but got {path} without any.")
    return found


def _stem(path: Path) -> str:
    name = path.name
    return next((name[: -len(end)] for end in (".nii.gz", ".nii") if name.lower().endswith(end)), name)


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def load(path: Path) -> Volume:
    """A NIfTI file or a DICOM series."""
    volume = load_dicom(path) if path.is_dir() else load_nifti(path)
    if not np.isfinite(volume.voxels).all():
        raise ValueError("it must have finite values alone, but got NaN or infinity.")
    return volume


def load_nifti(path: Path) -> Volume:
    """A NIfTI file with three axes."""
    image = nibabel.load(path)
    if len(image.shape) != 3 or 0 in image.shape:
        raise ValueError(f"it must have three axes, but got the shape {image.shape}.")
    return Volume(np.asarray(image.dataobj, np.float32), np.asarray(image.affine, float))


def load_dicom(folder: Path) -> Volume:
    """The series of a folder: slices of one size, parallel, and equally far apart."""
    import pydicom

    files = [file for file in sorted(folder.iterdir()) if file.is_file() and _is_dicom(file)]
    slices = [pydicom.dcmread(file) for file in files]
    slices = [each for each in slices if "PixelData" in each and "ImagePositionPatient" in each]
    if len({each.SeriesInstanceUID for each in slices}) != 1:
        raise ValueError(f"it must be one series with positions, but got {len({e.SeriesInstanceUID for e in slices})}.")
    rows, columns = np.reshape(np.array(slices[0].ImageOrientationPatient, float), (2, 3))
    normal = np.cross(rows, columns)
    slices.sort(key=lambda each: float(normal @ np.array(each.ImagePositionPatient, float)))
    for each in slices[1:]:
        same = (each.Rows, each.Columns) == (slices[0].Rows, slices[0].Columns)
        turned = np.abs(np.array(each.ImageOrientationPatient, float) - [*rows, *columns]).max() > APART
        scaled = np.abs(np.array(each.PixelSpacing, float) - np.array(slices[0].PixelSpacing, float)).max() > APART
        if not same or turned or scaled:
            raise ValueError("its slices must have one size, spacing and direction, but got others among them.")
    positions = np.array([each.ImagePositionPatient for each in slices], float)
    step = (positions[-1] - positions[0]) / max(1, len(slices) - 1) if len(slices) > 1 else normal
    expected = positions[0] + np.arange(len(slices))[:, None] * step
    if np.abs(positions - expected).max() > max(0.1, APART * float(np.linalg.norm(step))):
        raise ValueError("its slices must be equally far apart, but some are missing, doubled or moved.")
    voxels = np.stack([_hounsfield(each).T for each in slices], axis=-1)  # columns, rows, slices
    spacing = np.array(slices[0].PixelSpacing, float)  # of rows, then of columns
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = rows * spacing[1], columns * spacing[0], step
    affine[:3, 3] = positions[0]
    return Volume(voxels, np.diag([-1.0, -1, 1, 1]) @ affine)  # DICOM counts to the left and back


def _hounsfield(item: Any) -> np.ndarray:
    slope, intercept = float(item.get("RescaleSlope", 1)), float(item.get("RescaleIntercept", 0))
    return item.pixel_array.astype(np.float32) * slope + intercept


# preparing, and bringing the mask back


def orientation(affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """nibabel's tables that turn the axes to codes as RAS, and back."""
    own, target = nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(codes)
    change = nibabel.orientations.ornt_transform
    return change(own, target), change(target, own)


def turn(volume: Volume, table: np.ndarray) -> Volume:
    """The volume with its axes turned; values stay."""
    voxels = nibabel.orientations.apply_orientation(volume.voxels, table)
    return Volume(voxels, volume.affine @ nibabel.orientations.inv_ornt_aff(table, volume.voxels.shape))


def places(size: int, own: float, other: float, count: int) -> np.ndarray:
    """Where `count` voxels of another spacing lie on an axis, in voxels of this one, kept inside."""
    return np.clip(np.arange(count) * other / own, 0, size - 1)


def between(array: np.ndarray, axis: int, place: np.ndarray) -> np.ndarray:
    """The values of an array at places between its voxels along an axis, linear."""
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, array.shape[axis] - 1)
    shape = [1] * array.ndim
    shape[axis] = -1
    part = (place - low).astype(np.float32).reshape(shape)
    return array.take(low, axis) * (1 - part) + array.take(high, axis) * part


def resample(volume: Volume, spacing: list[float]) -> Volume:
    """The volume with voxels of another size in mm; a negative one stays."""
    own = np.linalg.norm(volume.affine[:3, :3], axis=0)
    wanted = np.array([new if new > 0 else old for new, old in zip([*spacing, -1, -1][:3], own)])
    voxels = volume.voxels
    for axis in range(3):
        size = voxels.shape[axis]
        count = round((size - 1) * own[axis] / wanted[axis] + 1)
        voxels = between(voxels, axis, places(size, own[axis], wanted[axis], count))
    affine = volume.affine @ np.diag([*(wanted / own), 1])
    return Volume(voxels, affine)


def crop(voxels: np.ndarray, size: list[int]) -> tuple[np.ndarray, list[tuple[slice, slice]]]:
    """Around the centre, padded by 0; and for each axis what of the crop is what of the volume."""
    shared = []
    target = [length if side < 0 else side for length, side in zip(voxels.shape, size)]
    result = np.zeros(target, np.float32)
    for length, side in zip(voxels.shape, target):
        if side >= length:
            start = (side - length) // 2
            shared.append((slice(start, start + length), slice(0, length)))
        else:
            start = max(length // 2 - side // 2, 0)
            shared.append((slice(0, side), slice(start, start + side)))
    inside, outside = (tuple(pair[place] for pair in shared) for place in (0, 1))
    result[inside] = voxels[outside]
    return result, shared


def normalise(voxels: np.ndarray, block: dict[str, Any]) -> np.ndarray:
    """Window, mean and standard deviation."""
    if block["window"]:
        lower, upper = block["window"]
        voxels = np.clip((voxels - lower) / (upper - lower), 0, 1)
    if block["mean"]:
        voxels = (voxels - block["mean"][0]) / block["std"][0]
    return voxels.astype(np.float32, copy=False)


# the sliding window


def starts(length: int, side: int, overlap: float) -> list[int]:
    """Where windows begin on an axis; the last one ends with it."""
    if side >= length:
        return [0]
    interval = max(1, int(side * (1 - overlap)))
    count = next(number for number in range(length) if number * interval + side >= length) + 1
    return [min(number * interval, length - side) for number in range(count)]


def importance(sides: list[int], blending: str) -> np.ndarray:
    """How much each voxel of a window counts."""
    if blending == "constant":
        return np.ones(sides, np.float32)
    result = np.ones(())
    for side in sides:
        place = np.arange(side) - (side - 1) / 2
        result = result[..., None] * np.exp(place**2 / (-2 * (0.125 * side) ** 2))
    return np.maximum(result, max(float(result.min()), 1e-3)).astype(np.float32)


def slices_of_logits(image: np.ndarray, network: Network, block: dict[str, Any], batch: int) -> Iterator[np.ndarray]:
    """
    The logits (C, X, Y) of each slice of an image (X, Y, Z), from the first to the last. Only the slices under the
    present windows are held.
    """
    sides = list(block["patch_size"])
    flat = block["slice_axis"] == 2
    sides = [*sides[:2], 1] if flat else sides
    sides = [side if side > 0 else length for side, length in zip(sides, image.shape)]
    missing = [max(side - length, 0) for side, length in zip(sides, image.shape)]
    padded = np.pad(image, [(each // 2, each - each // 2) for each in missing])
    weight = importance(sides[:2] if flat else sides, block["blending"])
    weight = weight[..., None] if flat else weight
    overlap = block["overlap"] if isinstance(block["overlap"], list) else [block["overlap"]] * 3
    begins = [starts(length, side, part) for length, side, part in zip(padded.shape, sides, overlap)]
    corners = [(x, y) for x in begins[0] for y in begins[1]]
    total = count = None
    first = missing[2] // 2
    for number, z in enumerate(begins[2]):
        windows = [padded[x : x + sides[0], y : y + sides[1], z : z + sides[2]] for x, y in corners]
        for at in range(0, len(windows), batch):
            inputs = np.ascontiguousarray(np.stack(windows[at : at + batch])[:, None])
            logits = network(inputs[..., 0] if flat else inputs)
            logits = logits[..., None] if flat else logits
            if total is None:
                total = np.zeros((logits.shape[1], *padded.shape[:2], sides[2]), np.float32)
                count = np.zeros((*padded.shape[:2], sides[2]), np.float32)
            for (x, y), one in zip(corners[at : at + batch], logits):
                total[:, x : x + sides[0], y : y + sides[1]] += one * weight
                count[x : x + sides[0], y : y + sides[1]] += weight
        last = number + 1 == len(begins[2])
        done = sides[2] if last else begins[2][number + 1] - z
        for depth in range(done):
            if first <= z + depth < first + image.shape[2]:
                left, top = missing[0] // 2, missing[1] // 2
                ready = total[..., depth] / count[..., depth]
                yield ready[:, left : left + image.shape[0], top : top + image.shape[1]]
        for buffer in (total, count):
            buffer[..., : sides[2] - done] = buffer[..., done:].copy()
            buffer[..., sides[2] - done :] = 0


def labels_of(values: np.ndarray, block: dict[str, Any]) -> np.ndarray:
    """The number of the class (X, Y) of logits or probabilities (C, X, Y)."""
    if len(values) == 1:
        return (values[0] >= (block["threshold"] or 0.5)).astype(np.uint8)
    if block["threshold"] and len(values) == 2:
        return (values[1] >= block["threshold"]).astype(np.uint8)
    return values.argmax(0).astype(np.uint8)


def probabilities(logits: np.ndarray, block: dict[str, Any]) -> np.ndarray:
    """What the mask is taken from: probabilities where the bundle has an activation."""
    if block["activation"] == "sigmoid" or len(logits) == 1:
        return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
    if block["activation"] == "softmax":
        weights = np.exp(logits - logits.max(0, keepdims=True))
        return weights / weights.sum(0, keepdims=True)
    return logits


def segment(volume: Volume, network: Network, block: dict[str, Any], batch: int = 4, show: Any = None) -> Volume:
    """The mask of a volume, of its size and geometry."""
    own = "".join(nibabel.aff2axcodes(volume.affine))
    there, back = orientation(volume.affine, "".join(block["orientation"] or own))
    turned = turn(volume, there)
    fine = resample(turned, block["spacing"]) if block["spacing"] else turned
    voxels = normalise(fine.voxels, block)
    image, shared = crop(voxels, block["crop"]) if block["crop"] else (voxels, [])
    values = (probabilities(logits, block) for logits in slices_of_logits(image, network, block, batch))
    if shared:
        values = _uncropped(values, shared, voxels.shape)
    values = _shown(values, show, voxels.shape[2])
    if fine is turned or block["inverse"] == "nearest":
        mask = np.stack([labels_of(one, block) for one in values], axis=-1)
        if fine is not turned:
            mask = mask[np.ix_(*(np.rint(place).astype(int) for place in _back(turned, fine)))]
    else:
        mask = _smooth(values, turned, fine, block)
    return Volume(turn(Volume(mask, turned.affine), back).voxels, volume.affine)


def _uncropped(values: Iterator[np.ndarray], shared: list[Any], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Slices of the whole volume: class 0 where the crop does not reach."""
    (x, left), (y, top), (z, below) = shared
    given: np.ndarray | None = None
    for number, one in enumerate(values):
        if given is None:
            given = np.zeros((len(one), *shape[:2]), np.float32)
            if len(one) > 1:
                given[0] = 1
            for _ in range(below.start):
                yield given
        if z.start <= number < z.stop:
            whole = given.copy()
            whole[:, left, top] = one[:, x, y]
            yield whole
    if given is not None:
        for _ in range(below.stop, shape[2]):
            yield given


def _back(turned: Volume, fine: Volume) -> list[np.ndarray]:
    """Where the voxels of the volume lie in the resampled one, for each axis."""
    own, other = (np.linalg.norm(each.affine[:3, :3], axis=0) for each in (fine, turned))
    sizes = zip(fine.voxels.shape, own, other, turned.voxels.shape)
    return [places(size, first, second, count) for size, first, second, count in sizes]


def _smooth(values: Iterator[np.ndarray], turned: Volume, fine: Volume, block: dict[str, Any]) -> np.ndarray:
    """Probabilities are brought back linearly, two slices at a time, and then compared."""
    x, y, z = _back(turned, fine)
    mask = np.zeros(turned.voxels.shape, np.uint8)
    given = enumerate(between(between(one, 1, x), 2, y) for one in values)
    held: dict[int, np.ndarray] = {}
    for number, place in enumerate(z):
        low = int(place)
        high = min(low + 1, fine.voxels.shape[2] - 1)
        while high not in held:
            index, one = next(given)
            held[index] = one
        held = {index: one for index, one in held.items() if index >= low}
        part = np.float32(place - low)
        mask[..., number] = labels_of(held[low] * (1 - part) + held[high] * part, block)
    return mask


def _shown(values: Iterator[np.ndarray], show: Any, total: int) -> Iterator[np.ndarray]:
    for number, one in enumerate(values, 1):
        if show is not None:
            show(number, total)
        yield one


# the command


def save(mask: Volume, path: Path) -> None:
    """Write a mask as a whole or not at all."""
    aside = path.with_name(f".partial-{os.getpid()}.nii.gz")
    try:
        nibabel.save(nibabel.Nifti1Image(mask.voxels, mask.affine), aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _progress(name: str) -> Callable[[int, int], None]:
    """A bar on a terminal, a line for each quarter elsewhere."""
    shown = [0]

    def show(number: int, total: int) -> None:
        part = number / total
        if sys.stderr.isatty():
            print(f"\r{name}: {part:4.0%}", end="\n" if number == total else "", file=sys.stderr, flush=True)
        elif math.floor(4 * part) > shown[0]:
            shown[0] = math.floor(4 * part)
            print(f"{name}: {part:.0%}", file=sys.stderr, flush=True)

    return show


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def main() -> None:
    parser = argparse.ArgumentParser(description="Segment volumes with an exported student.")
    parser.add_argument("model", type=_path, help="the student: .onnx or .xml")
    parser.add_argument("input", type=_path, help="a NIfTI file, a folder of a DICOM series, or a folder of both")
    parser.add_argument("--output", type=_path, default=Path("masks"), help="folder of the masks (default: masks)")
    parser.add_argument("--batch", type=int, default=4, help="windows at a time (default: 4)")
    parser.add_argument("--strict", action="store_true", help="stop at the first volume that cannot be read")
    options = parser.parse_args()
    if options.batch < 1:
        raise ValueError(f"`batch` must be at least 1, but got {options.batch}.")
    network, block = load_student(options.model)
    if os.path.realpath(options.output) == os.path.realpath(options.input):
        raise ValueError(f"`output` must be another folder than `input`, but got {options.output} for both.")
    volumes = find_volumes(options.input)
    options.output.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    for name, path in volumes.items():
        start = time.perf_counter()
        try:
            volume = load(path)
        except Exception as error:  # nibabel and pydicom raise errors of many kinds
            reason = f"{path} cannot be read, {type(error).__name__}: {' '.join(str(error).split())}"
            if options.strict:
                raise ValueError(reason) from error
            failed.append(reason)
            continue
        mask = segment(volume, network, block, options.batch, _progress(name))
        save(mask, options.output / f"{name}.nii.gz")
        print(f"{name}: {'x'.join(map(str, mask.voxels.shape))}, {time.perf_counter() - start:.1f} s", flush=True)
    print(f"{len(volumes) - len(failed)} masks of {', '.join(block['classes'])} in {options.output}")
    if failed:
        raise ValueError("\n  ".join([f"{len(failed)} of {len(volumes)} volumes could not be read:", *failed]))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except ImportError as error:
        sys.exit(f"error: {error.name} is needed for this file; pip install {error.name}")
