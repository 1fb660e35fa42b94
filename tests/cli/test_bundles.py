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

from monai_kd.bundle import locate
from monai_kd.cli.bundles import bundles


def test_list_gives_name_version_and_folder(small_bundle, monkeypatch):
    monkeypatch.setattr(locate, "PLACES", (small_bundle.parent,))
    assert bundles() == f"small  0.1.0  two small nets\n    {small_bundle}"


def test_list_of_nothing_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(locate, "PLACES", (tmp_path,))
    assert bundles() == "no bundles are installed"


def test_copy_leaves_out_what_runs_produced(small_bundle, tmp_path):
    (small_bundle / "cache").mkdir()
    copied = tmp_path / "mine" / "bundle"
    assert bundles("copy", str(small_bundle), str(copied)) == f"copied small to {copied}"
    assert {path.name for path in copied.iterdir()} == {"configs", "docs"}
    files = {str(path.relative_to(copied)) for path in copied.rglob("*") if path.is_file()}
    assert files == {f"configs/{name}.json" for name in ("metadata", "inference", "train", "evaluate")}


def test_copy_from_a_read_only_install_can_be_edited(small_bundle, tmp_path):
    (small_bundle / "configs" / "train.json").chmod(0o444)
    bundles("copy", str(small_bundle), str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "configs" / "train.json").stat().st_mode & 0o200


def test_copy_never_overwrites(small_bundle, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="`folder` must be new or empty, but got .*mine"):
        bundles("copy", str(small_bundle), str(tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_copy_refuses_a_folder_inside_the_bundle(small_bundle):
    with pytest.raises(ValueError, match="`folder` must lie outside the bundle"):
        bundles("copy", str(small_bundle), str(small_bundle / "mine"))


@pytest.mark.parametrize(
    ("arguments", "message"), [(("remove",), "list or copy"), (("copy", "small"), "a name and a folder")]
)
def test_wrong_use_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        bundles(*arguments)
