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

import gzip

import itk
import nibabel
import numpy as np
import pytest

from monai_kd.transforms import inflated_size as module
from monai_kd.transforms.check_volume import check_grids, check_volume

VALUES = np.random.default_rng(0).normal(0, 12, (24, 20, 10)).astype(np.int16)
COMPRESSED = ["a.nii.gz", "a.nrrd", "a.nhdr", "a.mha", "a.mhd"]


def write(path, values=VALUES):
    """The file, and the one that holds its voxels."""
    if ".nii" in path.name:
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    else:
        itk.imwrite(itk.image_from_array(values), str(path), compression=True)
    apart = [file for file in path.parent.iterdir() if file != path]
    return apart[0] if apart else path


@pytest.mark.parametrize("name", COMPRESSED)
def test_wrong_bit_anywhere_is_refused(tmp_path, name):
    data = write(tmp_path / name)
    whole = data.read_bytes()
    check_volume(tmp_path / name)
    start = 1000 if data == tmp_path / name else 20
    for place in range(start, len(whole) - 20, len(whole) // 12):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        data.write_bytes(bytes(damaged))
        with pytest.raises(ValueError, match=r"compressed data are (damaged, .*|truncated); copy it once more"):
            check_volume(tmp_path / name)
    data.write_bytes(whole)
    check_volume(tmp_path / name)


@pytest.mark.parametrize("name", COMPRESSED)
def test_end_that_lacks_is_refused(tmp_path, name):
    data = write(tmp_path / name)
    data.write_bytes(data.read_bytes()[:-6])
    with pytest.raises(ValueError, match="compressed data are truncated"):
        check_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_fewer_voxels_than_the_header_says(tmp_path, name):
    write(tmp_path / "whole.nii")
    content = (tmp_path / "whole.nii").read_bytes()[:-100]
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(ValueError, match="it is truncated, it must hold 9952 bytes, but got 9852"):
        check_volume(tmp_path / name)


def test_members_of_gzip_and_zeros_behind_are_one_file(tmp_path):
    write(tmp_path / "whole.nii")
    content = (tmp_path / "whole.nii").read_bytes()
    parts = gzip.compress(content[:5000]) + gzip.compress(content[5000:])
    (tmp_path / "a.nii.gz").write_bytes(parts + bytes(512))
    check_volume(tmp_path / "a.nii.gz")
    damaged = bytearray(parts)
    damaged[-4000] ^= 0x10  # in the second
    (tmp_path / "a.nii.gz").write_bytes(bytes(damaged))
    with pytest.raises(ValueError, match="damaged"):
        check_volume(tmp_path / "a.nii.gz")


def test_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    read, original = [], module._inflated_size
    monkeypatch.setattr(module, "_inflated_size", lambda stream: read.append(1) or original(stream))
    write(tmp_path / "a.nii.gz")
    check_volume(tmp_path / "a.nii.gz")
    check_volume(tmp_path / "a.nii.gz")
    assert len(read) == 1
    write(tmp_path / "a.nii.gz", VALUES[:, :, :5])
    check_volume(tmp_path / "a.nii.gz")
    assert len(read) == 2


def test_vectors_are_refused(tmp_path):
    head = "NRRD0004\ntype: short\ndimension: 4\nsizes: 3 4 5 6\nspace: left-posterior-superior\n"
    head += "space directions: none (1,0,0) (0,1,0) (0,0,2)\nspace origin: (0,0,0)\n"
    head += "kinds: vector domain domain domain\nendian: little\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(head.encode() + bytes(2 * 3 * 4 * 5 * 6))
    with pytest.raises(ValueError, match="it must hold one real number a voxel, but got vectors of 3"):
        check_volume(tmp_path / "a.nrrd")


def test_grids_differ():
    with pytest.raises(ValueError, match=r"the image's shape, but got \(5, 4, 6\) and \(4, 5, 6\)"):
        check_grids((4, 5, 6), np.eye(4), (5, 4, 6), np.eye(4))
    with pytest.raises(ValueError, match=r"the image's affine, but got .*pass `geometry_key=\"image\"`"):
        check_grids((4, 5, 6), np.eye(4), (4, 5, 6), np.diag([1, 1, 2, 1]))
    check_grids((4, 5, 6), np.eye(4), (4, 5, 6), np.diag([1, 1, 2, 1]), same_affine=False)
