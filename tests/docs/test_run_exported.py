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

"""docs/deploy/run_exported.py: what it writes beside what the bundle writes, without monai_kd and MONAI."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from monai_kd.bundle.export_formats import why_not
from monai_kd.cli.export import export
from monai_kd.data import Frames, endoscopy_phantom, write_endoscopy_phantoms
from monai_kd.transforms import LoadRGBd
from tests.bundle.frames_bundle import write_frames_bundle
from tests.bundles.journey import ROOT, run_configs

SCRIPT = ROOT / "docs" / "deploy" / "run_exported.py"
FILES = {"onnx": "model.onnx", "torchscript": "model.ts", "openvino": "model.xml"}
RUNTIME = {"onnx": "onnxruntime", "torchscript": "torch", "openvino": "openvino"}
script = runpy.run_path(str(SCRIPT))


def run_script(*words: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """The script in a process in which importing monai_kd, MONAI or one of `without` is an error."""
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({['monai_kd', 'monai', *without]!r})); "
        f"sys.argv = {[str(SCRIPT), *words]!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)


def write_film(path: Path, count: int) -> None:
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 48
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            pixels = np.ascontiguousarray(endoscopy_phantom(seed=number, size=48).image)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        video.mux(stream.encode())


def write_cut(path: Path, whole: Path) -> None:
    path.write_bytes(whole.read_bytes()[: int(0.7 * whole.stat().st_size)])
    whole.unlink()


@pytest.fixture(scope="module")
def segmented(tmp_path_factory) -> tuple[Path, list[str]]:
    """A bundle with exported students, frames, and the bundle's own masks of them."""
    folder = write_frames_bundle(tmp_path_factory.mktemp("run") / "bundle")
    images = write_endoscopy_phantoms(folder / "data", "folder", num_frames=2, size=48, progress=False) / "images"
    (images / "night").mkdir()
    generator = np.random.default_rng(0)
    grey = np.cumsum(generator.integers(0, 900, (30, 50)), axis=1).astype(np.uint16)
    Image.fromarray(grey).save(images / "night" / "grey.png")  # 16 bits
    turned = Image.fromarray(endoscopy_phantom(seed=5, size=56).image[:, :40])
    exif = turned.getexif()
    exif[0x0112] = 6  # taken with the camera on its side
    turned.save(images / "turned.png", exif=exif)
    write_film(images / "film.mp4", 3)
    pages = [Image.fromarray(endoscopy_phantom(seed=seed, size=50).image) for seed in (6, 7)]
    pages[0].save(images / "stack.tif", save_all=True, append_images=pages[1:])
    (images / "._turned.png").write_bytes(b"what macOS leaves")
    here = [name for name in FILES if not why_not(name)]
    export(str(folder), ",".join(here))
    run_configs(folder, ["inference.json"], dataset_dir=str(images), output_dir=str(folder / "expected"))
    return folder, here


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_masks_are_those_of_the_bundle(segmented, name):
    """Pictures of 8 and 16 bits, one turned by its EXIF tag, in folders, and the frames of a video."""
    folder, here = segmented
    if name not in here or (name == "onnx" and why_not("onnx")):
        pytest.skip(why_not(name))
    output = folder / name
    done = run_script(
        str(folder / "models" / FILES[name]), str(folder / "data" / "images"), "--output", str(output),
        without=tuple(module for module in RUNTIME.values() if module != RUNTIME[name]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = {path.name: np.asarray(Image.open(path)) for path in (folder / "expected").glob("*_mask.png")}
    assert "night_grey_mask.png" in expected
    assert {"film_000002_mask.png", "stack_000001_mask.png"} < set(expected)
    assert not any(file.startswith(".") for file in expected)
    assert {path.name for path in output.iterdir()} == set(expected)
    assert f"{len(expected)} masks of polyp" in done.stdout
    for file, mask in expected.items():
        got = np.asarray(Image.open(output / file))
        assert got.shape == mask.shape
        assert set(np.unique(got)) <= {0, 255}
        assert (got != mask).mean() < 2e-3, file  # a pixel at the very threshold may fall on either side
    share = np.mean([(mask > 0).mean() for mask in expected.values()])
    assert 0.05 < share < 0.95


def test_missing_model_and_frames_are_said(tmp_path):
    for name, message in (("no.onnx", "which is not there"), ("frame.png", "must be .onnx, .ts or .xml")):
        (tmp_path / "frame.png").touch()
        with pytest.raises(ValueError, match=message):
            script["load_student"](tmp_path / name)
    (tmp_path / "frame.png").unlink()
    for path, message in ((tmp_path, "without any"), (tmp_path / "video.mp4", "which is not there")):
        with pytest.raises(ValueError, match=message):
            script["find_files"](path)


def write_pictures(folder: Path) -> None:
    """Of each kind that has a meaning: modes, bits, pages, videos, links, folders, and what is passed over."""
    generator = np.random.default_rng(0)
    colour = Image.fromarray(generator.integers(0, 256, (6, 9, 4), np.uint8))
    for mode, suffix in (("1", "png"), ("L", "bmp"), ("LA", "png"), ("P", "png"), ("RGBA", "png"), ("RGB", "jpg"),
                         ("CMYK", "tif"), ("YCbCr", "jpg"), ("RGB", "webp"), ("P", "gif")):  # fmt: skip
        colour.convert(mode).save(folder / f"{mode}_{suffix}.{suffix}")
    seen_through = colour.convert("P")
    seen_through.save(folder / "transparent.png", transparency=3)
    deep = Image.fromarray(generator.integers(0, 65536, (6, 9)).astype(np.uint16))
    for suffix in ("png", "tif"):
        deep.save(folder / f"deep_{suffix}.{suffix}")
    deep.save(folder / "deep_pages.tif", save_all=True, append_images=[deep, colour.convert("RGB")])
    (folder / "inner" / "2").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 8
    colour.convert("RGB").save(folder / "inner" / "2" / "Turned.JPEG", exif=exif)
    moving = [colour.convert("P"), colour.rotate(180).convert("P"), colour.convert("L")]
    moving[0].save(folder / "inner" / "moving.gif", save_all=True, append_images=moving[1:])
    (folder / "inner" / "circle").symlink_to(folder)
    for name in (".hidden.png", "._Turned.jpg", "notes.txt"):
        (folder / "inner" / name).write_bytes(b"no picture")
    (folder / ".thumbnails").mkdir()
    deep.save(folder / ".thumbnails" / "small.png")
    for name in ("film.mp4", "film2.avi", "film3.mkv"):
        write_film(folder / name, 4)


@pytest.mark.parametrize("step", [1, 2])
def test_frames_are_those_of_the_bundle(tmp_path, step):
    """To the bit, under the same names."""
    write_pictures(tmp_path)
    read = LoadRGBd("image")
    expected = {item["case"]: read(item)["image"].numpy() for item in Frames(tmp_path, step)}
    found = dict(script["frames"](script["find_files"](tmp_path), step))
    assert {"inner_2_Turned", "inner_moving_000002", "deep_pages_000002", "film3_000000", "transparent"} < set(found)
    assert set(found) == set(expected)
    for name, pixels in found.items():
        assert pixels.dtype == np.float32
        np.testing.assert_array_equal(pixels, expected[name], err_msg=name)


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        file.mux(stream.encode(sound))
        file.mux(stream.encode())


def cut_picture(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path.with_name("whole.jpg"))
    write_cut(path, path.with_name("whole.jpg"))


def cut_film(path: Path) -> None:
    whole = path.with_name(f"whole{path.suffix}")
    write_film(whole, 30)
    write_cut(path, whole)


def cut_pages(path: Path) -> None:
    page = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    page.save(path.with_name("whole.tif"), save_all=True, append_images=[page, page])
    write_cut(path, path.with_name("whole.tif"))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("float.tif", Image.new("F", (4, 4), 0.5).save, "but got mode F; save it as PNG"),
        ("int.tif", Image.new("I", (4, 4), 2**30).save, "but got mode I; save it as PNG"),
        ("lab.tif", Image.new("LAB", (4, 4)).save, "but got mode LAB; save it as PNG"),
        ("junk.png", lambda path: path.write_bytes(b"no picture"), "UnidentifiedImageError"),
        ("cut.jpg", cut_picture, "truncated"),
        ("pages.tif", cut_pages, "Error: "),
        ("cut.avi", cut_film, r"it is truncated, it holds \d+ of 30 frames"),
        ("cut.mkv", cut_film, r"it is truncated, it holds \d+ frames, \d.\d+ of 3.00 s"),
        ("sound.mp4", audio_only, "it holds no pictures"),
        ("junk.mp4", lambda path: path.write_bytes(b"no film"), "InvalidDataError"),
    ],
)
def test_unusable_file_is_refused_by_name(tmp_path, name, write, message):
    """As the bundle refuses it, rather than segmented as far as it goes."""
    write(tmp_path / name)
    with pytest.raises((ValueError, RuntimeError), match=name):
        list(map(LoadRGBd("image"), Frames(tmp_path)))
    with pytest.raises(ValueError, match=f"{name} cannot be read.*{message}"):
        list(script["frames"](script["find_files"](tmp_path)))
    Image.new("RGB", (8, 6)).save(tmp_path / "z.png")
    failed: list[str] = []
    found = [case for case, _ in script["frames"](script["find_files"](tmp_path), failed=failed)]
    assert found[-1] == "z"
    assert len(failed) == 1
    assert name in failed[0]


@pytest.mark.parametrize(
    "names", [("x.png", "x.jpg"), ("s/y.png", "s_y.png"), ("a.gif", "a_000001.png"), ("v_000001.png", "v.mp4")]
)
def test_two_files_of_one_name_are_refused(tmp_path, names):
    """One mask would take the place of the other."""
    (tmp_path / "s").mkdir()
    for name in names:
        pictures = [Image.new("L", (8, 8), grey) for grey in (1, 2)]
        if name.endswith("mp4"):
            write_film(tmp_path / name, 2)
        else:
            pictures[0].save(
                tmp_path / name, **({"save_all": True, "append_images": pictures[1:]} if "gif" in name else {})
            )
    with pytest.raises(ValueError, match="files must have different names"):
        Frames(tmp_path)
    with pytest.raises(ValueError, match="`input` must have different names, but got"):
        script["find_files"](tmp_path)


def test_masks_and_the_student_are_passed_over(tmp_path):
    """A second run would segment the masks of the first one, and take model.ts for a video."""
    for name in ("x.png", "masks/x_mask.png", "masks/deep/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    (tmp_path / "model.ts").touch()
    (tmp_path / "link").symlink_to(tmp_path / "masks")
    assert list(script["find_files"](tmp_path, (tmp_path / "masks", tmp_path / "model.ts"))) == ["x"]


def refused(*words: object, without: tuple[str, ...] = ()) -> str:
    done = run_script(*map(str, words), without=without)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_what_is_wrong_is_one_line(segmented, tmp_path):
    model = segmented[0] / "models" / "model.ts"
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    assert refused(tmp_path / "no.ts", tmp_path).startswith("error: `model` must be a file, but got")
    assert refused(model, tmp_path, without=("torch",)).startswith("error: torch is needed for this file")
    assert "`output` must be another folder than `input`" in refused(model, tmp_path, "--output", tmp_path)
    for step in ("0", "-1"):
        assert f"`step` must be at least 1, but got {step}." in refused(model, tmp_path, "--step", step)
    assert os.listdir(tmp_path) == ["x.png"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_file_that_is_cut_off_is_told(segmented, tmp_path, name):
    if name not in segmented[1]:
        pytest.skip(why_not(name))
    pytest.importorskip(RUNTIME[name])
    file = tmp_path / FILES[name]
    whole = (segmented[0] / "models" / FILES[name]).read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    said = refused(file, tmp_path)
    assert said.startswith(f"error: `model` must be a whole file for cpu, but got {file}: ")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
@pytest.mark.parametrize("name", FILES)
def test_missing_device_is_told(segmented, tmp_path, name):
    """onnxruntime would take the CPU without a word."""
    if name not in segmented[1]:
        pytest.skip(why_not(name))
    pytest.importorskip(RUNTIME[name])
    said = refused(segmented[0] / "models" / FILES[name], tmp_path, "--device", "cuda")
    assert said.startswith("error: `device` must be one that is here, but got cuda: ")


def block(**entries) -> str:
    given = {"reader": "LoadRGB", "in_channels": 3, "input_shape": [3, 8, 8], "channels": ["red", "green", "blue"]}
    given = dict.fromkeys(script["ENTRIES"]) | given
    return json.dumps(given | entries)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "must hold metadata with .*, but got model.onnx without reader, .*; write it by `python -m monai_kd"),
        ("{not JSON", "must hold metadata with .*, but got model.onnx without reader"),
        ("[1]", "must hold metadata with .*, but got model.onnx without reader"),
        (json.dumps({"reader": "LoadRGB"}), "but got model.onnx without in_channels, input_shape"),
        (block(reader="LoadImage", channels=["HU"]), r"RGB frames, but got one that reads \['HU'\] by LoadImage"),
        (block(other=["ScaleIntensity"]), r"and normalising alone, but got \{'other': \['ScaleIntensity'\]\}"),
        (block(patch_size=[64, 64]), "and normalising alone, but got {'patch_size'"),
    ],
)
def test_student_of_other_input_is_refused(text, message):
    """Rather than run on values that it was not trained on."""
    with pytest.raises(ValueError, match=message):
        script["_block"](text, Path("model.onnx"))


sides = st.integers(1, 12)


@given(sides, sides, sides, sides)
def test_resize_is_that_of_torch(height, width, new_height, new_width):
    image = torch.rand(2, height, width, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(image[None], (new_height, new_width), mode="bilinear")[0]
    got = script["resize"](image.numpy(), (new_height, new_width))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-6)


def test_masks_by_what_the_logits_mean():
    logits = np.array([[[0.0, 1.0]], [[2.0, 1.5]], [[-1.0, 3.0]]], np.float32)
    size, overlapping = (1, 2), {"activation": "sigmoid", "threshold": 0.7, "classes": list("abc")}
    exclusive = {"activation": "softmax", "threshold": None, "classes": list("abc")}
    np.testing.assert_array_equal(script["mask_of"](logits, size, exclusive), [[1, 2]])
    np.testing.assert_array_equal(script["mask_of"](logits[:2], size, exclusive), [[255, 255]])
    sure = exclusive | {"threshold": 0.8}  # of the second class: 0.88 and 0.62
    np.testing.assert_array_equal(script["mask_of"](logits[:2], size, sure), [[255, 0]])
    np.testing.assert_array_equal(
        script["mask_of"](logits, size, overlapping), [[[0, 255]], [[255, 255]], [[0, 255]]]
    )  # sigmoid of 0 and 1: 0.5, 0.73
    np.testing.assert_array_equal(script["mask_of"](logits[:1], size, overlapping), [[0, 255]])


def test_script_needs_nothing_of_ours():
    text = SCRIPT.read_text("utf-8")
    assert "import monai" not in text
    assert "from monai" not in text


@pytest.mark.parametrize(
    ("label", "name"),
    [("polyp", "polyp"), ("disc/cup", "disc_cup"), ("a:b", "a_b"), ("..\\x\n", ".._x_"), ("Gefäß <2>", "Gefäß _2_")],
)
def test_class_is_part_of_a_file_name_on_every_system(label, name):
    """A slash names a folder, and on Windows a colon hides what is written."""
    assert script["_as_name"](label) == name


def test_mask_that_fails_leaves_the_earlier_one(tmp_path, monkeypatch):
    path, mask = tmp_path / "a_mask.png", np.zeros((4, 5), np.uint8)
    script["save"](mask, path)
    earlier = path.read_bytes()

    def stop(image: Image.Image, target: Path) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        script["save"](mask + 1, path)
    assert path.read_bytes() == earlier
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
