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
there will be a mask of its size, `NAME_mask.png`: 0 and 255, or the number of the class where there are several.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".mts")
Network = Callable[[np.ndarray], np.ndarray]


def load_student(path: Path, device: str = "cpu") -> tuple[Network, dict[str, Any]]:
    """The network as a function from images (B, C, H, W) to logits, and the block of metadata in its file."""
    if not path.is_file():
        raise ValueError(f"`model` must be a file, but got {path}, which is not there.")
    if path.suffix == ".onnx":
        return _load_onnx(path, device)
    if path.suffix == ".ts":
        return _load_torchscript(path, device)
    if path.suffix == ".xml":
        return _load_openvino(path, device)
    raise ValueError(f"`model` must be .onnx, .ts or .xml, but got {path}.")


def _load_onnx(path: Path, device: str) -> tuple[Network, dict[str, Any]]:
    import onnxruntime

    providers = ["CUDAExecutionProvider"] if device.startswith("cuda") else ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), providers=providers)
    block = _block(session.get_modelmeta().custom_metadata_map.get("monai_kd"), path)
    return lambda images: session.run(["pred"], {"image": images})[0], block


def _load_torchscript(path: Path, device: str) -> tuple[Network, dict[str, Any]]:
    import torch

    if path.stem.endswith(("_trt", "_trt_fp16")):
        import torch_tensorrt  # noqa: F401  its operators are in the file
    files = {"metadata.json": ""}
    module = torch.jit.load(str(path), map_location=device, _extra_files=files).eval()
    metadata = json.loads(files["metadata.json"] or "{}")

    def network(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(images).to(device)).float().cpu().numpy()

    return network, _block(json.dumps(metadata.get("monai_kd")), path)


def _load_openvino(path: Path, device: str) -> tuple[Network, dict[str, Any]]:
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    block = _block(model.get_rt_info("monai_kd").value if model.has_rt_info("monai_kd") else None, path)
    exact = {"INFERENCE_PRECISION_HINT": "f32"} if block["precision"] == "float32" else {}
    compiled = core.compile_model(model, device.upper(), exact)
    return lambda images: compiled(images)[0], block


def _block(text: str | None, path: Path) -> dict[str, Any]:
    """The metadata, when it says of the student that frames are what it takes."""
    block = json.loads(text or "null")
    if block is None:
        raise ValueError(
            f"`model` must hold metadata, but got {path} without; write it by `python -m monai_kd export`."
        )
    if block["reader"] != "LoadRGB" or block["in_channels"] != 3 or len(block["input_shape"]) != 3:
        raise ValueError(
            f"`model` must take RGB frames, but got one that reads {block['channels']} by {block['reader']}."
        )
    beyond = {key: block[key] for key in ("other", "crop", "patch_size", "spacing", "orientation") if block[key]}
    if beyond:
        raise ValueError(f"`model` must ask for resizing, a window and normalising alone, but got {beyond}.")
    return block


def frames(path: Path, step: int = 1) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels, (3, H, W) in [0, 1], of a picture, each frame of a video, or all of a folder at any depth."""
    if not path.exists():
        raise ValueError(f"`input` must be a picture, a video or a folder, but got {path}, which is not there.")
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    files = [file for file in files if file.suffix.lower() in PICTURES + VIDEOS]
    if not files:
        raise ValueError(f"`input` must hold pictures or videos, but got {path} without any.")
    for file in files:
        folders = file.parent.relative_to(path).parts if path.is_dir() else ()
        name = "_".join((*folders, file.stem))
        if file.suffix.lower() in VIDEOS:
            for number, pixels in _video(file, step):
                yield f"{name}_{number:06d}", pixels
        else:
            yield name, _picture(file)


def _picture(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            grey = np.asarray(upright).astype(np.float32) / 65535
            return np.repeat(grey[None], 3, axis=0)
        if "transparency" in upright.info or upright.mode == "PA":
            upright = upright.convert("RGBA")
        return (np.asarray(upright.convert("RGB")).astype(np.float32) / 255).transpose(2, 0, 1)


def _video(file: Path, step: int) -> Iterator[tuple[int, np.ndarray]]:
    import av

    with av.open(str(file)) as container:
        for number, frame in enumerate(container.decode(container.streams.video[0])):
            if number % step == 0:
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                yield number, (pixels.astype(np.float32) / 255).transpose(2, 0, 1)


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


def main() -> None:
    parser = argparse.ArgumentParser(description="Segment frames or a video with an exported student.")
    parser.add_argument("model", type=Path, help="the student: .onnx, .ts or .xml")
    parser.add_argument("input", type=Path, help="a picture, a video, or a folder of both")
    parser.add_argument("--output", type=Path, default=Path("masks"), help="folder of the masks (default: masks)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--step", type=int, default=1, help="every how manieth frame of a video (default: 1)")
    options = parser.parse_args()
    network, block = load_student(options.model, options.device)
    options.output.mkdir(parents=True, exist_ok=True)
    times = []
    for name, frame in frames(options.input, options.step):
        image = prepare(frame, block)[None]
        start = time.perf_counter()
        logits = network(image)[0]
        times.append(time.perf_counter() - start)
        mask = mask_of(logits, frame.shape[1:], block)
        if mask.ndim == 2:
            Image.fromarray(mask).save(options.output / f"{name}_mask.png")
        else:
            for one, label in zip(mask, block["classes"]):
                Image.fromarray(one).save(options.output / f"{name}_{label}_mask.png")
    print(f"{len(times)} masks of {', '.join(block['classes'])} in {options.output}")
    print(f"the network took {1e3 * float(np.median(times)):.1f} ms a frame (median)")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except ImportError as error:
        sys.exit(f"error: {error.name} is needed for this file; pip install {error.name}")
