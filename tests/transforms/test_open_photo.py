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

import numpy as np
import pytest
from PIL import Image

from monai_kd.transforms.open_photo import check_depth, open_photo


def noise(*shape):
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


# where the pixel of row 0, column 0 of the upright picture lies in the stored one, by the definition of the tag
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_exif_orientation(tmp_path, orientation, suffix):
    upright = noise(5, 7, 3)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = stored.getexif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a{suffix}", exif=exif)
    image = open_photo(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(np.asarray(image), upright)
    assert image.format == {".png": "PNG", ".tif": "TIFF"}[suffix]
    assert image.info["orientation"] == orientation


def test_pictures_without_a_valid_orientation(tmp_path):
    Image.fromarray(noise(4, 4)).save(tmp_path / "none.png")
    odd = Image.fromarray(noise(4, 4))
    exif = odd.getexif()
    exif[0x0112] = 9
    odd.save(tmp_path / "odd.png", exif=exif)
    assert [open_photo(tmp_path / name).info["orientation"] for name in ("none.png", "odd.png")] == [1, 1]


def test_file_is_closed_and_may_be_replaced(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(noise(4, 4)).save(path)
    image = open_photo(str(path))
    path.unlink()
    assert np.asarray(image).shape == (4, 4)


def test_pages_are_refused(tmp_path):
    pages = [Image.fromarray(noise(4, 4)) for _ in range(3)]
    for name in ("a.tif", "a.gif"):
        pages[0].save(tmp_path / name, save_all=True, append_images=[page.rotate(90) for page in pages[1:]])
    with pytest.raises(
        ValueError, match=r"must hold one picture, but got 3 in .*a.tif; read them with `monai_kd.data.F"
    ):
        open_photo(tmp_path / "a.tif")
    pages[0].save(tmp_path / "one.gif")
    assert open_photo(tmp_path / "one.gif").size == (4, 4)
    pages[0].convert("RGB").save(tmp_path / "camera.jpg", "MPO", save_all=True, append_images=[pages[1].convert("RGB")])
    assert open_photo(tmp_path / "camera.jpg").size == (4, 4)


def test_guards(tmp_path):
    with pytest.raises(FileNotFoundError, match="`filename` must be a picture, but got .*a.png, which is not there"):
        open_photo(tmp_path / "a.png")
    (tmp_path / "a.png").write_text("%PDF")
    with pytest.raises(ValueError, match="`filename` must be a picture that Pillow reads, but got .*a.png; convert"):
        open_photo(tmp_path / "a.png")
    for suffix in (".jpg", ".png", ".tif"):
        path = tmp_path / f"cut{suffix}"
        Image.fromarray(noise(64, 64, 3)).save(path)
        path.write_bytes(path.read_bytes()[:-3000])
        with pytest.raises((RuntimeError, ValueError), match=f"cut{suffix}"):
            open_photo(path)
    with pytest.raises(ValueError, match="8 or 16 bits a channel, but got mode LAB in a.tif"):
        check_depth(Image.new("LAB", (2, 2)), "a.tif")
