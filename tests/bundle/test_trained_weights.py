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

from monai_kd.bundle import trained_weights


def test_file_is_given_back(tmp_path):
    (tmp_path / "model.pt").touch()
    assert trained_weights(tmp_path / "model.pt", "nothing") == str(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["model.pt", "."])
def test_missing_file_is_named_with_what_makes_it(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=rf"trained first, but got no file {tmp_path}.*; `make train` makes it"):
        trained_weights(tmp_path / name, "`make train`")
