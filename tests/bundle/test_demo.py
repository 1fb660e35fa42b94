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

import nibabel
import numpy as np
import pytest

from monai_kd.bundle import demo as module
from monai_kd.report import read_cases


@pytest.mark.slow
def test_demo_trains_evaluates_and_segments_by_the_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SIZE", 64)
    monkeypatch.setitem(module.SMALL, "patch_size", [64, 64])
    text = module.demo(str(tmp_path), epochs=1, num_cases=10)

    page = next(tmp_path.glob("*/report.html"))
    assert text.endswith(f"report: {page}")
    assert page.read_text().count("data:image/png;base64") == 1
    runs = [
        read_cases(page.parent / module.BUNDLE / "eval" / name / "cases.csv") for _, name, _ in module.STAGES.values()
    ]
    assert [len(cases) for cases in runs] == [4, 4, 4]  # two test cases of two classes
    assert len({tuple(case.metrics["dice"] for case in cases) for cases in runs}) == 3  # three networks, not one
    mask = nibabel.load(next((page.parent / "dicom_masks").glob("*.nii.gz")))
    assert mask.shape[:2] == (64, 64)
    assert np.isin(np.asarray(mask.dataobj), [0, 1, 2]).all()


@pytest.mark.parametrize("numbers", [{"epochs": 0}, {"num_cases": 9}])
def test_demo_refuses_too_small_numbers_before_it_writes(tmp_path, numbers):
    with pytest.raises(ValueError, match="`epochs` must be >= 1 and `num_cases` >= 10, but got"):
        module.demo(str(tmp_path / "new"), **numbers)
    assert not (tmp_path / "new").exists()
