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

"""The check that a CT image is in Hounsfield units."""

from __future__ import annotations

import numpy as np
from monai.config import NdarrayOrTensor
from monai.utils import convert_to_tensor

PADDING = -1100.0  # below air nothing is tissue: scanners mark what lies outside their field with -1024, -2000, -3024
STRAY = 0.05  # share of the other voxels: streaks of metal, edges of resampled padding
NO_AIR = -500.0  # above it a body has lung, fat and all else
TISSUE = -20.0  # an uncropped CT slice shows air (-1000) or at least fat (about -100)
LARGEST = 32767.0  # extended CT scale, 16 bits


def hounsfield_range(image: NdarrayOrTensor) -> tuple[float, float]:
    """
    The lowest and the highest value of a CT image. One padding value below -1100 HU is left out, and so are stray
    values there, on up to 5 % of the other voxels. In a volume nothing is left out where the rest would hold no tissue.

    Args:
        image: array or tensor of any shape, at least one value.

    Returns:
        lowest and highest value; NaN or infinity when the image holds any.

    Example::

        >>> hounsfield_range(np.array([-3024, -1000, 40, 900]))
        (-1000.0, 900.0)
    """
    values = convert_to_tensor(image, track_meta=False)
    low, high = (float(value) for value in (values.min(), values.max()))
    if not np.isfinite(low) or low >= PADDING or high == low:
        return low, high
    rest = values[values > low]
    above = rest[rest >= PADDING]
    is_volume = sum(size > 1 for size in values.shape) > 2
    if is_volume and (rest > NO_AIR).sum() < 0.01 * rest.numel():
        return low, high
    if above.numel() < (1 - STRAY) * rest.numel():
        return float(rest.min()), high
    return float(above.min()), high


def check_hounsfield(
    image: NdarrayOrTensor, name: str = "image", value_range: tuple[float, float] | None = None, cropped: bool = False
) -> None:
    """
    Refuses an image whose values cannot be Hounsfield units: water is 0, air -1000, fat about -100, bone up to 3000.

    What is refused: values that are not finite, values scaled to [0, 1] or [-1, 1], values beyond 16 bits, images
    without a single value below -20, which are standardised, 8-bit, or stored values whose RescaleIntercept was not
    applied, and images with more than padding below -1100, whose RescaleIntercept was applied twice. One constant value
    proves nothing and passes: a slice of air or padding is legitimate.

    A small region inside an organ has neither air nor fat although it is in HU. Therefore the last rule looks at
    ``value_range`` where the range of the whole volume is known, and is skipped for a region that is known to be cut
    out (``cropped``).

    Args:
        image: what to check, of any shape.
        name: how the error calls the image, its file for example.
        value_range: lowest and highest value of the volume that the image is a part of, see
            :py:func:`hounsfield_range`; without it the image's own.
        cropped: whether the image is a part that was cut out of a slice or volume.

    Raises:
        ValueError: when the values cannot be Hounsfield units, with what they look like and the remedy.

    Example::

        >>> check_hounsfield(np.array([-1000.0, -80.0, 60.0]))
    """
    low, high = hounsfield_range(image)
    problem = hounsfield_problem(low, high, cropped)
    if value_range is not None and np.isfinite(low) and np.isfinite(high):
        problem = hounsfield_problem(*value_range)
    if problem:
        raise ValueError(f"`{name}` must be in Hounsfield units, but got {problem}")


def hounsfield_problem(low: float, high: float, cropped: bool = False) -> str | None:
    """
    Says why an image with these values cannot be in HU, by the rules of :py:func:`check_hounsfield`.

    Args:
        low: lowest value, see :py:func:`hounsfield_range`.
        high: highest value.
        cropped: whether the image is a part that was cut out.

    Returns:
        the values found, what they look like and the remedy; None where they can be HU.

    Example::

        >>> hounsfield_problem(-1024.0, 3071.0) is None
        True
    """
    found = f"values from {low:g} to {high:g}"
    if not (np.isfinite(low) and np.isfinite(high)):
        return f"{found}; repair the file or leave the case out."
    if low == high:
        return None
    if low >= -1.0 and high <= 1.0:
        return f"{found}, already scaled to [0, 1] or [-1, 1]; window the image once, straight after loading."
    if high > LARGEST or low < -LARGEST - 1:
        return f"{found}, beyond the 16 bits of CT; read signed values and apply RescaleSlope and RescaleIntercept."
    if low < PADDING:
        return (
            f"{found}, where air is -1000 and only padding lies below {PADDING:g}: RescaleIntercept was applied "
            "twice; take it off once (add 1024 mostly), or pass `check_hu=False` if it is known to be in HU."
        )
    if cropped or low <= TISSUE:
        return None
    if high <= 50.0:
        guess = "standardised or windowed already; pass the image as the reader gives it"
    elif high <= 255.0:
        guess = "an 8-bit picture; read the CT volume (DICOM, NIfTI) instead of an export"
    else:
        guess = "stored values without rescale; apply RescaleSlope and RescaleIntercept (MONAI's DICOM readers do)"
    return f"{found}, without air (-1000) or fat (-100): {guess}, or pass `check_hu=False` if it is known to be in HU."
