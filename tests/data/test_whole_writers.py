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

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.data.image_writer import NibabelWriter, PILWriter
from monai.transforms import SaveImage
from PIL import Image

from monai_kd.data import WholeNiftiWriter, WholePictureWriter
from monai_kd.data.write_aside import PREFIX

AFFINE = np.diag([0.8, 0.7, 2.5, 1.0])
PIXELS = np.random.RandomState(0).randint(0, 3, (1, 6, 5, 4))


class Killed(BaseException):
    """Ends a run as a signal does."""


def saved(folder: Path, suffix: str, writer: type) -> Path:
    image = MetaTensor(torch.as_tensor(PIXELS if suffix != ".png" else PIXELS[..., 0]), affine=torch.as_tensor(AFFINE))
    image.meta["filename_or_obj"] = "a"
    save = SaveImage(folder, output_ext=suffix, output_postfix="seg", separate_folder=False, writer=writer)
    save(image)
    return folder / f"a_seg{suffix}"


@pytest.mark.parametrize(
    ("suffix", "own", "whole"),
    [
        (".nii.gz", NibabelWriter, WholeNiftiWriter),
        (".nii", NibabelWriter, "monai_kd.data.WholeNiftiWriter"),
        (".png", PILWriter, WholePictureWriter),
    ],
)
def test_file_is_that_of_monai(tmp_path, caplog, suffix, own, whole):
    expected, found = (saved(tmp_path / name, suffix, writer) for name, writer in (("a", own), ("b", whole)))
    if suffix == ".png":
        np.testing.assert_array_equal(Image.open(found), Image.open(expected))
    else:
        np.testing.assert_array_equal(nibabel.load(found).dataobj, nibabel.load(expected).dataobj)
        np.testing.assert_array_equal(nibabel.load(found).affine, nibabel.load(expected).affine)
    assert [file.name for file in found.parent.iterdir()] == [found.name]


@pytest.mark.parametrize(("writer", "left"), [(NibabelWriter, ["a_seg.nii"]), (WholeNiftiWriter, [])])
def test_killed_while_it_writes_it_leaves_a_whole_mask_or_none(tmp_path, monkeypatch, writer, left):
    """MONAI's leaves half a file; when that fails, our class can go."""

    def cut(image, target):
        Path(target).write_bytes(image.to_bytes()[:400])
        raise Killed

    monkeypatch.setattr(nibabel, "save", cut)
    with pytest.raises(Killed):
        saved(tmp_path, ".nii", writer)
    assert [file.name for file in tmp_path.iterdir()] == left


def test_what_a_killed_process_left_is_removed(tmp_path):
    left = tmp_path / f"{PREFIX}0123"
    left.mkdir()
    (left / "a_seg.nii").write_bytes(b"half")
    os.utime(left, (0, 0))
    saved(tmp_path, ".nii", WholeNiftiWriter)
    assert [file.name for file in tmp_path.iterdir()] == ["a_seg.nii"]
