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

"""What the losses share: inputs checked and in single precision, labels as masks, and the class-balanced mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.networks.utils import one_hot


def as_inputs(
    student: torch.Tensor, teacher: torch.Tensor, names: tuple[str, str] = ("student", "teacher")
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both maps as plain tensors of at least single precision, the teacher's detached.

    Args:
        student: map that gets the gradient.
        teacher: map that gets none.
        names: what the caller's arguments are called, for the error messages.

    Raises:
        TypeError: when one of them is not a tensor.
        ValueError: when they are not of shape (B, C, H, W) or (B, C, D, H, W), or differ in batch size or dimensions.

    """
    for name, value in zip(names, (student, teacher)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"`{name}` must be a tensor, but got {type(value).__name__}; pass one output at a time.")
        if value.ndim not in (4, 5):
            raise ValueError(
                f"`{name}` must be of shape (B, C, H, W) or (B, C, D, H, W), but got {tuple(value.shape)}."
            )
    if student.ndim != teacher.ndim or student.shape[0] != teacher.shape[0]:
        raise ValueError(
            f"`{names[0]}` must have the batch size and the number of dimensions of `{names[1]}`, "
            f"but got {tuple(student.shape)} and {tuple(teacher.shape)}."
        )
    return _plain(student), _plain(teacher).detach()


def autocast_disabled(tensor: torch.Tensor) -> AbstractContextManager:
    """Switch autocast off on the tensor's device: matrix products and powers would run in half precision under it."""
    device_type = tensor.device.type
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def one_hot_label(
    label: torch.Tensor | None, student: torch.Tensor, num_classes: int | None, needed_by: str
) -> torch.Tensor:
    """Return the label as (B, num_classes, *spatial) of the student's dtype, from integers or as it came.

    A single channel always means class indices. Values are checked on the CPU only: on an accelerator the check would
    wait for the device at each step, and there the scatter reports an index out of bounds itself. A pixel without any
    class in a one-hot label counts in none.

    Args:
        label: one-hot (B, C, *spatial) or class indices (B, 1, *spatial) of any dtype, also a MetaTensor.
        student: map whose batch size, number of dimensions and dtype the result shares.
        num_classes: number of classes; None takes the channels of a one-hot label or the largest index plus one.
        needed_by: what needs the label, for the error message.

    Raises:
        ValueError: when the label is missing, of another shape or class count, does not hold class indices, or its
            one-hot values are not from 0 to 1.

    """
    if label is None:
        raise ValueError(f"`label` must be given for {needed_by}, but got None.")
    shape = tuple(label.shape)
    if label.ndim != student.ndim or shape[0] != student.shape[0]:
        raise ValueError(
            "`label` must have the batch size and the number of dimensions of `student`, "
            f"but got {shape} and {tuple(student.shape)}; class indices without a channel want `label.unsqueeze(1)`."
        )
    if shape[1] not in (1, num_classes or shape[1]):
        raise ValueError(
            f"`label` must hold class indices in 1 channel or one-hot in {num_classes} channels, but got {shape}."
        )
    values = plain(label)
    if shape[1] > 1:
        check_shares("label", values, "one-hot")
        return values.to(student.dtype)
    _check_class_indices(values, num_classes)
    # at least two: an image of background only is no reason for a one-channel mask
    num_classes = num_classes or max(2, int(values.max()) + 1)
    return one_hot(values, num_classes, dtype=student.dtype)


def resize(feature: torch.Tensor, size: Sequence[int], mode: str) -> torch.Tensor:
    """Return the feature or mask at another spatial size; the same one if it has that size.

    Args:
        feature: map of shape (B, C, *spatial).
        size: the spatial size to reach.
        mode: ``"linear"`` interpolates along each axis, corners not aligned; ``"area"`` averages the pixels that a cell
            covers, which keeps the share of each class in it; ``"nearest"`` takes one pixel of it.

    """
    if tuple(feature.shape[2:]) == tuple(size):
        return feature
    if mode == "linear":
        mode = "bilinear" if feature.ndim == 4 else "trilinear"
        return F.interpolate(feature, size, mode=mode, align_corners=False)
    return F.interpolate(feature, size, mode=mode)


def unit_norm(rows: torch.Tensor) -> torch.Tensor:
    """Return rows (B, N) divided by their L2 norm, whatever their scale; a row of zeros stays as it is."""
    # a normalised row does not change with its scale; near 1, neither its square nor the epsilon can spoil it
    scale = rows.detach().abs().amax(dim=1, keepdim=True)
    return F.normalize(rows / scale.where(scale > 1e-30, 1.0), dim=1)


def class_balanced_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    Average values (B, *spatial), or those of each class (B, classes, *spatial), over each class of the batch first,
    then over the classes that are present.

    With m_c the mask of class c and K the classes whose mask is not empty::

        1 / |K| * sum over c in K of (sum of m_c * values / sum of m_c)

    """
    over = (0, *range(2, mask.ndim))
    values = values if values.ndim == mask.ndim else values.unsqueeze(1)
    total = (values * mask).sum(over)  # (C,)
    count = mask.sum(over)
    present = count > 0
    return (total / count.where(present, 1.0)).sum() / present.sum().clamp(min=1)


def check_same_shape(student: torch.Tensor, teacher: torch.Tensor) -> None:
    """Refuse maps that differ in channels or spatial size, and name the adapter that would make a feature fit.

    Raises:
        ValueError: when the shapes differ.

    """
    if student.shape == teacher.shape:
        return
    scales = {of / to for to, of in zip(student.shape[2:], teacher.shape[2:])}
    arguments = f"{student.shape[1]}, {teacher.shape[1]}" + (", spatial_dims=3" if student.ndim == 5 else "")
    if len(scales) == 1 and scales != {1.0}:
        arguments += f", scale_factor={scales.pop()}"
    remedy = "an adapter that also resizes" if len(scales) > 1 else f"`adapter=ChannelAdapter({arguments})`"
    raise ValueError(
        f"`student` must have the shape of `teacher`, but got {tuple(student.shape)} and {tuple(teacher.shape)}; "
        f"for a feature pass {remedy} to the `DistillationTerm`."
    )


def check_same_prediction(student: torch.Tensor, teacher: torch.Tensor) -> None:
    """Refuse logits that differ in classes or spatial size.

    Raises:
        ValueError: when the shapes differ.

    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"`student` must have the shape of `teacher`, but got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}; both networks must predict the same classes at the same resolution."
        )


def check_label_size(mask: torch.Tensor, student: torch.Tensor) -> None:
    """Refuse a label that is not as large as the logits.

    Raises:
        ValueError: when the spatial sizes differ.

    """
    if mask.shape[2:] != student.shape[2:]:
        raise ValueError(
            "`label` must have the spatial size of `student`, "
            f"but got {tuple(mask.shape[2:])} and {tuple(student.shape[2:])}."
        )


def check_shares(name: str, label: torch.Tensor, kind: str) -> None:
    """Refuse a label that is no mask, on the CPU only: an accelerator would be waited for at each step.

    Args:
        name: what the caller's argument is called.
        label: mask of any shape and dtype.
        kind: what the mask is, for the error message.

    Raises:
        ValueError: when a value is not from 0 to 1.

    """
    if label.device.type != "cpu" or torch.compiler.is_compiling():
        return
    wrong = ~((label >= 0) & (label <= 1))  # NaN too
    if wrong.any():
        raise ValueError(
            f"`{name}` must hold 0 and 1 (or shares between) as it is {kind}, but got {label[wrong][0].item():g}."
        )


def check_option(name: str, value: object, options: tuple) -> None:
    """Refuse a constructor's argument that is none of the options.

    Raises:
        ValueError: when the value is not among them.

    """
    if value not in options:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, options))}, but got {value!r}.")


def check_temperature(temperature: float) -> float:
    """Return a temperature as a float, or refuse it.

    Raises:
        ValueError: when it is not a finite number above 0.

    """
    if isinstance(temperature, str) or not 0 < temperature < math.inf:
        raise ValueError(f"`temperature` must be a finite number above 0, but got {temperature!r}.")
    return float(temperature)


def check_num_classes(num_classes: int | None) -> None:
    """Refuse a class count below two.

    Raises:
        ValueError: when it is given and below two.

    """
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"`num_classes` must be at least 2, the background included, but got {num_classes}.")


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor without the metadata of a MetaTensor."""
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    values = plain(tensor)
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _check_class_indices(label: torch.Tensor, num_classes: int | None) -> None:
    if label.device.type != "cpu" or torch.compiler.is_compiling():
        return
    wrong = (label < 0) | (label != label.long())
    if num_classes is not None:
        wrong |= label >= num_classes
    if wrong.any():
        up = "up" if num_classes is None else f"to {num_classes - 1}"
        raise ValueError(f"`label` must hold whole class indices from 0 {up}, but got {label[wrong][0].item():g}.")
