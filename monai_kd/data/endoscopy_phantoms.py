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

"""Generated colonoscopy frames with polyps in them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.config import PathLike
from PIL import Image
from torch.nn import functional as F

from monai_kd.data.progress_bar import progress_bar
from monai_kd.data.write_aside import replace_file

LAYOUTS = ("pranet", "kvasir", "clinicdb", "endocv2022", "folder")
TEST_SETS = ("CVC-300", "CVC-ClinicDB", "CVC-ColonDB", "ETIS-LaribPolypDB", "Kvasir")
MARGIN = 2.0  # noise fields reach this far from the centre of a scene, whose height is -1 to 1


class EndoscopyPhantom(NamedTuple):
    """A generated frame: `image` (H, W, 3) and `label` (H, W) with 255 in a polyp, both uint8."""

    image: np.ndarray
    label: np.ndarray


class _Scene:
    """A stretch of bowel, the same for all views of it; `view` turns, shifts and zooms the camera a little."""

    def __init__(self, seed: int, view: int, size: tuple[int, int]) -> None:
        self.random = np.random.RandomState(seed)
        self.noise_source = torch.Generator().manual_seed(int(self.random.randint(2**31)))
        camera = np.random.RandomState([seed, view])
        self.sensor = torch.Generator().manual_seed(int(camera.randint(2**31)))
        self.pixel = 2 / size[0]
        y, x = (torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in size)
        self.screen = torch.stack(torch.broadcast_tensors(x * self.pixel, y[:, None] * self.pixel))  # (2, H, W): x, y
        start = self.random.uniform(0, 2 * np.pi)
        angle, zoom = start + 0.25 * camera.randn(), np.exp(0.08 * camera.randn())
        turn = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=torch.float32)
        shift = torch.tensor(0.08 * camera.randn(2), dtype=torch.float32)
        self.at = torch.einsum("ij,jhw->ihw", turn * zoom, self.screen) + shift[:, None, None]
        self.light = torch.einsum("ij,j->i", turn, torch.tensor([0.15, 0.25], dtype=torch.float32))

    def noise(self, length: float) -> torch.Tensor:
        """Noise of about unit variance that changes over `length`, where a frame is 2 high."""
        points = round(2 * MARGIN / length) + 4
        grid = torch.randn(1, 1, points, points, generator=self.noise_source)
        where = (self.at / MARGIN).permute(1, 2, 0)[None]
        noise = F.grid_sample(grid, where, mode="bicubic", padding_mode="reflection", align_corners=True)[0, 0]
        return 1.4 * noise

    def slope(self, height: torch.Tensor) -> torch.Tensor:
        """How much `height` rises along x and y of the screen, (2, H, W)."""
        dy, dx = torch.gradient(height, spacing=self.pixel)
        return torch.stack([dx, dy])


def endoscopy_phantom(
    seed: int, size: int | tuple[int, int] = 288, num_polyps: int | None = None, view: int = 0
) -> EndoscopyPhantom:
    """
    Generates a frame of a colonoscopy: pink mucosa with folds and vessels around a dark lumen, lit from the camera,
    with reflections, residue, a vignette and cut corners, and in it polyps of the mucosa's own colour or a little
    redder or paler. Made for demonstrations and tests: it looks like an endoscopy to a network, not to a physician.

    Folds bulge and reflect as polyps do, and residue differs in colour where polyps do not; what tells a polyp is its
    dome with a closed edge.

    Args:
        seed: the same seed gives the same stretch of bowel.
        size: height and width in pixels, at least 48; of one number the width is 5 / 4.
        num_polyps: 0 to 2; default: 1, or 2 in a fifth of the frames.
        view: number of the frame in a video of that stretch; the camera moves a little from view to view.

    Returns:
        image and label.

    Raises:
        ValueError: when an argument is out of range.

    Example::

        >>> frame = endoscopy_phantom(seed=0, size=64)
        >>> frame.image.shape, frame.label.shape, np.unique(frame.label).tolist()
        ((64, 80, 3), (64, 80), [0, 255])
    """
    height, width = (size, round(size * 1.25)) if isinstance(size, int) else size
    if min(height, width) < 48:
        raise ValueError(f"`size` must be at least 48, but got {size}.")
    if num_polyps not in (None, 0, 1, 2):
        raise ValueError(f"`num_polyps` must be 0, 1 or 2, but got {num_polyps}.")
    scene = _Scene(seed, view, (height, width))
    lumen = torch.tensor(_on_circle(scene.random, 0.1, 0.9), dtype=torch.float32)
    away = (scene.at - lumen[:, None, None]).square().sum(0).sqrt()
    relief, shadow = _folds(scene, away)
    mucosa = _mucosa(scene)
    label = torch.zeros(height, width, dtype=torch.bool)
    drawn = 1 + int(scene.random.rand() < 0.2)
    for number in range(drawn if num_polyps is None else num_polyps):
        level, dome, look = _polyp(scene, lumen, number)
        inside = level > 0
        relief = torch.where(inside, dome, relief)
        lit = 0.3 + 0.7 * shadow[inside].mean() if inside.any() else 1.0  # it stands out of the fold behind it
        shadow = torch.where(inside, lit, shadow * (1 - 0.4 * torch.exp(6 * level.clamp(max=0))))
        mucosa = torch.where(inside, mucosa * look, mucosa)
        label |= inside
    image = _expose(scene, mucosa, relief, shadow, away)
    seen = _corners(scene)
    image = torch.where(seen, image + 0.012 * torch.randn(image.shape, generator=scene.sensor), 0.02)
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    return EndoscopyPhantom(pixels.numpy(), ((label & seen) * 255).to(torch.uint8).numpy())


def _on_circle(random: np.random.RandomState, low: float, high: float) -> tuple[float, float]:
    radius, angle = random.uniform(low, high), random.uniform(0, 2 * np.pi)
    return radius * np.cos(angle), radius * np.sin(angle)


def _folds(scene: _Scene, away: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Height of the wall and what light is left of it: crescents around the lumen hide the wall behind their edge."""
    phase = scene.random.uniform(0.8, 1.7) * torch.log(away + 0.1) + 0.2 * scene.noise(0.8) + scene.random.rand()
    behind = phase - phase.floor()  # 0 at the edge of a fold, 1 just before the edge of the next one
    partial = torch.sigmoid(2.5 * scene.noise(0.9) + 0.5)
    lip = 0.09 * torch.exp(-9 * behind) * partial * away.clamp(max=1)
    shadow = 1 - 0.62 * scene.random.uniform(0.6, 1.1) * partial * behind**1.6
    return lip + 0.05 * scene.noise(0.55) + 0.004 * scene.noise(0.12), shadow


def _mucosa(scene: _Scene) -> torch.Tensor:
    """Colour of the wall, (3, H, W): patches, vessels, and here and there yellow residue."""
    green = scene.random.uniform(0.46, 0.66)
    base = torch.tensor([0.90, green, green * scene.random.uniform(0.72, 0.95)], dtype=torch.float32)
    patch = scene.noise(0.45)
    colour = base[:, None, None] * (1 + torch.stack([0.02 * patch, 0.06 * patch, 0.06 * patch]))
    colour = colour * (1 + 0.025 * scene.noise(0.07))
    strength = scene.random.uniform(0.05, 0.35)
    for length in (0.4, 0.2, 0.1):
        line = torch.exp(-((scene.noise(length) / 0.08) ** 2)) * torch.sigmoid(4 * scene.noise(0.5))
        colour = colour * (1 - strength * line * torch.tensor([0.35, 1.0, 0.9])[:, None, None])
    residue = torch.sigmoid(30 * (scene.noise(0.12) + 0.6 * scene.noise(0.5) - scene.random.uniform(2.6, 4.2)))
    yellow = torch.tensor([0.88, 0.72, 0.30])[:, None, None] * (1 + 0.1 * scene.noise(0.06))
    return colour + 0.85 * residue * (yellow - colour)


def _polyp(scene: _Scene, lumen: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The level of a dented ellipse, positive inside, the height of its dome, and its colour over the mucosa's."""
    random = np.random.RandomState([int(scene.random.randint(2**31)), number])
    centre = lumen.clone()
    while float((centre - lumen).norm()) < 0.35:
        centre = torch.tensor(_on_circle(random, 0.0, 0.62), dtype=torch.float32)
    size = random.uniform(0.15, 0.42)
    radii = torch.tensor(size * np.array([1.0, random.uniform(0.6, 1.0)]), dtype=torch.float32)
    angle = random.uniform(0, np.pi)
    turn = torch.tensor([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], dtype=torch.float32)
    along = torch.einsum("ij,jhw->ihw", turn, scene.at - centre[:, None, None])
    level = 1 - (along / radii[:, None, None]).square().sum(0) + 0.15 * scene.noise(0.9 * size)
    dome = size * random.uniform(0.35, 0.8) * level.clamp(min=0) ** 0.7 * (1 + 0.06 * scene.noise(0.15))
    redder = random.uniform(0.80, 1.10)
    look = torch.tensor([random.uniform(0.98, 1.08), redder, redder * random.uniform(0.95, 1.02)], dtype=torch.float32)
    pits = 1 + random.uniform(0.02, 0.06) * scene.noise(0.05)
    return level, dome, look[:, None, None] * pits


def _expose(
    scene: _Scene, mucosa: torch.Tensor, relief: torch.Tensor, shadow: torch.Tensor, away: torch.Tensor
) -> torch.Tensor:
    """What the camera sees of the wall by the lamp beside its lens, (3, H, W), with reflections."""
    slope = scene.slope(relief)
    steepness = slope.square().sum(0).sqrt()
    slope = slope * torch.tanh(steepness / 1.5) * 1.5 / (steepness + 1e-6)  # edges are not infinitely steep
    towards = -0.5 * scene.screen - scene.light[:, None, None]
    facing = ((1 - (slope * towards).sum(0)) / (1 + slope.square().sum(0)).sqrt()).clamp(0, 1.6)
    depth = away**2 / (away**2 + 0.08 * float(np.exp(0.4 * scene.random.randn())))  # the lumen swallows the light
    fall_off = (1.1 - 0.4 * scene.screen.square().sum(0)).clamp(min=0.1)
    light = scene.random.uniform(1.0, 1.35) * (0.3 + 0.7 * facing) * (0.06 + 0.94 * depth) * fall_off * shadow
    light = torch.where(light > 0.8, 0.8 + 0.45 * torch.tanh((light - 0.8) / 0.45), light)
    image = mucosa * torch.stack([light**power for power in (1.0, 1.14, 1.22)])  # dark mucosa is redder
    glint = facing * depth * shadow + 0.16 * scene.noise(0.11) + 0.10 * scene.noise(0.045)
    share = scene.random.uniform(0.002, 0.015)
    reflection = torch.sigmoid(40 * (glint - glint.flatten().sort().values[int((1 - share) * glint.numel())]))
    image = image + reflection * (torch.tensor([1.0, 0.98, 0.95])[:, None, None] - image)
    return 0.5 * image + 0.5 * F.avg_pool2d(image[None], 3, 1, 1, count_include_pad=False)[0]


def _corners(scene: _Scene) -> torch.Tensor:
    x, y = scene.screen.abs()
    edge = float(x.max())
    return (x + y < edge + scene.random.uniform(0.6, 0.85)) & (x < edge - 0.03) & (y < 0.97)


class _Part(NamedTuple):
    """Where the frames of one data set go, and how many they are."""

    images: str
    masks: str
    suffixes: tuple[str, str]
    num_frames: int


def write_endoscopy_phantoms(
    folder: PathLike,
    layout: str = "pranet",
    num_frames: int = 60,
    size: int | tuple[int, int] = 288,
    frames_per_sequence: int = 2,
    empty_fraction: float = 0.0,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """
    Writes generated frames in the layout of a data set, for :py:func:`monai_kd.data.endoscopy_cases`. Beside the frames
    lies ``sequences.csv``, which names the video that each comes from, but for Kvasir-SEG, whose frames are all of
    different videos, and EndoCV2022, whose folders are the videos.

    Args:
        folder: where to write; made when absent.
        layout: "pranet" (TrainDataset and TestDataset with its five test sets, each a tenth of the frames), "kvasir"
            (Kvasir-SEG as published, masks in JPEG), "clinicdb" (CVC-ClinicDB as published, TIFF), "endocv2022"
            (EndoCV2022 as published: seq1/images, seq1/masks, seq2/images and so on, JPEG), or "folder" (images/ in
            JPEG and masks/ in PNG).
        num_frames: number of frames, at least 1; for "pranet" at least 10.
        size: see :py:func:`endoscopy_phantom`.
        frames_per_sequence: how many frames one video has, at least 1.
        empty_fraction: part of the videos that show no polyp, in [0, 1].
        seed: the same seed gives the same frames; frame n does not depend on how many there are, but for "pranet".
        progress: whether to show a progress bar.

    Returns:
        the folder.

    Raises:
        ValueError: when an argument is out of range.

    Example::

        >>> import tempfile
        >>> folder = write_endoscopy_phantoms(tempfile.mkdtemp(), "clinicdb", num_frames=2, size=48, progress=False)
        >>> sorted(path.name for path in folder.rglob("*"))
        ['1.tif', '1.tif', '2.tif', '2.tif', 'Ground Truth', 'Original', 'sequences.csv']
    """
    if layout not in LAYOUTS:
        raise ValueError(f"`layout` must be one of {', '.join(LAYOUTS)}, but got {layout!r}.")
    if num_frames < (10 if layout == "pranet" else 1) or frames_per_sequence < 1 or not 0 <= empty_fraction <= 1:
        raise ValueError(
            "`num_frames` must be at least 1 (10 for pranet), `frames_per_sequence` 1 and `empty_fraction` in [0, 1], "
            f"but got {num_frames}, {frames_per_sequence} and {empty_fraction}."
        )
    root, parts = Path(folder), _parts(layout, num_frames, frames_per_sequence)
    views = 1 if layout == "kvasir" else frames_per_sequence
    frames = [(index, number) for index, part in enumerate(parts) for number in range(part.num_frames)]
    for index, number in progress_bar(frames, "Generating frames", len(frames), progress):
        scene = int(np.random.RandomState([seed, index, number // views]).randint(2**31))
        empty = np.random.RandomState(scene).rand() < empty_fraction
        frame = endoscopy_phantom(scene, size, 0 if empty else None, number % views)
        name = {"kvasir": f"cju{number:022d}", "endocv2022": f"seq{index + 1}_{number + 1}"}.get(
            layout, str(number + 1)
        )
        for array, place, suffix in zip(frame, parts[index][:2], parts[index].suffixes):
            path = root / place / (name + suffix)
            replace_file(path, _encoded(array, path.suffix))
    if layout not in ("kvasir", "endocv2022"):
        for part in parts:
            rows = [f"{number + 1},{number // views + 1}\n" for number in range(part.num_frames)]
            replace_file((root / part.images).with_name("sequences.csv"), "frame,sequence\n" + "".join(rows))
    return root


def _encoded(array: np.ndarray, suffix: str) -> bytes:
    """As a file; Pillow itself says nothing of a disk that is full."""
    stream = io.BytesIO()
    kind = Image.registered_extensions()[suffix]
    Image.fromarray(array).save(stream, kind, quality=95)  # of JPEG; the other formats have no loss
    return stream.getvalue()


def _parts(layout: str, num_frames: int, frames_per_sequence: int) -> list[_Part]:
    if layout == "endocv2022":
        firsts = range(0, num_frames, frames_per_sequence)
        counts = [min(frames_per_sequence, num_frames - first) for first in firsts]
        return [
            _Part(f"seq{video}/images", f"seq{video}/masks", (".jpg", "_mask.jpg"), count)
            for video, count in enumerate(counts, start=1)
        ]
    if layout == "kvasir":
        return [_Part("images", "masks", (".jpg", ".jpg"), num_frames)]
    if layout == "clinicdb":
        return [_Part("Original", "Ground Truth", (".tif", ".tif"), num_frames)]
    if layout == "folder":
        return [_Part("images", "masks", (".jpg", ".png"), num_frames)]
    share = num_frames // 10
    train = _Part("TrainDataset/image", "TrainDataset/mask", (".png", ".png"), num_frames - share * len(TEST_SETS))
    tests = [
        _Part(f"TestDataset/{name}/images", f"TestDataset/{name}/masks", (".png", ".png"), share) for name in TEST_SETS
    ]
    return [train, *tests]
