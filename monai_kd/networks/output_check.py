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

"""What the outputs of a network are: logits, or probabilities."""

from __future__ import annotations

import torch

from monai_kd.networks._plain import plain
from monai_kd.networks.soft_label import as_logits

OUTPUTS = (None, "logits", "softmax", "sigmoid")
BATCHES = 2  # in [0, 1] before a sigmoid is suspected: logits may lie there by chance,
ENDS = (0.05, 0.95)  # those of an untrained network near 0 or near 1 alone


def sums_to_one(values: torch.Tensor) -> torch.Tensor:
    """A boolean tensor, whether the sum over the channels (B, C, *spatial) is 1 at each pixel, up to rounding."""
    tolerance = max(1e-3, 4 * torch.finfo(values.dtype).eps)
    total = values.sum(dim=1, dtype=torch.float32)
    return ((total - 1).abs() <= tolerance).all()


class OutputCheck:
    """
    Notices a network that gives probabilities where logits are expected, by the values of its first outputs. It looks
    until one is outside of [0, 1], which for logits is the first batch as a rule: from then on it costs nothing.
    """

    def __init__(self) -> None:
        self._done = False
        self._inside = 0
        self._low, self._high = 1.0, 0.0

    def __call__(self, logits: torch.Tensor, sigmoid: bool = False) -> str | None:
        """
        Args:
            logits: (B, C, *spatial) of the next batch.
            sigmoid: whether it is known that they come from a sigmoid.

        Returns:
            once, what the values look like: "softmax" where they are in [0, 1] and sum to 1 over the channels,
            "sigmoid" where it is known, or those of two batches are in [0, 1] and near both ends; else None.
        """
        if self._done or logits.device.type == "meta":
            return None
        values = _floating(logits)
        low, high = values.aminmax()
        one = sums_to_one(values) if values.shape[1] > 1 else low > high
        lowest, highest, softmax = torch.stack([low.float(), high.float(), one.float()]).tolist()
        self._done = not 0 <= lowest <= highest <= 1
        if self._done or lowest == highest:  # a constant says nothing
            return None
        self._inside += 1
        self._low, self._high = min(self._low, lowest), max(self._high, highest)
        suspected = self._inside >= BATCHES and self._low < ENDS[0] and self._high > ENDS[1]
        self._done = bool(softmax) or sigmoid or suspected
        return "softmax" if softmax else "sigmoid" if self._done else None


def probabilities_message(who: str, found: str, remedy: str) -> str:
    """The warning of a network that gives probabilities."""
    reason = "in [0, 1]" + (" and sum to 1 over the channels" if found == "softmax" else "")
    return (
        f"{who} must give logits, but got values that look like the probabilities of a {found}: all are {reason}. "
        f"Taken for logits they say that nothing is sure; {remedy}."
    )


def check_outputs(outputs: str | None) -> None:
    """
    Refuse a declaration that is none of those known.

    Raises:
        ValueError: when it is another one.
    """
    if outputs not in OUTPUTS:
        raise ValueError(
            "`outputs` must be 'logits', 'softmax', 'sigmoid' or None for logits that are checked, "
            f"but got {outputs!r}."
        )


def logits_of(values: torch.Tensor, outputs: str, check: bool) -> torch.Tensor:
    """
    Logits of which a network has given the probabilities.

    Args:
        values: probabilities (B, C, *spatial).
        outputs: "softmax" for those that sum to 1 over the channels, or the foreground alone in one channel;
            "sigmoid" for those of channels that are independent.
        check: whether to look at the values, which waits for the device.

    Returns:
        logits of the same shape, whose softmax or sigmoid is what was given.

    Raises:
        ValueError: when the values are no such probabilities.

    Example::

        >>> import torch
        >>> logits_of(torch.tensor([0.75, 0.25]).view(1, 2, 1, 1), "softmax", check=True).softmax(1).flatten()
        tensor([0.7500, 0.2500])
    """
    values = _floating(values)
    if check:
        _check_probabilities(values, outputs)
    if outputs == "softmax":
        return as_logits(values)
    channels = values.shape[1]
    single = values.reshape(-1, 1, *values.shape[2:])  # each channel is a foreground by itself
    return as_logits(single).reshape(-1, channels, *values.shape[2:])


def _floating(values: torch.Tensor) -> torch.Tensor:
    values = plain(values).detach()
    return values if values.is_floating_point() else values.float()


def _check_probabilities(values: torch.Tensor, outputs: str) -> None:
    low, high = (bound.item() for bound in values.aminmax())
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"`outputs` must be 'logits' for a network that gives no probabilities, but got {outputs!r} and values "
            f"from {low:g} to {high:g}."
        )
    if outputs == "softmax" and values.shape[1] > 1 and not sums_to_one(values):
        raise ValueError(
            "`outputs` must be 'sigmoid' where the probabilities do not sum to 1 over the channels, but got 'softmax'."
        )
