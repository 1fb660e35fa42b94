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

import itertools
import pickle

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import pickle_hashing
from monai.transforms import Compose, LoadImage, Orientation

from monai_kd.data import ct_phantom, write_dicom_series
from monai_kd.transforms import CTWindow, LoadSlice, LoadSliced
from monai_kd.transforms.load_slice import Volume

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("itk")
AXES = ["".join(code) for code in itertools.product("LR", "AP", "IS")] + ["ILP", "IPL", "SRA", "PIR", "ASL"]


def volume(shape=(4, 5, 6)):
    return np.random.RandomState(0).randint(-1000, 1000, shape).astype(np.int16)


def save(array, path, axes="LPS", spacing=(0.7, 0.8, 3.0)):
    """Writes an array that is in RAS, stored along `axes`."""
    image = nibabel.Nifti1Image(array, np.diag([*spacing, 1.0]) + np.eye(4, k=3) * 7)
    stored = nibabel.orientations.axcodes2ornt(tuple(axes))
    image = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), stored))
    nibabel.save(image, path)
    return str(path)


def whole(path, reader=None):
    return Compose([LoadImage(reader, ensure_channel_first=True), Orientation("RAS", labels=None)])(path)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd"])
def test_slices_are_those_of_nibabel(tmp_path, suffix):
    array = volume()
    path = save(array, tmp_path / "ct.nii")
    if suffix != "nii":
        path = convert(path, tmp_path / f"ct.{suffix}")
    loader = LoadSlice()
    for index in range(array.shape[2]):
        image = loader(path, index)
        assert isinstance(image, MetaTensor)
        assert image.shape == (1, 4, 5)
        np.testing.assert_array_equal(image.numpy()[0], array[:, :, index])
        assert (image.meta["filename_or_obj"], image.meta["slice"]) == (path, index)
        assert image.meta["volume_range"][1] == pytest.approx(array.max(), abs=150)  # .nii: of some slices


def convert(path, target):
    import itk

    if str(target).endswith(".nrrd"):
        itk.imwrite(itk.imread(path), str(target))
    else:
        nibabel.save(nibabel.load(path), target)
    return str(target)


@pytest.mark.parametrize("axes", AXES)
def test_stored_orientation_makes_no_difference(tmp_path, axes):
    array = volume((3, 4, 5))
    for name in ("ct.nii", "ct.nii.gz"):
        path = save(array, tmp_path / name, axes)
        expected = whole(path)
        for index in (0, 1, 4):
            image = LoadSlice()(path, index)
            np.testing.assert_array_equal(image.numpy()[0], array[:, :, index])
            assert torch.equal(image.as_tensor(), expected[..., index].as_tensor())
            torch.testing.assert_close(image.affine[:2, :2], expected.affine[:2, :2])
            torch.testing.assert_close(image.affine[:2, 2], expected.affine[:2, 3])


@pytest.mark.parametrize("axes", ["LPS", "LPI", "ILP", "SPL"])
def test_place_of_a_slice_is_its_own(tmp_path, axes):
    """Of a volume whose slices lie beside each other, as of a tilted gantry, whichever way they are stored."""
    tilted = np.array([[0.7, 0, 0.2, 7.0], [0, 0.8, 0.5, -3.0], [0, 0, 3.0, 2.0], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(volume(), tilted)
    stored = nibabel.orientations.axcodes2ornt(tuple(axes))
    step = nibabel.orientations.ornt_transform(nibabel.io_orientation(tilted), stored)
    for name in ("ct.nii", "ct.nii.gz"):
        nibabel.save(image.as_reoriented(step), tmp_path / name)
        for index in (0, 1, 5):
            affine = np.asarray(LoadSlice()(tmp_path / name, index).affine)
            np.testing.assert_allclose(affine[:2, 2], (tilted @ [0, 0, index, 1])[:2], atol=1e-4)


def test_kits19_axes_give_axial_slices(tmp_path):
    """KiTS19: 5 slices of 4 x 3, the first axis from head to feet, as its published affine says."""
    stored = volume((5, 4, 3))
    affine = np.array([[0, 0, -0.9, 0], [0, -0.9, 0, 0], [-0.5, 0, 0, 0], [0, 0, 0, 1]], dtype=float)
    nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / "imaging.nii.gz")
    image = LoadSlice()(tmp_path / "imaging.nii.gz", 0)
    np.testing.assert_array_equal(image.numpy()[0], stored[-1, ::-1, ::-1].T)


def test_scaled_and_big_endian_files(tmp_path):
    stored = np.arange(60, dtype=">i2").reshape(3, 4, 5)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_data_dtype(">i2")
    image = nibabel.Nifti1Image(stored, np.eye(4), image.header.as_byteswapped(">"))
    image.header.set_slope_inter(2.0, -1024.0)
    image.to_filename(tmp_path / "ct.nii")
    expected = nibabel.load(tmp_path / "ct.nii").get_fdata()
    np.testing.assert_allclose(LoadSlice()(tmp_path / "ct.nii", 3).numpy()[0], expected[:, :, 3], atol=1e-3)
    nibabel.save(nibabel.load(tmp_path / "ct.nii"), tmp_path / "ct.nii.gz")
    np.testing.assert_allclose(LoadSlice()(tmp_path / "ct.nii.gz", 3).numpy()[0], expected[:, :, 3], atol=1e-3)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    phantom = ct_phantom(seed=3, size=32, num_slices=6)
    folder = tmp_path_factory.mktemp("dicom")
    write_dicom_series(folder, phantom.image, phantom.affine)
    nifti = tmp_path_factory.mktemp("nifti") / "ct.nii.gz"
    nibabel.save(nibabel.Nifti1Image(phantom.image, phantom.affine), nifti)
    return folder, nifti, phantom


@pytest.mark.parametrize("reader", [None, "ITKReader", "PydicomReader"])
def test_dicom_series_equals_nifti_and_pydicom_arithmetic(series, reader):
    folder, nifti, phantom = series
    assert np.abs(whole(folder, reader).numpy() - whole(nifti).numpy()).max() <= 1e-3
    torch.testing.assert_close(whole(folder, reader).affine, whole(nifti).affine, atol=1e-4, rtol=0)
    loader = LoadSlice(reader)
    for index in range(6):
        dataset = pydicom.dcmread(folder / f"slice_{index:04d}.dcm")
        hounsfield = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        image = loader(folder, index)
        assert np.abs(image.numpy()[0] - hounsfield[::-1, ::-1].T).max() <= 1e-3  # DICOM rows run to the back
        assert np.abs(image.numpy()[0] - phantom.image[::-1, ::-1, index]).max() <= 1e-3


def test_readers_agree_on_ircad(shared_data):
    folder = shared_data / "ct-3dircadb17" / "dicom_84_95"
    nifti = LoadSlice(num_volumes=1)
    itk_reader, pydicom_reader = LoadSlice("ITKReader"), LoadSlice("PydicomReader")
    for index in (0, 11):
        expected = nifti(shared_data / "ct-3dircadb17" / "images" / "ircad17.nii.gz", 84 + index)
        for loader in (itk_reader, pydicom_reader):
            image = loader(folder, index)
            assert (image - expected).abs().max() <= 1e-3
            torch.testing.assert_close(image.affine, expected.affine, atol=1e-3, rtol=0)


def test_readers_agree_on_dcmqi(shared_data):
    folder = shared_data / "ct-dcmqi-3slice" / "images"
    one, other = whole(folder, "ITKReader"), whole(folder, "PydicomReader")
    assert (one - other).abs().max() <= 1e-3
    torch.testing.assert_close(one.affine, other.affine, atol=1e-3, rtol=0)
    stored = pydicom.dcmread(folder / "01.dcm")
    hounsfield = stored.pixel_array * float(stored.RescaleSlope) + float(stored.RescaleIntercept)
    found = [LoadSlice()(folder, index).numpy()[0] for index in range(3)]
    assert any(np.abs(image - hounsfield[::-1, ::-1].T).max() <= 1e-3 for image in found)


def test_volume_is_decoded_once_and_at_most_so_many_are_kept(tmp_path, monkeypatch):
    paths = [save(volume(), tmp_path / f"{name}.nii.gz") for name in "abc"]
    loader, read = LoadSlice(num_volumes=2), []
    decode = LoadSlice._decode
    monkeypatch.setattr(LoadSlice, "_decode", lambda self, path: read.append(path.name) or decode(self, path))
    for path in paths:
        for index in range(6):
            loader(path, index)
    assert read == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    loader(paths[1], 0)
    assert len(read) == 3
    loader(paths[0], 0)
    assert len(read) == 4
    assert len(loader._volumes) == 2


def test_uncompressed_nifti_is_never_read_whole(tmp_path):
    loader = LoadSlice()
    loader(save(volume(), tmp_path / "ct.nii"), 2)
    (kept,) = loader._volumes.values()
    assert not isinstance(kept.array, np.ndarray)


def test_changed_file_is_read_again(tmp_path):
    loader = LoadSlice()
    path = save(volume(), tmp_path / "ct.nii.gz")
    first = loader(path, 0)
    save(volume((4, 5, 8)) + 1, tmp_path / "ct.nii.gz")
    assert not torch.equal(loader(path, 0), first)


def test_slice_can_be_written_to_without_harm(tmp_path):
    path = save(volume(), tmp_path / "ct.nii.gz")
    loader = LoadSlice()
    before = loader(path, 1).clone()
    loader(path, 1).zero_()
    assert torch.equal(loader(path, 1), before)


def test_pickle_is_small_and_does_not_change_by_reading(tmp_path):
    loader = LoadSliced("image")
    before = pickle_hashing([loader])
    path = save(volume((32, 32, 32)), tmp_path / "ct.nii.gz")
    image = loader({"image": path, "slice": 1})["image"]
    assert pickle_hashing([loader]) == before
    assert len(pickle.dumps(loader)) < 3000
    assert torch.equal(pickle.loads(pickle.dumps(loader))({"image": path, "slice": 1})["image"], image)


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_workers_give_what_the_main_process_gives(series, kind):
    path = str(series[1] if kind == "nifti" else series[0])
    items = [{"image": path, "slice": index} for index in range(6)]
    dataset = Dataset(items, LoadSliced("image"))
    expected = torch.stack([item["image"] for item in dataset])  # decoded here too, before the workers start
    batches = list(DataLoader(dataset, batch_size=3, num_workers=2))
    assert torch.equal(torch.cat([batch["image"] for batch in batches]), expected)
    assert torch.cat([batch["slice"] for batch in batches]).tolist() == [0, 1, 2, 3, 4, 5]


def test_dictionary_version_has_a_data_type_for_each_key(tmp_path):
    image = save(volume(), tmp_path / "ct.nii.gz")
    label = save((volume() > 0).astype(np.uint8), tmp_path / "label.nii.gz")
    load = LoadSliced(("image", "label"), dtype=["float32", "uint8"])
    item = load({"image": image, "label": label, "slice": 3, "case": "a"})
    assert (item["image"].dtype, item["label"].dtype) == (torch.float32, torch.uint8)
    assert torch.equal(item["label"], (item["image"] > 0).to(torch.uint8))
    assert (item["slice"], item["case"]) == (3, "a")


def test_geometry_of_the_image_holds_for_a_label_without_one(tmp_path):
    """LiTS: some segmentations have lost their affine."""
    image = save(volume(), tmp_path / "volume.nii", "LPS")
    header_less = nibabel.Nifti1Image(np.asarray(nibabel.load(image).dataobj), np.eye(4))
    nibabel.save(header_less, tmp_path / "segmentation.nii")
    item = {"image": image, "label": str(tmp_path / "segmentation.nii"), "slice": 2}
    with pytest.raises(ValueError, match=r"the image's affine, .* pass `geometry_key=\"image\"` \(.*volume.nii, .*seg"):
        LoadSliced(("image", "label"))(item)
    of_image = LoadSliced(("image", "label"), geometry_key="image")(item)
    assert torch.equal(of_image["image"], of_image["label"])


def test_bundle_config(tmp_path):
    path = save(volume(), tmp_path / "ct.nii.gz")
    config = {"_target_": "monai_kd.transforms.LoadSliced", "keys": ["image"], "dtype": "float32"}
    assert ConfigParser({"t": config}).get_parsed_content("t")({"image": path, "slice": 0})["image"].shape == (1, 4, 5)


def test_guards(tmp_path):
    path = save(volume(), tmp_path / "ct.nii.gz")
    with pytest.raises(ValueError, match="`index` must be a slice of .*ct.nii.gz, 0 to 5, but got 6"):
        LoadSlice()(path, 6)
    with pytest.raises(ValueError, match="0 to 5, but got -1"):
        LoadSlice()(path, -1)
    with pytest.raises(FileNotFoundError, match="but got .*none.nii, which is not there"):
        LoadSlice()(tmp_path / "none.nii", 0)
    (tmp_path / "broken.nii.gz").write_bytes((tmp_path / "ct.nii.gz").read_bytes()[:-60])
    with pytest.raises(RuntimeError, match="broken.nii.gz cannot be read"):
        LoadSlice()(tmp_path / "broken.nii.gz", 0)
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3, 2)), np.eye(4)), tmp_path / "two.nii.gz")
    with pytest.raises(RuntimeError, match=r"two.nii.gz cannot be read.*must have three axes, .* shape \(3, 3, 3, 2\)"):
        LoadSlice()(tmp_path / "two.nii.gz", 0)
    with pytest.raises(ValueError, match="`num_volumes` must be at least 1, but got 0"):
        LoadSlice(num_volumes=0)
    with pytest.raises(ValueError, match="`geometry_key` must be one of .*image.*, but got 'ct'"):
        LoadSliced("image", geometry_key="ct")


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize(("kind", "named"), [([(c, "u1") for c in "RGB"], "colours"), (np.complex64, "complex64")])
def test_colours_are_no_volume(tmp_path, suffix, kind, named):
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), kind), np.eye(4)), tmp_path / f"ct.{suffix}")
    with pytest.raises(RuntimeError, match=f"ValueError: it must hold one real number a voxel, but got {named}"):
        LoadSlice()(tmp_path / f"ct.{suffix}", 0)


@pytest.mark.parametrize("column", [[0, 0, 0, 0], [1, 0, 0, 0], [np.nan, 0, 1, 0]])
def test_affine_of_no_space_is_refused(column):
    affine = np.eye(4)
    affine[:, 2] = column
    with pytest.raises(ValueError, match="the affine must be finite and invertible, but got .*; repair the header"):
        assert Volume(None, affine, (0, 0)).axial


def test_values_between_those_sampled_are_seen_with_their_slice(tmp_path):
    """Of an uncompressed file the range of the volume is that of five slices and the one that is loaded."""
    array = volume((4, 5, 12)).astype(np.int32)
    array[0, 0, 1] = 70000
    path = save(array, tmp_path / "ct.nii")
    assert CTWindow()(LoadSlice()(path, 2)).max() <= 1
    with pytest.raises(ValueError, match="slice 1` must be in Hounsfield units, but got .* to 70000, beyond"):
        CTWindow()(LoadSlice()(path, 1))


def test_truncated_uncompressed_file_is_refused(tmp_path):
    path = save(volume(), tmp_path / "ct.nii")
    content = (tmp_path / "ct.nii").read_bytes()
    (tmp_path / "ct.nii").write_bytes(content[:-8])
    with pytest.raises(RuntimeError, match="ct.nii cannot be read"):
        LoadSlice()(path, 0)


def test_slice_of_air_and_padding_in_a_right_volume_passes(tmp_path):
    array = volume((16, 16, 9))
    array[..., 8] = -1000
    array[:8, :, 8] = -2000
    assert CTWindow()(LoadSlice()(save(array, tmp_path / "ct.nii"), 8)).max() <= 1
