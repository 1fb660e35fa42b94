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

"""Named choices of a bundle: what stands under them, and an error with the nearest."""

from __future__ import annotations

import re

import pytest
from monai.bundle import ConfigParser

from monai_kd.bundle import chosen
from monai_kd.bundle.prepare_console import root_cause
from tests.bundles.journey import BUNDLES, ROOT


def test_value():
    assert chosen("weights", "auto", {"auto": {"kd": 1}, "paper": {"kd": 2}}) == {"kd": 1}


@pytest.mark.parametrize("choice", ["papers", 0.5, None, True, ["auto"], {"auto": 1}])
def test_other(choice):
    with pytest.raises(ValueError, match=r"`weights` must be one of auto, paper, but got .*; did you mean"):
        chosen("weights", choice, {"auto": 1, "paper": 2})


@pytest.mark.parametrize("bundle", ["liver_tumor_ct_emkd", "kidney_tumor_ct_emkd"])
@pytest.mark.parametrize("task", ["tumour", "Organ", 1, None, ["tumor"]])
def test_misspelt_task_of_a_bundle_is_a_sentence(bundle, task):
    parser = ConfigParser()
    parser.read_config(str(BUNDLES[bundle] / "configs" / "train.yaml"))
    parser["task"] = task
    with pytest.raises(RuntimeError) as error:
        parser.get_parsed_content("classes")
    said = root_cause(error.value)
    assert said.startswith("ValueError: `task` must be one of tumor, organ, multi, but got ")
    assert task != "tumour" or said.endswith("'tumour'; did you mean tumor?")


def test_no_bundle_looks_a_choice_up_by_itself():
    """`dict(...)[@key]` ends in a KeyError that says nothing."""
    for file in sorted(ROOT.glob("bundles/*/configs/*")):
        assert not re.search(r"[\])}]\s*\[\s*@", file.read_text("utf-8")), file
