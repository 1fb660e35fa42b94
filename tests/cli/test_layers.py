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

import json

from monai_kd.cli.layers import layers


def test_layers_of_a_bundle(small_bundle):
    block = {"_target_": "monai.networks.blocks.Convolution", "spatial_dims": 2, "in_channels": 1, "out_channels": 6}
    (small_bundle / "configs" / "inference.json").write_text(json.dumps({"network_def": block}))
    rows = [line.split() for line in layers(str(small_bundle), (1, 1, 8, 8)).splitlines()]
    assert ["conv", "Conv2d", "1x6x8x8", "60"] in rows
    assert ["adn.A", "PReLU", "1x6x8x8", "1"] in rows
    assert "adn.A" not in layers(str(small_bundle), (1, 1, 8, 8), depth=1)
