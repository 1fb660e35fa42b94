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

"""Inference, evaluation and export go by what the weights were trained with, without a flag."""

from __future__ import annotations

import re

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser

from monai_kd.bundle.prepare_console import root_cause
from monai_kd.networks.weights_facts import read_facts
from tests.bundles.journey import HEADNECK, POLYP, run_configs

pytestmark = pytest.mark.slow


def parsed(bundle, *configs) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / config) for config in configs])
    parser["bundle_root"] = str(bundle)
    return parser


def test_weights_say_size_and_classes(walked):
    """Those of the flags, which differ from the bundle's own."""
    facts = read_facts(walked(POLYP) / POLYP / "models" / "model.pt")
    assert facts["image_size"] == [64, 64]
    assert facts["classes"] == ["polyp"]
    assert "spacing" not in facts


@pytest.mark.parametrize("configs", [["inference.json"], ["train.yaml", "evaluate.yaml"]])
def test_size_of_the_training_is_used(walked, configs):
    parser = parsed(walked(POLYP) / POLYP, *configs)
    assert parser.get_parsed_content("image_size") == [64, 64]
    parser = parsed(walked(POLYP) / POLYP, *configs)
    parser["best_ckpt" if "train.yaml" in configs else "ckpt_path"] = "not_trained_yet.pt"
    assert parser.get_parsed_content("image_size") == [352, 352]


def test_weights_of_ct_say_window_and_spacing(walked):
    bundle = walked(HEADNECK) / HEADNECK
    facts = read_facts(bundle / "models" / "model.pt")
    assert facts["field_of_view"] == [64, 64]
    assert facts["window"] == [40, 400]
    images = sorted((walked(HEADNECK) / "data" / "headneck" / "images").iterdir())
    zooms = np.array([nibabel.load(image).header.get_zooms() for image in images])
    least, most = facts["spacing"]
    assert (least >= zooms.min(0) * 0.999).all() and (most <= zooms.max(0) * 1.001).all()
    assert (np.array(least) > 1).all()


def test_scan_at_another_scale_is_named_and_not_segmented(walked, tmp_path):
    """A CT of half the pixel size would be seen in its centre alone."""
    scan = nibabel.load(walked(HEADNECK) / "data" / "scan.nii.gz")
    (tmp_path / "scans").mkdir()
    nibabel.save(scan, tmp_path / "scans" / "as_trained.nii.gz")
    fine = scan.affine @ np.diag([0.5, 0.5, 1, 1])
    nibabel.save(nibabel.Nifti1Image(np.asarray(scan.dataobj), fine), tmp_path / "scans" / "finer.nii.gz")
    folders = {"dataset_dir": str(tmp_path / "scans"), "output_dir": str(tmp_path / "masks")}
    with pytest.raises(RuntimeError) as error:
        run_configs(walked(HEADNECK) / HEADNECK, ["inference.json"], **folders)
    assert re.search(r"finer: .*`image` must have pixels of .* mm, as the weights were trained on", root_cause(error.value))
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["as_trained_seg.nii.gz"]


def test_other_window_than_that_of_the_training_is_refused(walked, tmp_path):
    scan = str(walked(HEADNECK) / "data" / "scan.nii.gz")
    options = {"window": [50, 300], "dataset_dir": scan, "output_dir": str(tmp_path)}
    with pytest.raises(RuntimeError) as error:
        run_configs(walked(HEADNECK) / HEADNECK, ["inference.json"], **options)
    assert re.search(r"`window` must be \[40, 400\], with which .* was trained, but got", root_cause(error.value))
