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

from monai_kd.bundle import bundle_network


def test_inference_goes_before_train(small_bundle):
    assert bundle_network(small_bundle).out_channels == 2


def test_other_network_comes_from_the_config_that_has_it(small_bundle):
    assert bundle_network(small_bundle, "teacher_def").out_channels == 4


def test_network_that_its_user_builds_is_built(small_bundle):
    assert bundle_network(small_bundle, "lazy_def").out_channels == 6


def test_unknown_network_lists_those_there_are(small_bundle):
    with pytest.raises(ValueError, match=r"but got 'techer_def'; there is lazy_def, network_def, teacher_def\."):
        bundle_network(small_bundle, "techer_def")


def test_unknown_bundle_is_refused():
    with pytest.raises(FileNotFoundError, match="`bundle` must be a folder with configs/"):
        bundle_network("no_such_bundle")
