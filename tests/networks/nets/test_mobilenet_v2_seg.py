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

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from monai_kd.networks.nets import MobileNetV2Seg


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 41), (1, 7)])
def test_logits_are_the_map_at_an_eighth_brought_to_the_image(height: int, width: int) -> None:
    torch.manual_seed(0)
    network, image = MobileNetV2Seg().eval().requires_grad_(False), torch.rand(2, 1, height, width)
    feature = network.encoder(image.expand(-1, 3, -1, -1))
    assert feature.shape[1:] == (1280, -(-height // 8), -(-width // 8))
    small = torch.einsum("bchw,oc->bohw", feature, network.head.weight[:, :, 0, 0]) + network.head.bias[:, None, None]
    expected = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=True)
    torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)


def test_logits_start_small() -> None:
    """From He's initialisation by fan-out, the released code's, they start at 15 and more, where softmax is one-hot."""
    torch.manual_seed(0)
    logits = MobileNetV2Seg().train()(torch.rand(2, 1, 64, 64))
    assert logits.std() < 1


def test_imagenet_weights_reach_the_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = MobileNetV2Seg().encoder
    published = {"classifier.1.weight": torch.zeros(1000, 1280)}
    for name, value in source.state_dict().items():
        part, _, rest = name.partition(".")
        number, _, tail = rest.partition(".")
        torchvision = {"stem": f"0.{rest}", "last": f"18.{rest}", "blocks": f"{int(number) + 1}.{tail}"}[part]
        published[f"features.{torchvision}"] = value
    torch.save(published, tmp_path / "mobilenet_v2.pth")
    network = MobileNetV2Seg(encoder_weights=tmp_path / "mobilenet_v2.pth")
    expected = source.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.encoder.state_dict().items())


def test_weights_need_one_or_three_channels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`encoder_weights` needs `in_channels` 1 or 3, but got 4"):
        MobileNetV2Seg(in_channels=4, encoder_weights=tmp_path / "mobilenet_v2.pth")
