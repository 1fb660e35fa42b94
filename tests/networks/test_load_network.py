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

"""Networks of bundles and of TorchScript files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.networks.nets import UNet
from torch import nn

from monai_kd.networks.load_network import load_bundle_network, load_torchscript

UNET = {
    "_target_": "UNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": "$@classes + 1",
    "channels": "@channels",
    "strides": [2],
}
CONFIG = {"classes": 2, "channels": [2, 4], "device": "$torch.device('cpu')", "network_def": UNET}


def write(folder: Path, name: str, content: dict[str, Any]) -> Path:
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    text = json.dumps(content) if name.endswith(".json") else yaml.safe_dump(content, sort_keys=False)
    (folder / "configs" / name).write_text(text)
    return folder


class TestBundle:
    @pytest.mark.parametrize("name", ["inference.json", "inference.yaml", "inference.yml", "train.json"])
    def test_network_with_references_and_expressions(self, tmp_path, name):
        network = load_bundle_network(write(tmp_path, name, CONFIG))
        assert isinstance(network, UNet)
        assert network.out_channels == 3
        assert network.channels == [2, 4]

    @pytest.mark.parametrize("identifier", ["network_def", "network", "net"])
    def test_under_each_usual_id(self, tmp_path, identifier):
        config = {key: value for key, value in CONFIG.items() if key != "network_def"} | {identifier: UNET}
        assert isinstance(load_bundle_network(write(tmp_path, "inference.json", config)), UNet)

    def test_inference_goes_before_training(self, tmp_path):
        write(tmp_path, "train.yaml", {"network_def": {"_target_": "torch.nn.Identity"}})
        write(tmp_path, "inference.yaml", CONFIG)
        assert isinstance(load_bundle_network(tmp_path), UNet)

    def test_next_configuration_where_one_has_no_network(self, tmp_path):
        write(tmp_path, "inference.json", {"bundle_root": "."})
        write(tmp_path, "train.yaml", CONFIG)
        assert isinstance(load_bundle_network(tmp_path), UNet)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_on_the_device_of_its_configuration_is_brought_to_the_cpu(self, tmp_path):
        config = {"plain": UNET, "network": "$@plain.cuda()"} | {key: CONFIG[key] for key in ("classes", "channels")}
        network = load_bundle_network(write(tmp_path, "inference.json", config))
        assert next(network.parameters()).device.type == "cpu"

    def test_that_is_a_callable_in_its_configuration_is_built(self, tmp_path):
        config = CONFIG | {"teacher_def": UNET | {"_mode_": "callable", "out_channels": 4}}
        network = load_bundle_network(write(tmp_path, "inference.json", config), ["teacher_def"])
        assert network.out_channels == 4

    def test_imports_and_bundle_root(self, tmp_path):
        config = {
            "imports": ["$import json", "$from pathlib import Path"],
            "bundle_root": ".",
            "widths": "$json.loads((Path(@bundle_root) / 'widths.json').read_text())",
            "network_def": UNET | {"channels": "@widths", "out_channels": 2},
        }
        (tmp_path / "widths.json").write_text("[3, 5]")
        assert load_bundle_network(write(tmp_path, "inference.json", config)).channels == [3, 5]

    def test_without_configuration(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match="`network` must be a MONAI bundle with configs/inference.json or .yaml"
        ):
            load_bundle_network(tmp_path)

    def test_without_network(self, tmp_path):
        write(tmp_path, "inference.json", {"bundle_root": "."})
        with pytest.raises(
            ValueError, match="must be an id in the configuration of .*, but got .network_def. or .*; there is none"
        ):
            load_bundle_network(tmp_path)

    def test_unknown_id_with_those_that_there_are(self, tmp_path):
        write(tmp_path, "inference.json", CONFIG)
        with pytest.raises(ValueError, match="but got 'teacher_def'; there is network_def"):
            load_bundle_network(tmp_path, ["teacher_def"])


class TestTorchScript:
    def test_is_read(self, tmp_path):
        network, image = nn.Conv2d(1, 2, 1), torch.randn(1, 1, 4, 4)
        torch.jit.script(network).save(str(tmp_path / "model.ts"))
        assert torch.equal(load_torchscript(tmp_path / "model.ts")(image), network(image))

    def test_missing(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match="must be an existing bundle folder or TorchScript file, but got .*no.ts"
        ):
            load_torchscript(tmp_path / "no.ts")

    @pytest.mark.parametrize("kind", ["weights", "text", "empty", "cut"])
    def test_other_files(self, tmp_path, kind):
        path = tmp_path / "model.ts"
        if kind == "weights":
            torch.save(nn.Conv2d(1, 2, 1).state_dict(), path)
        elif kind == "cut":
            torch.jit.script(nn.Conv2d(1, 2, 1)).save(str(path))
            path.write_bytes(path.read_bytes()[:-400])
        else:
            path.write_text("a text" if kind == "text" else "")
        with pytest.raises(
            ValueError, match="`network` must be a TorchScript file, but got .*model.ts; if it holds weights"
        ):
            load_torchscript(path)
