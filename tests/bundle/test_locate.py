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

import pytest

from monai_kd.bundle import locate, locate_bundle, shipped_bundles


@pytest.fixture
def two_bundles(tmp_path, monkeypatch):
    """Two bundles where a wheel or a checkout has them, and a folder that is none."""
    for name in ("liver_ct", "kidney_ct"):
        (tmp_path / "bundles" / name / "configs").mkdir(parents=True)
        (tmp_path / "bundles" / name / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    (tmp_path / "bundles" / "notes").mkdir()
    monkeypatch.setattr(locate, "PLACES", (tmp_path / "none", tmp_path / "bundles"))
    return tmp_path / "bundles"


def test_shipped_bundles_are_sorted_and_only_bundles(two_bundles):
    assert shipped_bundles() == {"kidney_ct": two_bundles / "kidney_ct", "liver_ct": two_bundles / "liver_ct"}


def test_name_and_folder_find_the_same(two_bundles):
    assert locate_bundle("liver_ct") == locate_bundle(two_bundles / "liver_ct") == two_bundles / "liver_ct"


def test_folder_goes_before_name(two_bundles, tmp_path, monkeypatch):
    (tmp_path / "liver_ct" / "configs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate_bundle("liver_ct") == tmp_path / "liver_ct"


def test_unknown_bundle_names_the_nearest(two_bundles):
    with pytest.raises(FileNotFoundError, match=r"but got 'livr_ct'; there is liver_ct\."):
        locate_bundle("livr_ct")


def test_this_checkout_is_found():
    assert locate.PACKAGE.name == "monai_kd"
    assert locate.PACKAGE.parent / "bundles" in locate.PLACES
    assert (locate.PACKAGE.parent / "bundles").is_dir()
