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

"""Frames of folders and videos, one after the other, for inference."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import PathLike
from monai.data.meta_tensor import MetaTensor
from monai.utils import ImageMetaKey, OptionalImportError
from PIL import Image

from monai_kd.data.endoscopy_cases import natural_order
from monai_kd.data.photo_pairs import IMAGE_FOLDER, MASK_FOLDER, PHOTO_SUFFIXES
from monai_kd.data.same_name import same_name
from monai_kd.transforms.load_rgb import rgb_pixels

logger = logging.getLogger(__name__)
RESULTS = ("_mask", "_overlay")  # of a bundle's inference
PAGED_SUFFIXES = (*PHOTO_SUFFIXES, ".gif")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".mts")


class Frames:
    """
    Goes through the frames of pictures and videos for :py:class:`monai.data.IterableDataset`: a file, or all files at
    any depth below a folder. A video is decoded as it is gone through, so that one frame is in memory at a time, and
    each pass starts anew; how many frames there are is not known before the end.

    A picture is given by its path, a frame of a video by its pixels; :py:class:`monai_kd.transforms.LoadRGBd` reads
    both. Videos (MP4, AVI, MOV, MKV, WebM and so on) need PyAV, ``pip install monai-kd[video]``; animated GIF and TIFF
    with several pages do not. With several workers each decodes the whole video and transforms its share of it: take
    one worker or none for a video.

    Args:
        path: a picture, a video, or a folder of both. Hidden files and other kinds of files are passed over, and so
            are masks, which the log counts: folders of masks beside one of images, and the ``X_mask.png`` and
            ``X_overlay.png`` beside a ``frames.csv``, which are earlier results. Links are followed; a folder that is
            reached twice counts at its first path.
        step: every how manieth frame of a video, at least 1.
        exclude: a folder below `path` that is passed over, as that of earlier results; it need not be there.

    Yields:
        {"image", "case", "frame"}: "case" is the path below the folder with ``_`` between its parts and without
        suffix, and the number of the frame in a video; "frame" is that number, 0 for a picture.

    Raises:
        FileNotFoundError: when there is no such path, or nothing to read below it.
        ValueError: when `step` is out of range, the file is of another kind, `exclude` is `path` itself, or two files,
            or a file and a frame of another (``v_000001.png`` beside ``v.mp4``), would have one name.
        OptionalImportError: when there are videos, but no PyAV.
        RuntimeError: while going through it, when a video or a file of several pages cannot be decoded, or ends before
            its header says: by more than two frames where the header counts them (MP4, MOV, AVI), otherwise by more
            than 1 s and 5 % of its duration (MKV, WebM).

    Example::

        >>> import tempfile
        >>> from monai_kd.data import write_endoscopy_phantoms
        >>> folder = write_endoscopy_phantoms(tempfile.mkdtemp(), "folder", num_frames=2, size=48, progress=False)
        >>> [item["case"] for item in Frames(folder / "images")]
        ['1', '2']
    """

    def __init__(self, path: PathLike, step: int = 1, exclude: PathLike | None = None) -> None:
        if step < 1:
            raise ValueError(f"`step` must be at least 1, but got {step}.")
        self.step = int(step)
        root = Path(path).expanduser()
        if not root.exists():
            raise FileNotFoundError(f"`path` must be a file or folder, but got {root}, which is not there.")
        if root.is_file() and not _is_readable(root):
            raise ValueError(f"`path` must be one of {', '.join((*PAGED_SUFFIXES, *VIDEO_SUFFIXES))}, but got {root}.")
        passed_over = None if exclude is None else os.path.realpath(Path(exclude).expanduser())
        if passed_over == os.path.realpath(root):
            raise ValueError(f"`exclude` must be another folder than `path`, but got {root} for both; write elsewhere.")
        self.files: dict[str, Path] = {}
        for file in [root] if root.is_file() else readable_below(root, passed_over):
            parts = (*file.parent.relative_to(root).parts, file.stem) if root.is_dir() else (file.stem,)
            name = same_name("_".join(parts))
            if name in self.files:
                raise ValueError(
                    f"files must have different names, but got `{name}` for {self.files[name]} and {file}; rename one."
                )
            self.files[name] = file
        if not self.files:
            raise FileNotFoundError(f"`path` must hold pictures or videos, but got {root} without any.")
        for name, file in self.files.items():
            numbered = re.fullmatch(r"(.+)_\d{6,}", name)
            whole = self.files.get(numbered[1]) if numbered else None
            if whole is not None and (_is_video(whole) or _has_pages(whole)):
                raise ValueError(
                    f"files must have different names, but got `{name}` for {file} and a frame of {whole}; rename one."
                )
        if find_spec("av") is None and any(_is_video(file) for file in self.files.values()):
            raise OptionalImportError(
                f"`path` may hold videos where PyAV is installed, but got {root} without it; "
                "`pip install monai-kd[video]`, or take the frames out as pictures."
            )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _, frames in self.by_file():
            yield from frames

    def by_file(self) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
        """The name of each file and its frames, so that one that cannot be decoded does not end the others."""
        for name, file in self.files.items():
            yield name, self._frames(name, file)

    def _frames(self, name: str, file: Path) -> Iterator[dict[str, Any]]:
        for number, pixels in self._video(file) if _is_video(file) else self._pages(file):
            if pixels is None:
                yield {"image": str(file), "case": name, "frame": 0}
                continue
            case = f"{name}_{number:06d}"
            image = MetaTensor(torch.from_numpy(pixels), meta={ImageMetaKey.FILENAME_OR_OBJ: str(file)})
            yield {"image": image, "case": case, "frame": number}

    def _pages(self, file: Path) -> Iterator[tuple[int, np.ndarray | None]]:
        try:
            image = Image.open(file)
        except (OSError, Image.DecompressionBombError):
            yield 0, None  # the loader says what is wrong with it
            return
        with image:
            pages = _decoded(image, file, 0) if image.format != "MPO" else 1
            if pages == 1:
                yield 0, None
                return
            for number in range(pages):
                _decoded(image, file, number)
                if number % self.step == 0:
                    yield number, (255 * rgb_pixels(image, str(file))).round().astype(np.uint8)

    def _video(self, file: Path) -> Iterator[tuple[int, np.ndarray]]:
        import av

        number, end = -1, 0.0
        cut: str | None = None
        try:
            with av.open(str(file)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for number, frame in enumerate(container.decode(stream)):
                    if frame.time is not None:
                        end = max(end, frame.time + float((frame.duration or 0) * (frame.time_base or 0)))
                    if number % self.step == 0:
                        pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                        yield number, np.ascontiguousarray(pixels)
                cut = _cut_off(container, stream, number + 1, end)
        except (av.FFmpegError, IndexError) as error:  # no stream of pictures is an IndexError
            after = f"after frame {number}" if number >= 0 else "at all"
            reason = f"{type(error).__name__}: {error}"
            raise RuntimeError(f"{file} cannot be decoded {after}, {reason}; copy it once more.") from error
        if number < 0:
            raise RuntimeError(f"{file} cannot be decoded, it holds no frame; copy it once more.")
        if cut:
            raise RuntimeError(f"{file} is truncated, it holds {cut}; copy it once more.")


def _decoded(image: Image.Image, file: Path, number: int) -> int:
    """Decodes a page, unless it is the only one; returns the number of pages."""
    try:
        pages = int(getattr(image, "n_frames", 1))
        if pages > 1:
            image.seek(number)
            image.load()
    except Exception as error:  # Pillow raises errors of many kinds for truncated files
        reason = f"{type(error).__name__}: {error}"
        raise RuntimeError(f"{file} cannot be decoded at page {number}, {reason}; copy it once more.") from error
    return pages


def _cut_off(container: Any, stream: Any, count: int, end: float) -> str | None:
    """
    What a video holds if it ends early: decoders take the end of the file for that of the video. The number of frames
    alone is no proof, since edit lists of MP4 hide frames and AVI counts repeated ones, which are empty.
    """
    if 0 < stream.frames <= count:
        return None
    if container.format.name == "avi":  # its durations are those of the file as it is
        whole = float(stream.frames * stream.time_base)
    elif stream.duration:
        whole = float(stream.duration * stream.time_base)
    else:
        whole = _tagged_duration(stream) or (container.duration or 0) / 1e6
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    end = max(end, count / rate)
    if whole - end <= (2.5 / rate if stream.frames else 1 + 0.05 * whole):
        return None
    return f"{f'{count} of {stream.frames} frames' if stream.frames else f'{count} frames'}, {end:.2f} of {whole:.2f} s"


def _tagged_duration(stream: Any) -> float | None:
    """Seconds of the pictures alone as MKV has them, "00:01:02.5": sound may be longer."""
    found = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return None if found is None else 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3])


def _is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEO_SUFFIXES


def _has_pages(file: Path) -> bool:
    try:
        with Image.open(file) as image:
            return image.format != "MPO" and getattr(image, "n_frames", 1) > 1
    except Exception:  # it is named when it is its turn
        return False


def _is_readable(file: Path) -> bool:
    return file.suffix.lower() in (*PAGED_SUFFIXES, *VIDEO_SUFFIXES)


def readable_below(root: Path, passed_over: str | None = None) -> Iterator[Path]:
    """Pictures and videos below a folder, each real folder once, without hidden ones and without masks."""
    seen = {passed_over}  # links may lead in circles
    for folder, inner, names in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in seen:
            inner[:] = []
            continue
        seen.add(os.path.realpath(folder))
        masks = set(_masks(Path(folder), inner, names))
        if masks:
            logger.warning(f"{folder}: passed over masks: {', '.join(sorted(masks)[:5])} ({len(masks)})")
        inner[:] = sorted((n for n in inner if not n.startswith(".") and n not in masks), key=natural_order)
        shown = [name for name in sorted(names, key=natural_order) if not name.startswith(".") and name not in masks]
        yield from (Path(folder, name) for name in shown if _is_readable(Path(name)))


def _masks(folder: Path, inner: list[str], names: list[str]) -> list[str]:
    """Folders of masks beside images, and the files of earlier results."""
    own = [name for name in names if Path(name).stem.endswith(RESULTS) and "frames.csv" in names]
    if any(IMAGE_FOLDER.fullmatch(name) or name == folder.name for name in inner):
        own += [name for name in inner if MASK_FOLDER.fullmatch(name)]
    return own
