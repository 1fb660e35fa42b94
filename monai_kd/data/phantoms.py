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

"""Generated CT volumes with a liver or kidneys and tumours in them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import torch
from monai.config import PathLike
from torch.nn import functional as F

from monai_kd.data.progress_bar import progress_bar
from monai_kd.data.write_aside import write_aside

LAYOUTS = ("lits", "kits19", "folder")
FIELD_OF_VIEW = 330.0  # mm
CONTRAST = {"liver": (20.0, 40.0), "kidney": (40.0, 70.0)}  # HU by which a tumour is darker than its organ


class CTPhantom(NamedTuple):
    """A generated case: `image` in HU (int16) and `label` (uint8), both (X, Y, Z), and their affine to RAS mm."""

    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray


class _Canvas:
    """The volume that a phantom is painted on; x to the left, y to the back, z to the head, in mm from the centre."""

    def __init__(self, size: int, num_slices: int, spacing: tuple[float, float, float], seed: int) -> None:
        self.random = np.random.RandomState(seed)
        self.noise_source = torch.Generator().manual_seed(int(self.random.randint(2**31)))
        self.shape = (size, size, num_slices)
        axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(self.shape, spacing)]
        x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
        self.grid = tuple(torch.from_numpy(axis.astype(np.float32)) for axis in (x, y, z))
        self.spacing = spacing
        self.image = torch.full(self.shape, -1000.0)

    def smooth(self, length: float) -> torch.Tensor:
        """Noise of unit variance at coarse points `length` mm apart, interpolated between them."""
        coarse = [max(2, round(n * s / length)) for n, s in zip(self.shape, self.spacing)]
        noise = torch.randn(1, 1, *coarse, generator=self.noise_source)
        return F.interpolate(noise, self.shape, mode="trilinear", align_corners=True)[0, 0]

    def blob(self, centre: tuple, radii: tuple, wobble: float = 0.0, length: float = 30.0) -> torch.Tensor:
        """A level, positive inside an ellipsoid whose surface is dented by `wobble`; about 1 at the centre."""
        level = torch.ones(())
        for axis, c, r in zip(self.grid, centre, radii):
            level = level - ((axis - c) / r) ** 2
        return level + wobble * self.smooth(length) if wobble else level.expand(self.shape)

    def paint(self, inside: torch.Tensor, value: float) -> None:
        self.image[inside] = value  # later organs lie over earlier ones

    def near(self, *centre: float, spread: float = 6.0) -> tuple[float, ...]:
        return tuple(float(c + self.random.uniform(-spread, spread)) for c in centre)

    def about(self, *radii: float) -> tuple[float, ...]:
        return tuple(float(r * self.random.uniform(0.88, 1.12)) for r in radii)


def ct_phantom(seed: int, size: int = 96, num_slices: int = 20, organ: str = "liver") -> CTPhantom:
    """
    Generates an abdominal CT: a body with fat, spine, kidneys, spleen, stomach, bowel with gas, vessels and a gall
    bladder, an irregular organ (label 1) and in it up to five irregular tumours (label 2) that are 20 to 40 HU darker
    (40 to 70 in kidneys), under noise and texture. Made for demonstrations and tests: it looks like CT to a network,
    not to a radiologist.

    Spleen and muscle are as bright as the liver, bowel and gall bladder as dark as its tumours, and the liver has dark
    clefts that are no tumours: shape and place decide, which small networks learn worse than large ones.

    Args:
        seed: the same seed gives the same phantom.
        size: width and height in pixels, at least 32; the field of view is about 330 mm.
        num_slices: number of slices, at least 4, 4 to 8 mm apart.
        organ: "liver" or "kidney".

    Returns:
        image, label and affine, stored as CT usually is: x to the left, y to the back, z to the head.

    Raises:
        ValueError: when an argument is out of range.

    Example::

        >>> phantom = ct_phantom(seed=0, size=48, num_slices=8)
        >>> phantom.image.shape, np.unique(phantom.label).tolist()
        ((48, 48, 8), [0, 1, 2])
    """
    if organ not in CONTRAST:
        raise ValueError(f"`organ` must be liver or kidney, but got {organ!r}.")
    if size < 32 or num_slices < 4:
        raise ValueError(f"`size` must be at least 32 and `num_slices` 4, but got {size} and {num_slices}.")
    random = np.random.RandomState(seed)
    pixel = FIELD_OF_VIEW / size * random.uniform(0.92, 1.08)
    spacing = (pixel, pixel, random.uniform(0.9, 1.1) * min(8.0, 130.0 / num_slices))
    canvas = _Canvas(size, num_slices, spacing, int(random.randint(2**31)))
    _paint_body(canvas)
    liver = _paint_liver(canvas)
    kidneys = _paint_kidneys(canvas)
    inside = liver & ~kidneys if organ == "liver" else kidneys
    tumours = _paint_tumours(canvas, inside, CONTRAST[organ])
    image = _scan(canvas)
    label = inside.to(torch.uint8) + (tumours & inside).to(torch.uint8)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [spacing[0] * size / 2, spacing[1] * size / 2, random.uniform(-900, 300)]
    return CTPhantom(image, label.numpy(), affine)


def _paint_body(canvas: _Canvas) -> None:
    width, depth = canvas.about(150, 112)
    body = canvas.blob((0, 0, 0), (width, depth, 1e4), 0.04, 60)
    canvas.paint(body > 0, -100)  # fat
    canvas.paint(canvas.blob((0, 0, 0), (width - 14, depth - 14, 1e4), 0.06, 60) > 0, 48)  # muscle
    abdomen = canvas.blob((0, -6, 0), (width - 26, depth - 28, 1e4), 0.08, 40) > 0
    canvas.paint(abdomen, -85)  # fat between the organs
    for _ in range(14):  # bowel, some of it with gas
        at = canvas.near(0, -10, -15, spread=75)
        canvas.paint((canvas.blob(at, canvas.about(24, 18, 22), 0.3, 20) > 0) & abdomen, canvas.random.uniform(25, 95))
        if canvas.random.rand() < 0.3:
            canvas.paint((canvas.blob(at, (8, 6, 8), 0.2, 10) > 0) & abdomen, -800)
    canvas.paint(canvas.blob(canvas.near(60, -30, 30), canvas.about(34, 26, 40), 0.2) > 0, 40)  # stomach
    canvas.paint(canvas.blob(canvas.near(95, 30, 25), canvas.about(24, 34, 42), 0.2) > 0, 108)  # spleen
    canvas.paint(canvas.blob((0, 62, 0), (21, 19, 1e4), 0.1, 15) > 0, 280)  # spine
    canvas.paint(canvas.blob((0, 84, 0), (8, 8, 1e4)) > 0, 20)  # its canal
    canvas.paint(canvas.blob(canvas.near(8, 34, 0, spread=3), (9, 9, 1e4)) > 0, 165)  # aorta
    canvas.paint(canvas.blob(canvas.near(-16, 32, 0, spread=3), (11, 9, 1e4)) > 0, 125)  # vena cava


def _paint_liver(canvas: _Canvas) -> torch.Tensor:
    right = canvas.blob(canvas.near(-68, -4, 14), canvas.about(56, 66, 58), 0.28, 40)
    left = canvas.blob(canvas.near(-8, -48, 24), canvas.about(58, 26, 34), 0.28, 30)
    inside = torch.maximum(right, left) > 0
    value = canvas.random.uniform(95, 118)
    canvas.paint(inside, value)
    for _ in range(3):  # vessels, bright or dark
        at, tilt = canvas.near(-60, -6, 15, spread=35), canvas.random.uniform(-0.8, 0.8, 2)
        x, y, z = canvas.grid
        distance = ((x - at[0]) - tilt[0] * (z - at[2])) ** 2 + ((y - at[1]) - tilt[1] * (z - at[2])) ** 2
        canvas.paint((distance < 4.0**2) & inside, value + canvas.random.choice([-25.0, 35.0]))
    canvas.paint(canvas.blob(canvas.near(-52, -52, -18), canvas.about(12, 15, 18)) > 0, 12)  # gall bladder
    bladder = canvas.image == 12
    return inside & ~bladder


def _paint_kidneys(canvas: _Canvas) -> torch.Tensor:
    inside = torch.zeros(canvas.shape, dtype=torch.bool)
    for side in (-1, 1):
        at = canvas.near(side * 62, 44, -22)
        kidney = canvas.blob(at, canvas.about(23, 25, 46), 0.15, 25) > 0
        canvas.paint(kidney, canvas.random.uniform(150, 185))
        canvas.paint(canvas.blob((at[0] - side * 12, at[1], at[2]), (8, 7, 16), 0.2, 15) > 0, -20)  # pelvis
        inside |= kidney
    return inside


def _paint_tumours(canvas: _Canvas, inside: torch.Tensor, contrast: tuple[float, float]) -> torch.Tensor:
    tumours = torch.zeros(canvas.shape, dtype=torch.bool)
    places = inside.nonzero()
    for _ in range(canvas.random.randint(2, 6)):
        index = places[int(canvas.random.randint(len(places)))]
        at = tuple(float(axis.flatten()[i]) for axis, i in zip(canvas.grid, index))
        radius = canvas.random.uniform(11, 27)
        lesion = (canvas.blob(at, canvas.about(radius, radius, radius), 0.35, radius) > 0) & inside
        base = canvas.image[lesion]
        canvas.image[lesion] = (
            torch.minimum(base, base.median() - canvas.random.uniform(*contrast)) if len(base) else base
        )
        tumours |= lesion
    if not tumours.any():
        tumours[tuple(places[len(places) // 2])] = True
    return tumours


def _scan(canvas: _Canvas) -> np.ndarray:
    blurred = F.avg_pool3d(canvas.image[None, None], (3, 3, 1), 1, (1, 1, 0), count_include_pad=False)[0, 0]
    image = 0.5 * blurred + 0.5 * canvas.image
    pixel = canvas.spacing[0]
    noise = 9.0 * torch.randn(canvas.shape, generator=canvas.noise_source)
    noise = noise + 6.0 * canvas.smooth(2.5 * pixel) + 5.0 * canvas.smooth(28.0)
    return (image + noise).clamp(-1024, 3071).round().to(torch.int16).numpy()


def write_phantoms(
    folder: PathLike,
    layout: str = "lits",
    num_cases: int = 8,
    size: int = 96,
    num_slices: int = 20,
    organ: str = "liver",
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """
    Writes phantoms in the layout of a data set, for :py:func:`monai_kd.data.lits_cases`,
    :py:func:`monai_kd.data.kits19_cases` or :py:func:`monai_kd.data.folder_cases`. The number of slices and the spacing
    vary between cases.

    Args:
        folder: where to write; made when absent.
        layout: "lits", "kits19" (slices on the first axis, as published) or "folder".
        num_cases: number of cases.
        size: see :py:func:`ct_phantom`.
        num_slices: mean number of slices.
        organ: see :py:func:`ct_phantom`.
        seed: the same seed gives the same cases; case n does not depend on how many there are.
        progress: whether to show a progress bar.

    Returns:
        the folder.

    Raises:
        ValueError: when an argument is out of range.

    Example::

        >>> import tempfile
        >>> folder = write_phantoms(tempfile.mkdtemp(), "kits19", num_cases=2, size=32, num_slices=4, progress=False)
        >>> sorted(path.name for path in folder.iterdir())
        ['case_00000', 'case_00001']
    """
    if layout not in LAYOUTS:
        raise ValueError(f"`layout` must be one of {', '.join(LAYOUTS)}, but got {layout!r}.")
    root = Path(folder)
    for number in progress_bar(range(num_cases), "Generating phantoms", num_cases, progress):
        case_seed = int(np.random.RandomState([seed, number]).randint(2**31))
        slices = round(num_slices * np.random.RandomState(case_seed).uniform(0.8, 1.2))
        phantom = ct_phantom(case_seed, size, max(4, slices), organ)
        for array, path in zip(phantom[:2], _paths(root, layout, number)):
            nifti = nibabel.Nifti1Image(array, phantom.affine)
            with write_aside(path) as aside:
                nibabel.save(_slices_first(nifti) if layout == "kits19" else nifti, aside)
    return root


def _paths(root: Path, layout: str, number: int) -> tuple[Path, Path]:
    if layout == "lits":
        batch = root / "Training Batch 1"
        return batch / f"volume-{number}.nii", batch / f"segmentation-{number}.nii"
    if layout == "kits19":
        case = root / f"case_{number:05d}"
        return case / "imaging.nii.gz", case / "segmentation.nii.gz"
    return root / "images" / f"phantom_{number:03d}.nii.gz", root / "labels" / f"phantom_{number:03d}.nii.gz"


def _slices_first(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    stored = nibabel.orientations.axcodes2ornt(("I", "P", "L"))  # KiTS19: from head to feet, then rows, then columns
    return image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), stored))
