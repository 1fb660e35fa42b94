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

"""What cannot be built is said with the reason and the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_kd.networks import Teacher
from monai_kd.networks.bundle_errors import bundle_errors, root_cause
from monai_kd.networks.load_network import load_bundle_network

UNET = {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [2, 4], "strides": [2]}


def write(folder: Path, block: dict[str, Any], **entries: Any) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps({"network_def": block} | entries))
    return folder


def test_missing_package_with_the_line_for_pip(tmp_path):
    (tmp_path / "nets.py").write_text("import no_such_package.parts\n\nclass Net: ...\n")
    with pytest.raises(
        ImportError,
        match=r"`network_def` of zoo must be built with the package no_such_package, .*; pip install no_such",
    ):
        load_bundle_network(write(_moved(tmp_path, "zoo"), {"_target_": "nets.Net"}))


def _moved(folder: Path, name: str) -> Path:
    """The folder of a bundle that holds the modules of another."""
    target = folder / name
    target.mkdir()
    for file in folder.glob("*.py"):
        file.rename(target / file.name)
    return target


@pytest.mark.parametrize(
    ("text", "package", "pip"),
    [
        ("required package `einops` is not installed or the version doesn't match requirement.", "einops", "einops"),
        ("import torchvision.models (No module named 'torchvision').", "torchvision", "torchvision"),
        ("import skimage (No module named 'skimage').", "skimage", "scikit-image"),
    ],
)
def test_packages_that_monai_misses(text, package, pip):
    message = f"with the package {package}, which is missing; pip install {pip}\\."
    with pytest.raises(ImportError, match=message), bundle_errors(Path("zoo"), "network_def"):
        raise RuntimeError("Failed to instantiate component") from ValueError(text)


def test_argument_that_monai_dropped(tmp_path):
    old = {"_target_": "SwinUNETR", "img_size": [32, 32], "in_channels": 1, "out_channels": 2}
    with pytest.raises(
        ValueError, match=r"fit MONAI 1\.\d.*`img_size`, which SwinUNETR does not have .*override=\{'net"
    ):
        load_bundle_network(write(tmp_path, old))


def test_any_other_error_in_one_line(tmp_path):
    entries = {"size": "$1 / 0"}
    with pytest.raises(
        ValueError, match="`network_def` of .* must be readable .* got ZeroDivisionError: division by zero"
    ):
        load_bundle_network(write(tmp_path, UNET | {"in_channels": "@size"}, **entries))


def test_root_cause():
    first = KeyError("a")
    second, third = ValueError("b"), RuntimeError("c")
    second.__cause__, third.__cause__ = first, second
    assert root_cause(third) is first


class TestTeacher:
    """The same bundles as teachers."""

    def test_override_mends_the_configuration(self, tmp_path):
        bundle = write(tmp_path / "zoo", UNET | {"img_size": [32, 32]})
        (bundle / "models").mkdir()
        network = load_bundle_network(write(tmp_path / "good", UNET))
        torch.save(network.state_dict(), bundle / "models" / "model.pt")
        image = torch.ones(1, 1, 8, 8)
        teacher = Teacher(bundle, override={"network_def": UNET})
        assert torch.equal(teacher(image).logits, network.eval()(image))

    def test_override_without_a_bundle_is_refused(self):
        with pytest.raises(ValueError, match="`override` must be for a bundle folder"):
            Teacher(torch.nn.Conv2d(1, 2, 1), override={"network_def": {}})

    @pytest.mark.parametrize("bare", [False, True])
    def test_weights_are_those_that_the_inference_loads(self, tmp_path, bare):
        """MONAI's loader of one entry takes a file that holds the weights alone, too."""
        loader = {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/fine_tuned.pt'",
            "load_dict": {"student": "@network"},
        }
        bundle = write(tmp_path / "zoo", UNET, bundle_root=".", handlers=[loader], network="$@network_def")
        network = load_bundle_network(bundle)
        (bundle / "models").mkdir()
        weights = network.state_dict()
        content = weights if bare else {"student": weights, "optimizer": {}}
        torch.save(content, bundle / "models" / "fine_tuned.pt")
        image = torch.ones(1, 1, 8, 8)
        assert torch.equal(Teacher(bundle)(image).logits, network.eval()(image))
        assert [file.name for file in Teacher(bundle).weights_files] == ["fine_tuned.pt"]

    @pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
    def test_configuration_that_loads_to_a_gpu(self, tmp_path):
        torch.save(torch.tensor([2, 4]), tmp_path / "widths.pt")
        loaded = f"$torch.load({str(tmp_path / 'widths.pt')!r}, map_location=torch.device('cuda')).tolist()"
        entries = {"imports": ["$import torch"], "widths": loaded}
        network = load_bundle_network(write(tmp_path / "zoo", UNET | {"channels": "@widths"}, **entries))
        assert network.channels == [2, 4]
        assert "patch" not in repr(torch.load)
