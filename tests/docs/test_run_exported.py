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

from monai_kd.bundle.export import export
from monai_kd.bundle.export_formats import why_not
from monai_kd.data import endoscopy_phantom, write_endoscopy_phantoms
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
    with av.open(str(images / "film.mp4"), "w") as video:
        stream = video.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 48
        stream.pix_fmt = "yuv420p"
        for number in range(3):
            pixels = np.ascontiguousarray(endoscopy_phantom(seed=number, size=48).image)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        video.mux(stream.encode())
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
    assert "film_000002_mask.png" in expected
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
            list(script["frames"](path))


@pytest.mark.slow
def test_what_is_wrong_is_one_line(segmented, tmp_path):
    model = str(segmented[0] / "models" / "model.ts")
    for words, message, without in (
        ((str(tmp_path / "no.ts"), str(tmp_path)), "error: `model` must be a file, but got", ()),
        ((model, str(tmp_path), "--output", str(tmp_path)), "error: torch is needed for this file", ("torch",)),
    ):
        done = run_script(*words, without=without)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def block(**entries) -> str:
    given = {"reader": "LoadRGB", "in_channels": 3, "input_shape": [3, 8, 8], "channels": ["red", "green", "blue"]}
    given |= dict.fromkeys(("other", "crop", "patch_size", "spacing", "orientation"))
    return json.dumps(given | entries)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "must hold metadata, but got model.onnx without; write it by `python -m monai_kd export`"),
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
