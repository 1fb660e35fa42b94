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
from monai.data import DataLoader
from monai.transforms import Compose
from PIL import Image

from monai_kd.data import Frames, ReadableItems
from monai_kd.transforms import LoadRGBd

ITEMS = [{"case": name, "value": value} for name, value in zip("abcdef", (1, 0, 2, 4, 0, 5))]


class Inverse:
    """Cannot be pickled as a lambda can not either."""

    def __call__(self, item):
        return {**item, "value": 1 / item["value"]}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_others_are_done_and_failures_kept(workers, caplog):
    dataset = ReadableItems(ITEMS, Compose([Inverse()]))
    found = [batch["case"][0] for batch in DataLoader(dataset, batch_size=1, num_workers=workers)]
    assert sorted(found) == ["a", "c", "d", "f"]
    assert dataset.failures() == dict.fromkeys("be", "ZeroDivisionError: division by zero")
    if workers == 0:
        assert caplog.messages == [f"passed over `{name}`: ZeroDivisionError: division by zero" for name in "be"]
    dataset.forget_failures()
    assert dataset.failures() == {}


def test_strict_stops_at_the_first(caplog):
    done = []
    with pytest.raises(RuntimeError, match="`b` cannot be read, ZeroDivisionError: division by zero"):
        done.extend(item["case"] for item in ReadableItems(ITEMS, Inverse(), strict=True))
    assert done == ["a"] or done == []


def test_list_is_removed_with_the_dataset():
    dataset = ReadableItems(ITEMS)
    log = dataset.log
    assert log.is_file()
    del dataset
    assert not log.exists()


def test_video_that_is_cut_does_not_end_the_others(tmp_path):
    """Its frames until there are given; of pages, those before the damage."""
    pages = [Image.new("L", (8, 6), value) for value in (10, 20, 30)]
    pages[0].save(tmp_path / "b.gif", save_all=True, append_images=pages[1:])
    (tmp_path / "b.gif").write_bytes((tmp_path / "b.gif").read_bytes()[:-12])
    (tmp_path / "c.png").write_bytes(b"none")
    for name in ("a.png", "d.png"):
        pages[0].save(tmp_path / name)
    dataset = ReadableItems(Frames(tmp_path), LoadRGBd("image"))
    found = [item["case"] for item in dataset]
    assert {found[0], found[-1]} == {"a", "d"}
    assert dataset.failures().keys() == {"b", "c"}
    assert "b.gif" in dataset.failures()["b"]
    assert "c.png" in dataset.failures()["c"]
