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

import struct
import zlib

import numpy as np
import pytest
import torch
from monai.data import PILReader, decollate_batch, list_data_collate
from monai.transforms import LoadImage, SaveImage, Transpose
from PIL import Image

from monai_kd.transforms import LoadRGB, LoadRGBd


def noise(*shape, high=256, dtype=np.uint8):
    return np.random.RandomState(0).randint(0, high, shape).astype(dtype)


def as_image(array):
    """(H, W, C) of 0 to 255 as (C, H, W) of 0 to 1."""
    return torch.from_numpy(array.astype(np.float32).transpose(2, 0, 1) / 255)


def save_rgb16(path, array):
    """A PNG of 16 bits a channel, which Pillow reads but does not write."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, channels = array.shape
    colour = {3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_rgb_keeps_its_values_height_first(tmp_path, suffix):
    pixels = noise(5, 7, 3)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    image = LoadRGB()(tmp_path / f"a{suffix}")
    assert image.dtype == torch.float32
    assert image.meta["filename_or_obj"].endswith(f"a{suffix}")
    torch.testing.assert_close(image.as_tensor(), as_image(pixels))
    same = LoadImage(PILReader(reverse_indexing=False), image_only=True)(tmp_path / f"a{suffix}")
    torch.testing.assert_close(image.as_tensor(), same.as_tensor().permute(2, 0, 1) / 255)  # MONAI, with height first


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "1", "P", "PA"])
def test_other_modes_give_the_colours_one_sees_without_alpha(tmp_path, mode):
    pixels = noise(6, 4, 3)
    if mode in ("L", "LA", "1"):
        grey = noise(6, 4) if mode != "1" else 255 * noise(6, 4, high=2)
        pixels = np.repeat(grey[..., None], 3, axis=2)
    source = Image.fromarray(pixels)
    if mode in ("P", "PA"):
        source = source.quantize(256)  # 24 pixels, so that every colour has its entry
        np.testing.assert_array_equal(np.asarray(source.convert("RGB")), pixels)
        source.save(tmp_path / "a.png", **({"transparency": bytes(range(256))} if mode == "PA" else {}))
    else:
        source = source.convert(mode)
        if mode in ("LA", "RGBA"):
            source.putalpha(Image.fromarray(noise(6, 4, high=200)))
        source.save(tmp_path / "a.png")
    torch.testing.assert_close(LoadRGB()(tmp_path / "a.png").as_tensor(), as_image(pixels))


def test_transparent_colour_of_rgb_is_seen(tmp_path):
    pixels = noise(3, 3, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=tuple(int(v) for v in pixels[1, 1]))
    torch.testing.assert_close(LoadRGB()(tmp_path / "a.png").as_tensor(), as_image(pixels))


def test_16_bits_are_scaled(tmp_path):
    grey = noise(5, 3, high=65536, dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(grey).save(tmp_path / name)
        image = LoadRGB()(tmp_path / name)
        torch.testing.assert_close(image.as_tensor(), torch.from_numpy(grey / 65535).float().expand(3, 5, 3))
    for channels in (3, 4):
        colours = noise(5, 3, channels, high=65536, dtype=np.uint16)
        save_rgb16(tmp_path / "b.png", colours)
        image = LoadRGB()(tmp_path / "b.png").as_tensor()
        expected = torch.from_numpy((colours[..., :3] / 65535).astype(np.float32)).permute(2, 0, 1)
        torch.testing.assert_close(image, expected, atol=1 / 255, rtol=0)  # Pillow keeps the upper 8 bits


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red = LoadRGB()(tmp_path / "a.jpg").mean(dim=(1, 2))
    torch.testing.assert_close(red.as_tensor(), torch.tensor([1.0, 0.0, 0.0]), atol=0.02, rtol=0)


def test_exif_rotation_is_applied(tmp_path):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :8] = 255  # white on the left
    stored = Image.fromarray(pixels)
    exif = stored.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it
    stored.save(tmp_path / "a.jpg", exif=exif, quality=100)
    image = LoadRGB()(tmp_path / "a.jpg")
    assert image.shape == (3, 32, 16)
    assert image[:, :8].mean() > 0.99  # now on top
    assert image[:, 8:].mean() < 0.01


def test_frames_of_a_video_are_taken_as_they_are():
    pixels = noise(5, 7, 3)
    torch.testing.assert_close(LoadRGB()(pixels).as_tensor(), as_image(pixels))
    torch.testing.assert_close(LoadRGB()(torch.from_numpy(pixels)).as_tensor(), as_image(pixels))
    torch.testing.assert_close(LoadRGB()(np.dstack([pixels, pixels[..., :1]])).as_tensor(), as_image(pixels))


def test_item_keeps_its_name_through_a_batch(tmp_path):
    items = []
    for name in ("a", "b"):
        Image.fromarray(noise(4, 4, 3)).save(tmp_path / f"{name}.png")
        items.append(LoadRGBd("image")({"image": str(tmp_path / f"{name}.png"), "case": f"set_{name}", "other": 1}))
    batch = list_data_collate(items)
    assert batch["image"].shape == (2, 3, 4, 4)
    assert [item["image"].meta["case"] for item in decollate_batch(batch)] == ["set_a", "set_b"]
    assert LoadRGBd(["image", "mask"], allow_missing_keys=True)({"image": noise(4, 4)})["image"].shape == (3, 4, 4)


def test_saved_with_transpose_lies_as_the_input(tmp_path):
    pixels = noise(12, 20, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = Transpose([0, 2, 1])(LoadRGB()(tmp_path / "a.png"))
    SaveImage(
        tmp_path / "out", output_postfix="seg", output_ext=".png", scale=255, separate_folder=False, print_log=False
    )(image)
    np.testing.assert_allclose(np.asarray(Image.open(tmp_path / "out" / "a_seg.png")), pixels, atol=1)


def test_guards(tmp_path):
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W\), .* but got float64 of shape \(4, 4\)"):
        LoadRGB()(np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"must be uint8 .* but got uint8 of shape \(3, 4, 5\)"):
        LoadRGB()(noise(3, 4, 5))
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="must have 8 or 16 bits a channel, but got mode F in .*a.tif; save it as PNG"):
        LoadRGB()(tmp_path / "a.tif")
    (tmp_path / "scan.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(ValueError, match="must be a picture that Pillow reads, but got .*scan.dcm"):
        LoadRGBd("image")({"image": tmp_path / "scan.dcm"})
