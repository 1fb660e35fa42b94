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

"""Segments a folder of frames or a video with a student that `python -m monai_kd export` wrote.

    python run_exported.py models/model.onnx frames --output masks
    python run_exported.py models/model.ts video.mp4 --output masks --device cuda

It stands alone: copy it to where the student is to run. It needs numpy and pillow, onnxruntime (.onnx), torch (.ts) or
openvino (.xml), and av for videos; neither monai_kd nor MONAI.

How a frame is resized and normalised, and what the logits mean, is read from the file of the student. For each frame
there will be a mask of its size, `NAME_mask.png`: 0 and 255, or the number of the class where there are several. NAME
is the path below the folder with `_` between its parts, and for videos and files of several pages the number of the
frame. Hidden files, the folder of the masks and the student itself are passed over. What has no range that is known
(pictures of floating point or 32 bits) or is cut off is passed over and listed at the end, with exit code 1; with
--strict it ends the run. Folders of masks beside one of images are passed over. All as in monai_kd, whose `Frames` and
`LoadRGB` these rules are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

PICTURES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".gif")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".mts")
PART = r"(_(c|seq)\d+)?"
IMAGE_FOLDER = re.compile(r"(images?|original|bbdd)" + PART, re.IGNORECASE)
MASK_FOLDER = re.compile(r"(masks?|labels?|ground[ _]truth|gt|gtpolyp)" + PART, re.IGNORECASE)
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # of 8 bits; 16 bits are "I;16"
ENTRIES = ("reader", "in_channels", "input_shape", "channels", "classes", "size", "window", "mean", "std", "activation")
ENTRIES += ("threshold", "other", "crop", "patch_size", "spacing", "orientation", "precision")
Network = Callable[[np.ndarray], np.ndarray]


def load_student(path: Path, device: str = "cpu") -> tuple[Network, dict[str, Any]]:
    """The network as a function from images (B, C, H, W) to logits, and the block of metadata in its file."""
    if not path.is_file():
        raise ValueError(f"`model` must be a file, but got {path}, which is not there.")
    loaders = {".onnx": _load_onnx, ".ts": _load_torchscript, ".xml": _load_openvino}
    if path.suffix not in loaders:
        raise ValueError(f"`model` must be .onnx, .ts or .xml, but got {path}.")
    try:
        network, text = loaders[path.suffix](path, device)
    except (ImportError, ValueError):
        raise
    except Exception as error:  # each runtime raises errors of its own
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"`model` must be a whole file for {device}, but got {path}: {said}") from error
    return network, _block(text, path)


def _has_device(there: bool, device: str, why: str) -> None:
    if not there:
        raise ValueError(f"`device` must be one that is here, but got {device}: {why}.")


def _load_onnx(path: Path, device: str) -> tuple[Network, str | None]:
    import onnxruntime

    providers = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    _has_device(device in providers, device, "onnxruntime takes cpu or cuda here")
    missing = f"onnxruntime has no {providers[device]} that works; pip install onnxruntime-gpu"
    _has_device(providers[device] in onnxruntime.get_available_providers(), device, missing)
    session = onnxruntime.InferenceSession(str(path), providers=[providers[device]])
    _has_device(providers[device] in session.get_providers(), device, missing)  # it takes the CPU instead
    text = session.get_modelmeta().custom_metadata_map.get("monai_kd")
    return lambda images: session.run(["pred"], {"image": images})[0], text


def _load_torchscript(path: Path, device: str) -> tuple[Network, str | None]:
    import torch

    if path.stem.endswith(("_trt", "_trt_fp16")):
        import torch_tensorrt  # noqa: F401  its operators are in the file
    _has_device(torch.cuda.is_available() or not device.startswith("cuda"), device, "torch sees no GPU")
    files = {"metadata.json": ""}
    module = torch.jit.load(str(path), map_location=device, _extra_files=files).eval()
    metadata = json.loads(files["metadata.json"] or "{}")

    def network(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images).to(device)).float().cpu().numpy()

    return network, json.dumps(metadata.get("monai_kd"))


def _load_openvino(path: Path, device: str) -> tuple[Network, str | None]:
    import openvino

    core = openvino.Core()
    _has_device(device.upper() in core.available_devices, device, f"OpenVINO has {', '.join(core.available_devices)}")
    model = core.read_model(str(path))
    text = model.get_rt_info("monai_kd").value if model.has_rt_info("monai_kd") else None
    exact = {"INFERENCE_PRECISION_HINT": "f32"} if _block(text, path)["precision"] == "float32" else {}
    compiled = core.compile_model(model, device.upper(), exact)
    return lambda images: compiled(images)[0], text


def _block(text: str | None, path: Path) -> dict[str, Any]:
    """The metadata, when it says of the student that frames are what it takes."""
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
    if block["reader"] != "LoadRGB" or block["in_channels"] != 3 or len(block["input_shape"]) != 3:
        raise ValueError(
            f"`model` must take RGB frames, but got one that reads {block['channels']} by {block['reader']}."
        )
    beyond = {key: block[key] for key in ("other", "crop", "patch_size", "spacing", "orientation") if block[key]}
    if beyond:
        raise ValueError(f"`model` must ask for resizing, a window and normalising alone, but got {beyond}.")
    return block


def find_files(path: Path, passed_over: tuple[Path, ...] = ()) -> dict[str, Path]:
    """The pictures and videos by the names of their masks: a file, or all files at any depth below a folder."""
    if not path.exists():
        raise ValueError(f"`input` must be a picture, a video or a folder, but got {path}, which is not there.")
    files: dict[str, Path] = {}
    for file in [path] if path.is_file() else _below(path, {os.path.realpath(other) for other in passed_over}):
        if file.suffix.lower() not in PICTURES + VIDEOS:
            continue
        name = "_".join((*file.parent.relative_to(path).parts, file.stem) if path.is_dir() else (file.stem,))
        if name in files:
            raise ValueError(f"`input` must have different names, but got `{name}` for {files[name]} and {file}.")
        files[name] = file
    if not files:
        raise ValueError(f"`input` must hold pictures or videos, but got {path} without any.")
    for name, file in files.items():
        numbered = re.fullmatch(r"(.+)_\d{6,}", name)
        whole = files.get(numbered[1]) if numbered else None
        if whole is not None and (_is_video(whole) or _has_pages(whole)):
            raise ValueError(f"`input` must have different names, but got `{name}` for {file} and a frame of {whole}.")
    if any(map(_is_video, files.values())):
        import av  # noqa: F401  a missing one is told before the first mask
    return files


def _below(path: Path, passed_over: set[str]) -> Iterator[Path]:
    seen = set(passed_over)  # links may lead in circles
    for folder, inner, names in os.walk(path, followlinks=True):
        if os.path.realpath(folder) in seen:
            inner.clear()
            continue
        seen.add(os.path.realpath(folder))
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if any(IMAGE_FOLDER.fullmatch(name) or name == Path(folder).name for name in inner):
            inner[:] = [name for name in inner if not MASK_FOLDER.fullmatch(name)]
        files = [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
        yield from (file for file in files if os.path.realpath(file) not in passed_over)


def _is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEOS


def _has_pages(file: Path) -> bool:
    try:
        with Image.open(file) as image:
            return _pages(image) > 1
    except Exception:  # it is named when it is its turn
        return False


def frames(files: dict[str, Path], step: int = 1, failed: list[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """
    Name and pixels, (3, H, W) in [0, 1], of each picture and of every `step`-th frame of a video or page. What cannot
    be read is an error, or goes to the list `failed`.
    """
    for name, file in files.items():
        try:
            for number, pixels in (_video if _is_video(file) else _picture)(file, step):
                yield name if number is None else f"{name}_{number:06d}", pixels
        except Exception as error:  # Pillow and PyAV raise errors of many kinds, most of them without the name
            reason = f"{file} cannot be read, {type(error).__name__}: {error}"
            if failed is None:
                raise ValueError(reason) from error
            failed.append(reason)


def _pages(image: Image.Image) -> int:
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # the second of an MPO is a preview


def _picture(file: Path, step: int) -> Iterator[tuple[int | None, np.ndarray]]:
    with Image.open(file) as image:
        pages = _pages(image)
        if pages == 1:
            yield None, _rgb(ImageOps.exif_transpose(image), image.format)
            return
        for number in range(pages):
            image.seek(number)
            image.load()
            if number % step == 0:
                yield number, np.round(255 * _rgb(image, image.format)).astype(np.uint8) / np.float32(255)


def _rgb(image: Image.Image, kind: str | None) -> np.ndarray:
    if image.mode not in MODES and not image.mode.startswith("I;16") and (image.mode, kind) != ("I", "PNG"):
        raise ValueError(f"it must have 8 or 16 bits a channel, but got mode {image.mode}; save it as PNG.")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float32) / 65535
        return np.repeat(grey[None], 3, axis=0)
    if "transparency" in image.info or image.mode == "PA":
        image = image.convert("RGBA")
    return (np.asarray(image.convert("RGB")).astype(np.float32) / 255).transpose(2, 0, 1)


def _video(file: Path, step: int) -> Iterator[tuple[int | None, np.ndarray]]:
    import av

    count, end = 0, 0.0
    with av.open(str(file)) as container:
        if not container.streams.video:
            raise ValueError("it holds no pictures.")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for count, frame in enumerate(container.decode(stream), 1):
            if frame.time is not None:
                end = max(end, frame.time + float((frame.duration or 0) * (frame.time_base or 0)))
            if (count - 1) % step == 0:
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                yield count - 1, (pixels.astype(np.float32) / 255).transpose(2, 0, 1)
        held = _cut_off(container, stream, count, end)
    if not count or held:
        raise ValueError(f"it is truncated, it holds {held or 'no frame'}; copy it once more.")


def _cut_off(container: Any, stream: Any, count: int, end: float) -> str | None:
    """What a video holds if it ends early. The number of frames is no proof: MP4 may hide some and AVI repeat some."""
    if 0 < stream.frames <= count:
        return None
    if container.format.name == "avi":  # its durations are those of the file as it is
        whole = float(stream.frames * stream.time_base)
    elif stream.duration:
        whole = float(stream.duration * stream.time_base)
    else:  # MKV tells the length of the pictures alone, "00:01:02.5"; sound may be longer
        tagged = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
        parts = [float(part) for part in tagged.groups()] if tagged else [0, 0, (container.duration or 0) / 1e6]
        whole = 3600 * parts[0] + 60 * parts[1] + parts[2]
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    end = max(end, count / rate)
    if whole - end <= (2.5 / rate if stream.frames else 1 + 0.05 * whole):
        return None
    return f"{count} of {stream.frames} frames" if stream.frames else f"{count} frames, {end:.2f} of {whole:.2f} s"


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(C, H, W) at another size: linear between the centres of pixels, as torch's bilinear interpolation."""
    for axis, target in ((1, size[0]), (2, size[1])):
        source = image.shape[axis]
        place = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, source - 1)
        part = (place - low).astype(np.float32).reshape((-1, 1) if axis == 1 else (1, -1))
        image = image.take(low, axis) * (1 - part) + image.take(high, axis) * part
    return image


def prepare(frame: np.ndarray, block: dict[str, Any]) -> np.ndarray:
    """The image that the network takes of a frame."""
    image = resize(frame, tuple(block["size"] or block["input_shape"][1:]))
    if block["window"]:
        lower, upper = block["window"]
        image = np.clip((image - lower) / (upper - lower), 0, 1)
    if block["mean"]:
        image = (image - np.reshape(block["mean"], (-1, 1, 1))) / np.reshape(block["std"], (-1, 1, 1))
    return np.ascontiguousarray(image, dtype=np.float32)


def mask_of(logits: np.ndarray, size: tuple[int, int], block: dict[str, Any]) -> np.ndarray:
    """The mask of a frame, (H, W): 0 and 255, or numbers of classes; (C, H, W) of classes that may overlap."""
    if len(logits) == 1 or block["activation"] == "sigmoid":
        probability = resize(1 / (1 + np.exp(-np.clip(logits, -80, 80))), size)
        masks = np.where(probability >= (block["threshold"] or 0.5), 255, 0).astype(np.uint8)
        return masks[0] if len(masks) == 1 else masks
    weights = np.exp(logits - logits.max(0, keepdims=True))
    probability = resize(weights / weights.sum(0, keepdims=True), size)
    if len(probability) == 2:
        return np.where(probability[1] >= (block["threshold"] or 0.5), 255, 0).astype(np.uint8)
    return probability.argmax(0).astype(np.uint8)


def _as_name(label: str) -> str:
    """The name of a class without what no file name may hold on one system or another."""
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", label)


def save(mask: np.ndarray, path: Path) -> None:
    """Write a mask as a whole or not at all, on a full disk too."""
    target = Path(os.path.realpath(path))
    aside = target.with_name(f".partial-{os.getpid()}.png")
    try:
        Image.fromarray(mask).save(aside)  # as PNG, whose errors Pillow does not hide
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def main() -> None:
    parser = argparse.ArgumentParser(description="Segment frames or a video with an exported student.")
    parser.add_argument("model", type=_path, help="the student: .onnx, .ts or .xml")
    parser.add_argument("input", type=_path, help="a picture, a video, or a folder of both")
    parser.add_argument("--output", type=_path, default=Path("masks"), help="folder of the masks (default: masks)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, or one of OpenVINO's (default: cpu)")
    parser.add_argument("--step", type=int, default=1, help="every how manieth frame or page (default: 1)")
    parser.add_argument("--strict", action="store_true", help="stop at the first file that cannot be read")
    options = parser.parse_args()
    if options.step < 1:
        raise ValueError(f"`step` must be at least 1, but got {options.step}.")
    network, block = load_student(options.model, options.device)
    if os.path.realpath(options.output) == os.path.realpath(options.input):
        raise ValueError(f"`output` must be another folder than `input`, but got {options.output} for both.")
    files = find_files(options.input, (options.output, options.model))
    options.output.mkdir(parents=True, exist_ok=True)
    times: list[float] = []
    failed: list[str] = []
    for name, frame in frames(files, options.step, None if options.strict else failed):
        image = prepare(frame, block)[None]
        start = time.perf_counter()
        logits = network(image)[0]
        times.append(time.perf_counter() - start)
        mask = mask_of(logits, frame.shape[1:], block)
        if mask.ndim == 2:
            save(mask, options.output / f"{name}_mask.png")
        else:
            for one, label in zip(mask, block["classes"]):
                save(one, options.output / f"{name}_{_as_name(label)}_mask.png")
    print(f"{len(times)} masks of {', '.join(block['classes'])} in {options.output}")
    if times:
        print(f"the network took {1e3 * float(np.median(times)):.1f} ms a frame (median)")
    if failed:
        raise ValueError("\n  ".join([f"{len(failed)} of {len(files)} files could not be read to the end:", *failed]))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except ImportError as error:
        sys.exit(f"error: {error.name} is needed for this file; pip install {error.name}")
