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

import pytest

from monai_kd.bundle.run_stage import run_stage


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text(
        "bundle_root: .\nnumber: 1\nseen: []\ninitialize: [$@seen.append('initialize')]\n"
        "run: [$@seen.append(@number)]\nfinalize: [$@seen.append(@bundle_root)]\n"
    )
    (tmp_path / "configs" / "overlay.yaml").write_text("number: 2\n")
    return tmp_path


def test_stage_is_initialised_run_and_finalised_below_the_bundle(bundle):
    workflow = run_stage(bundle, "train.yaml", logging_file=False)
    assert workflow.parser.get_parsed_content("seen") == ["initialize", 1, str(bundle)]


def test_later_configuration_and_overrides_win(bundle):
    def number(configs, **override):
        return run_stage(bundle, configs, logging_file=False, **override).parser.get_parsed_content("seen")[1]

    assert number(["train.yaml", "overlay.yaml"]) == 2
    assert number(["train.yaml", "overlay.yaml"], number=3) == 3


def test_unknown_override_is_refused(bundle):
    with pytest.raises(ValueError, match="did you mean `number`"):
        run_stage(bundle, "train.yaml", logging_file=False, numbr=3)
