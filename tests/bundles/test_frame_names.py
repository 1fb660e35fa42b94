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

"""What the inference of the bundles for photographs reads, and how it names what it writes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from PIL import Image

from tests.bundles.journey import BUNDLES, PHOTOS


@pytest.fixture(params=PHOTOS)
def inference(request, tmp_path):
    for name in ("video.0001.png", "video.0002.png", "results/video.0001_mask.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 4)).save(tmp_path / name)
    parser = ConfigParser(json.loads((BUNDLES[request.param] / "configs" / "inference.json").read_text("utf-8")))
    parser["dataset_dir"], parser["output_dir"] = str(tmp_path), str(tmp_path / "results")
    return parser


def test_earlier_results_are_not_segmented(inference):
    frames = inference.get_parsed_content("dataset#data")
    assert [item["case"] for item in frames] == ["video.0001", "video.0002"]


def test_names_with_dots_are_kept_apart(inference, tmp_path):
    steps = inference["postprocessing"]["transforms"]
    writers = [number for number, step in enumerate(steps) if step["_target_"] == "SaveImaged"]
    for number in writers:
        save = inference.get_parsed_content(f"postprocessing#transforms#{number}")
        for case in (1, 2):
            image = MetaTensor(torch.full((1, 6, 4), case - 1.0), meta={"case": f"video.000{case}"})
            save(dict.fromkeys(("mask", "overlay"), image))
    written = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert written == [f"video.000{case}_{kind}.png" for case in (1, 2) for kind in ("mask", "overlay")]
    masks = [np.asarray(Image.open(tmp_path / "results" / f"video.000{case}_mask.png")) for case in (1, 2)]
    assert [mask.mean() for mask in masks] == [0, 255]
