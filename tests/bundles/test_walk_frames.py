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

"""After all commands of the README of the bundle for frames: what they left behind is there and right."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monai_kd.bundle import bundle_network
from monai_kd.data import endoscopy_cases
from monai_kd.transforms import LoadMask, LoadRGB
from tests.bundles.journey import DATA, POLYP, run_configs

pytestmark = pytest.mark.slow


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def predicted(walked, tmp_path_factory) -> tuple[Path, float]:
    """The masks of all test frames at a threshold that puts about a tenth of their pixels in the foreground."""
    folder, output = walked(POLYP), tmp_path_factory.mktemp("predicted")
    case = endoscopy_cases(folder / "data" / DATA[POLYP] / "TestDataset")[0]
    threshold = float(np.quantile(probability(folder / POLYP, case["image"]), 0.9))
    options = {"image_size": [64, 64], "threshold": threshold, "output_dir": str(output)}
    run_configs(
        folder / POLYP, ["inference.json"], dataset_dir=str(folder / "data" / DATA[POLYP] / "TestDataset"), **options
    )
    return output, threshold


def probability(bundle: Path, image: str) -> np.ndarray:
    """By hand: read, resize, normalise, network, sigmoid, back to the size of the frame."""
    network = bundle_network(bundle)
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    frame = LoadRGB()(image).as_tensor()[None]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    small = torch.nn.functional.interpolate(frame, (64, 64), mode="bilinear", align_corners=False)
    with torch.no_grad():
        logits = network.eval()((small - mean[:, None, None]) / std[:, None, None])
    back = torch.nn.functional.interpolate(logits.sigmoid(), frame.shape[2:], mode="bilinear", align_corners=False)
    return back[0, 0].numpy()


def test_masks_are_those_of_a_forward_pass(walked, predicted):
    folder, (output, threshold) = walked(POLYP), predicted
    cases = endoscopy_cases(folder / "data" / DATA[POLYP] / "TestDataset")
    assert {path.suffix for path in output.iterdir()} == {".png", ".csv"}
    found = 0
    for case in cases[::5]:
        name = f"{case['dataset']}_images_{Path(case['image']).stem}"
        mask = np.asarray(Image.open(output / f"{name}_mask.png"))
        expected = probability(folder / POLYP, case["image"])
        sure = np.abs(expected - threshold) > 1e-4
        assert set(np.unique(mask)) <= {0, 255}
        assert mask.shape == LoadRGB()(case["image"]).shape[1:]
        np.testing.assert_array_equal((mask > 0)[sure], (expected >= threshold)[sure])
        found += int((mask > 0).sum())
        overlay = np.asarray(Image.open(output / f"{name}_overlay.png")).astype(int)
        frame = (255 * LoadRGB()(case["image"]).numpy()).round().transpose(1, 2, 0)
        np.testing.assert_allclose(overlay[mask == 0], frame[mask == 0], atol=1)
        assert mask.any() == (np.abs(overlay - frame)[mask > 0].max(initial=0) > 10)
    assert found > 0


def test_table_of_frames_is_that_of_the_masks(predicted):
    output, _ = predicted
    rows = table(output / "frames.csv")
    assert len(rows) == len(list(output.glob("*_mask.png"))) == len(list(output.glob("*_overlay.png")))
    for row in rows:
        mask = np.asarray(Image.open(output / f"{row['frame']}_mask.png")) > 0
        assert [int(row[key]) for key in ("height", "width", "foreground_pixels")] == [*mask.shape, mask.sum()]


def test_evaluation_is_what_the_frames_say(walked):
    """Dice and IoU of each frame by their definition, at the size of the label, and the test set that it is of."""
    folder = walked(POLYP)
    rows = {row["case"]: row for row in table(folder / POLYP / "eval" / "model" / "cases.csv")}
    cases = endoscopy_cases(folder / "data" / DATA[POLYP] / "TestDataset")
    assert list(rows) == [case["case"] for case in cases]
    for case in cases[::5]:
        label = LoadMask()(case["label"])[0].numpy() > 0
        pred = probability(folder / POLYP, case["image"]) >= 0.5
        row = rows[case["case"]]
        assert row["group"] == case["dataset"]
        assert int(row["label_voxels"]) == label.sum()
        assert int(row["pred_voxels"]) == pytest.approx(pred.sum(), abs=2)
        if label.any():
            assert float(row["dice"]) == pytest.approx(2 * (pred & label).sum() / (pred.sum() + label.sum()), abs=0.02)
            assert float(row["iou"]) == pytest.approx((pred & label).sum() / (pred | label).sum(), abs=0.02)
        else:
            assert row["dice"] == row["iou"] == ""


def test_frames_of_a_video_have_their_numbers(walked):
    rows = table(walked(POLYP) / POLYP / "eval" / "video" / "frames.csv")
    assert [row["frame"] for row in rows] == [f"video_{number:06d}" for number in range(3)]
