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

"""Pictures of label and prediction outlines on image slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.utils import convert_to_numpy

from monai_kd.report._picture import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# told apart by colour-blind readers, and from any grey
LABEL_COLOUR, PREDICTION_COLOUR = "#00b7ff", "#ff9d00"


@dataclass
class OverlayCase:
    """
    One row of a picture, see :py:func:`overlay`.

    Args:
        name: name of the case.
        image: (x, y, z), or (x, y) for a single slice; of (1, x, y, z) the channel is taken away.
        label: integers of the same shape, 0 is background.
        predictions: integers of the same shape under the name of each network, the same names in every case.
    """

    name: str
    image: Any
    label: Any
    predictions: Mapping[str, Any] = field(default_factory=dict)


def overlay(
    cases: Sequence[OverlayCase],
    window: tuple[float, float] | None = None,
    axcodes: str = "LPS",
    margin: int | None = None,
) -> bytes:
    """
    Draw the outline of each network's prediction over that of the label, one row a case and one column a network.

    The slice shown is the one with most label voxels, or most predicted voxels where the label is empty. It is turned
    as radiologists look at it: the patient's right on the left, the front on top.

    Args:
        cases: what to draw.
        window: (low, high) of the grey values, in the unit of the image (HU); None takes the 1st and 99th percentile
            of the slice.
        axcodes: what x, y and z of the arrays point to: ``LPS`` as CT is stored, ``RAS`` after ``Orientationd``.
        margin: voxels around label and predictions that are shown; None shows the whole slice.

    Returns:
        the picture as PNG.

    Raises:
        ValueError: without a case, for arrays of different shape, for cases with other networks, or when x and y do
            not point left or right and front or back.

    Example::

        >>> import numpy as np
        >>> from monai_kd.report import OverlayCase, overlay
        >>> image, label = np.random.rand(16, 16, 4), np.zeros((16, 16, 4), int)
        >>> label[4:9, 4:9, 1:3] = 1
        >>> overlay([OverlayCase("01", image, label, {"student": label})])[1:4]
        b'PNG'
    """
    from matplotlib.lines import Line2D

    networks = _networks(cases, axcodes)
    colours = {"label": LABEL_COLOUR, "prediction": PREDICTION_COLOUR}
    return picture(
        cases,
        ["label", *networks],
        (2.4 * (1 + len(networks)), 2.4 * len(cases) + 0.6),
        lambda row, case: _draw_case(row, case, window, axcodes, margin),
        [Line2D([], [], color=colour, linewidth=1.2, label=name) for name, colour in colours.items()],
    )


def _networks(cases: Sequence[OverlayCase], axcodes: str) -> list[str]:
    """The names of the columns, once the arguments are known to fit together."""
    if not cases:
        raise ValueError("`cases` must hold at least one case, but got none.")
    if len(axcodes) < 2 or axcodes[0] not in "LR" or axcodes[1] not in "PA":
        raise ValueError(
            f"`axcodes` must begin with L or R, then P or A, but got {axcodes!r}; use monai's Orientation first."
        )
    networks = list(cases[0].predictions)
    for case in cases:
        if list(case.predictions) != networks:
            raise ValueError(
                f"`cases` must have the predictions {networks}, but got {list(case.predictions)} for {case.name}."
            )
        for name, array in {"label": case.label, **case.predictions}.items():
            if tuple(array.shape) != tuple(case.image.shape):
                shapes = f"{tuple(array.shape)} and {tuple(case.image.shape)}"
                raise ValueError(f"`{name}` must have the shape of `image`, but got {shapes} for {case.name}.")
    return networks


def _draw_case(row: np.ndarray, case: OverlayCase, window: Any, axcodes: str, margin: int | None) -> None:
    image, label, *predictions = (_as_seen(a, axcodes) for a in (case.image, case.label, *case.predictions.values()))
    voxels = [(array > 0).sum((0, 1)) for array in (label, np.stack(predictions).max(0) if predictions else label)]
    index = int(np.argmax(voxels[0] if voxels[0].any() else voxels[1]))
    image, label, *predictions = (array[..., index] for array in (image, label, *predictions))
    low, high = window or np.percentile(image, [1, 99])
    box = _box([label, *predictions], margin)
    for axes, prediction in zip(row, [None, *predictions], strict=True):
        axes.imshow(image[box], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        _outline(axes, label[box], LABEL_COLOUR)
        if prediction is not None:
            _outline(axes, prediction[box], PREDICTION_COLOUR)
        height, width = label[box].shape
        axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    row[0].set_ylabel(f"{case.name}, slice {index}", fontsize=8)


def _as_seen(array: Any, axcodes: str) -> np.ndarray:
    """(y, x, z), the patient's right on the left and the front on top."""
    array = convert_to_numpy(array)
    array = array[0] if array.ndim == 4 else array
    array = array[..., None] if array.ndim == 2 else array
    flipped = tuple(axis for axis, code in enumerate(axcodes[:2]) if code in "RA")
    return np.flip(array, flipped).swapaxes(0, 1)


def _box(masks: list[np.ndarray], margin: int | None) -> tuple[slice, slice]:
    """The part of the slice that is shown."""
    rows, columns = np.nonzero(np.max(masks, 0))
    if margin is None or not rows.size:
        return slice(None), slice(None)
    return tuple(slice(max(int(i.min()) - margin, 0), int(i.max()) + margin + 1) for i in (rows, columns))  # type: ignore[return-value]


def _outline(axes: Axes, mask: np.ndarray, colour: str) -> None:
    """The border of each class; a rim of background closes outlines at the edge of the picture."""
    for value in np.unique(mask[mask > 0]):
        padded = np.pad((mask == value).astype(float), 1)
        at = [np.arange(-1, size + 1) for size in mask.shape]
        axes.contour(at[1], at[0], padded, levels=[0.5], colors=colour, linewidths=1.0)
