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

"""What a configuration says, without building it."""

from __future__ import annotations

import json

import pytest

from monai_kd.networks.bundle_config import components, entry, inference_loader

CONFIG = {
    "train": {"handlers": [{"_target_": "A"}, {"_target_": "B", "inner": {"_target_": "C"}}]},
    "text": "$@train",
}


@pytest.mark.parametrize(
    ("identifier", "found"),
    [
        ("train::handlers::0", {"_target_": "A"}),
        ("train#handlers#1#_target_", "B"),
        ("text", "$@train"),
        ("train::handlers::2", None),
        ("train::handlers::name", None),
        ("text::more", None),
        ("none", None),
    ],
)
def test_entry(identifier, found):
    assert entry(CONFIG, identifier) == found


def test_components_with_their_ids():
    assert {key: block["_target_"] for key, block in components(CONFIG)} == {
        "train::handlers::0": "A",
        "train::handlers::1": "B",
        "train::handlers::1::inner": "C",
    }


@pytest.mark.parametrize("absolute", [False, True])
def test_loader_of_the_inference(tmp_path, absolute):
    path = str(tmp_path / "other.pt") if absolute else "models/other.pt"
    loader = {"_target_": "monai.handlers.CheckpointLoader", "load_path": path, "load_dict": {"net": "@network"}}
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text(json.dumps({"handlers": [loader]}))
    expected = tmp_path / ("other.pt" if absolute else "models/other.pt")
    assert inference_loader(tmp_path) == (expected, "net")


def test_none_without_a_loader(tmp_path):
    assert inference_loader(tmp_path) is None
