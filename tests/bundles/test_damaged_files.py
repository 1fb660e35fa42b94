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

"""Inference over folders in which some files cannot be read."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from monai_kd.bundle.prepare_console import root_cause
from monai_kd.data import ct_phantom, write_endoscopy_phantoms
from tests.bundles.journey import BUNDLES, run_configs

CT = [name for name in BUNDLES if "_ct_" in name]


def conv(folder: Path, channels: tuple[int, int]) -> dict:
    """A network of one layer in the place of the student, and its weights."""
    torch.save({"model": torch.nn.Conv2d(*channels, 1).state_dict()}, folder / "model.pt")
    network = {"_target_": "torch.nn.Conv2d", "kernel_size": 1}
    network |= dict(zip(("in_channels", "out_channels"), channels))
    return {"network_def": network, "ckpt_path": str(folder / "model.pt")}


def said_by(name: str, data: Path, output: Path, options: dict) -> str:
    with pytest.raises(RuntimeError) as caught:
        run_configs(BUNDLES[name], ["inference.json"], dataset_dir=str(data), output_dir=str(output), **options)
    return root_cause(caught.value) or str(caught.value)


@pytest.mark.parametrize("name", CT)
def test_volumes(name, tmp_path):
    phantom = ct_phantom(seed=3, size=48, num_slices=4)
    data = tmp_path / "data"
    data.mkdir()
    for stem in ("a", "b_damaged", "c_sform", "d_cut"):
        nibabel.save(nibabel.Nifti1Image(phantom.image.astype(np.int16), phantom.affine), data / f"{stem}.nii.gz")
    damaged = bytearray((data / "b_damaged.nii.gz").read_bytes())
    damaged[len(damaged) // 2] ^= 0x10
    (data / "b_damaged.nii.gz").write_bytes(bytes(damaged))
    (data / "d_cut.nii.gz").write_bytes(bytes(damaged)[:900])
    image = nibabel.load(data / "a.nii.gz")
    image.set_sform(phantom.affine, 1)
    image.header["pixdim"][1:4] = 1
    nibabel.save(image, data / "c_sform.nii.gz")
    options = conv(tmp_path, (1, 5 if name.startswith("head") else 2))
    output = data / "masks"  # below the input
    said = said_by(name, data, output, options)
    assert "2 files or frames could not be read, all others are done" in said
    assert all(file in said for file in ("b_damaged.nii.gz", "d_cut.nii.gz"))
    masks = {file.name: nibabel.load(file) for file in output.iterdir()}
    assert masks.keys() == {"a_seg.nii.gz", "c_sform_seg.nii.gz"}
    for mask in masks.values():
        assert mask.shape == phantom.image.shape
        np.testing.assert_allclose(mask.affine, phantom.affine, atol=1e-4)
    said = said_by(name, data, tmp_path / "strict", options | {"strict": True})
    assert "`b_damaged` cannot be read" in said
    assert [file.name for file in (tmp_path / "strict").iterdir()] == ["a_seg.nii.gz"]


@pytest.mark.parametrize("name", [name for name in BUNDLES if "_ct_" not in name])
def test_frames(name, tmp_path):
    data = write_endoscopy_phantoms(tmp_path / "data", "folder", num_frames=3, size=48, progress=False)
    cut = data / "images" / "2.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    options = conv(tmp_path, (3, 2 if name.endswith("plckd") else 1))
    said = said_by(name, data, data / "out", options | {"image_size": [32, 32]})
    assert "1 files or frames could not be read, all others are done" in said
    assert "images/2.jpg" in said
    masks = {file.name for file in (data / "out").glob("*_mask.png")}
    assert masks == {"images_1_mask.png", "images_3_mask.png"}  # and none of the folder masks
