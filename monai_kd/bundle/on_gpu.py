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

"""Whether a device is a GPU."""

from __future__ import annotations

import torch


def on_gpu(device: torch.device | str) -> bool:
    """
    Tell whether a device is a CUDA GPU. Mixed precision pays there alone.

    Args:
        device: the device.

    Example::

        >>> on_gpu("cpu"), on_gpu("cuda:1")
        (False, True)
    """
    return torch.device(device).type == "cuda"
