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

"""CT windows: Hounsfield units to [0, 1]."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from monai.config import KeysCollection, NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform, ScaleIntensityRange, Transform
from monai.utils import ImageMetaKey, TraceKeys, TransformBackends

from monai_kd.transforms.check_hounsfield import check_hounsfield

CT_WINDOWS: dict[str, tuple[float, float]] = {
    "liver": (-40.0, 160.0),  # EMKD, Sec. IV-A
    "liver_code": (-60.0, 140.0),  # EMKD's released code
    "kidney": (-200.0, 300.0),  # EMKD, Sec. IV-A and released code
    "abdomen": (-160.0, 240.0),  # level 40, width 400
    "soft_tissue": (-160.0, 240.0),
    "head_neck": (-125.0, 225.0),  # level 50, width 350
    "mediastinum": (-125.0, 225.0),
    "brain": (0.0, 80.0),  # level 40, width 80
    "lung": (-1350.0, 150.0),  # level -600, width 1500
    "bone": (-500.0, 1300.0),  # level 400, width 1800
}


class CTWindow(Transform):
    """
    Maps a window of Hounsfield units linearly to [0, 1] and clips what lies outside, with MONAI's
    :py:class:`monai.transforms.ScaleIntensityRange`.

    ``output = clip((HU - lower) / (upper - lower), 0, 1)`` with ``lower, upper = level -/+ width / 2``.

    Presets: "liver" is -40..160 HU as in the text of EMKD (Qin et al., IEEE TMI 2021, Sec. IV-A), "liver_code" -60..140
    HU as in its released code, "kidney" -200..300 HU as in both; the default "liver" follows the text because it is
    the window that radiologists are quoted with. The others are customary radiology windows.

    Input that is not in HU is refused, because a wrong scale trains without an error and predicts nothing on other
    data: see :py:func:`monai_kd.transforms.check_hounsfield`. Window an image before it is cropped: the check
    knows the whole volume's range from :py:class:`monai_kd.transforms.LoadSlice`, and knows of crops that MONAI
    transforms made and then forgives missing air and fat, but not of crops that other software made.

    Args:
        window: name of a preset, or (level, width) in HU. Default "liver" unless `level` and `width` are given.
        level: centre of the window in HU, instead of `window`.
        width: width of the window in HU, positive, together with `level`.
        check_hu: whether to refuse input that is not in HU. Switch it off for data known to be in HU in which there is
            neither air nor fat, as patches that other software cut inside an organ.

    Shapes: (C, *spatial) to the same, float32.

    Raises:
        ValueError: when the window is unknown or its width not positive; when the image is not in HU (with its file).

    Example::

        >>> import torch
        >>> CTWindow("liver")(torch.tensor([[-1000.0, -40.0, 60.0, 160.0, 900.0]]))
        metatensor([[0.0000, 0.0000, 0.5000, 1.0000, 1.0000]])
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        window: str | Sequence[float] | None = None,
        level: float | None = None,
        width: float | None = None,
        check_hu: bool = True,
    ) -> None:
        self.lower, self.upper = _limits(window, level, width)
        self.check_hu = check_hu
        self.scale = ScaleIntensityRange(self.lower, self.upper, b_min=0.0, b_max=1.0, clip=True)

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        if self.check_hu:
            meta = img.meta if isinstance(img, MetaTensor) else {}
            check_hounsfield(img, _name(meta), meta.get("volume_range"), _is_cropped(img))
        return self.scale(img)


class CTWindowd(MapTransform):
    """
    Dictionary version of :py:class:`CTWindow`.

    Args:
        keys: keys of the CT images, never of labels.
        window: see :py:class:`CTWindow`.
        level: see :py:class:`CTWindow`.
        width: see :py:class:`CTWindow`.
        check_hu: see :py:class:`CTWindow`.
        allow_missing_keys: whether a missing key is no error.

    Example::

        >>> import torch
        >>> CTWindowd("image", level=40, width=400)({"image": torch.tensor([[-1000.0, 40.0]])})
        {'image': metatensor([[0.0000, 0.5000]])}
    """

    backend = CTWindow.backend

    def __init__(
        self,
        keys: KeysCollection,
        window: str | Sequence[float] | None = None,
        level: float | None = None,
        width: float | None = None,
        check_hu: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.window = CTWindow(window, level, width, check_hu)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.window(d[key])
        return d


def _limits(window: str | Sequence[float] | None, level: float | None, width: float | None) -> tuple[float, float]:
    if (level is None) != (width is None) or (level is not None and window is not None):
        raise ValueError(
            "either `window` or both `level` and `width` must be given, "
            f"but got window={window!r}, level={level} and width={width}."
        )
    if window is None and level is None:
        window = "liver"
    if isinstance(window, str):
        if window not in CT_WINDOWS:
            raise ValueError(
                f"`window` must be one of {', '.join(sorted(CT_WINDOWS))}, but got {window!r}; "
                "any other window is `level=..., width=...`."
            )
        return CT_WINDOWS[window]
    if window is not None:
        if len(window) != 2:
            raise ValueError(f"`window` must be a name or (level, width), but got {window!r}.")
        level, width = window
    if not (float(width) > 0):  # type: ignore[arg-type]
        raise ValueError(f"`width` must be positive, but got {width}; a window is (level, width), not (lower, upper).")
    return float(level) - float(width) / 2, float(level) + float(width) / 2  # type: ignore[arg-type]


def _name(meta: Mapping) -> str:
    name = str(meta.get(ImageMetaKey.FILENAME_OR_OBJ, "image"))
    return f"{name}, slice {meta['slice']}" if "slice" in meta else name


def _is_cropped(img: NdarrayOrTensor) -> bool:
    operations = img.applied_operations if isinstance(img, MetaTensor) else []
    return any("Crop" in str(op.get(TraceKeys.CLASS_NAME)) for op in operations if isinstance(op, Mapping))
