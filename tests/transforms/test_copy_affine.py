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

from __future__ import annotations

import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Compose, Orientationd

from monai_kd.transforms import CopyAffined


def lits_like():
    """An array stored from left to right whose label has lost its header."""
    array = torch.arange(24.0).view(1, 2, 3, 4)
    image = MetaTensor(array, affine=torch.diag(torch.tensor([-1.0, -1.0, 2.0, 1.0])))
    return {"image": image, "label": MetaTensor(array.clone(), affine=torch.eye(4))}


def test_image_and_label_stay_together_through_reorientation():
    reorient = Orientationd(["image", "label"], "RAS", labels=None)
    apart = reorient(lits_like())
    assert not torch.equal(apart["image"], apart["label"])
    together = Compose([CopyAffined("label", "image"), reorient])(lits_like())
    assert torch.equal(together["image"], together["label"])
    assert torch.equal(together["image"].affine, together["label"].affine)


def test_input_is_not_changed():
    data = lits_like()
    CopyAffined("label")(data)
    assert torch.equal(data["label"].affine, torch.eye(4, dtype=torch.float64))


def test_guards():
    data = lits_like()
    with pytest.raises(ValueError, match=r"`label` must have the spatial size of `image`, but got \(1, 3, 4\) and"):
        CopyAffined("label")({**data, "label": data["label"][:, :1]})
    with pytest.raises(ValueError, match="must be MetaTensors, but got Tensor and MetaTensor"):
        CopyAffined("label")({**data, "label": data["label"].as_tensor()})
