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

"""Scanning cases, listing slices and the datasets of slices, which only make sense together."""

from __future__ import annotations

import json
import os
import re
import shutil

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset
from monai.transforms import Compose, Lambdad, LoadImaged, Orientationd, RandShiftIntensityd

from monai_kd.data import kits19_cases, lits_cases, scan_cases, slice_dataset, slice_list, write_phantoms
from monai_kd.transforms import CTWindowd, LoadSlice, LoadSliced, TaskLabeld

KEYS = ["image", "label"]


FIRST, ABOVE, TUMOUR = 1, 2, 2  # the organ's lowest slice, slices without it at the head, the tumour's only slice


@pytest.fixture(scope="module", params=["lits", "kits19"])
def cases(request, tmp_path_factory):
    """
    Phantoms that no mistake in z leaves as they are: empty slices at both ends, one at the feet and two at the head,
    and a tumour on one slice in the lower half. The second case is stored the other way up.
    """
    folder = tmp_path_factory.mktemp(request.param)
    write_phantoms(folder, request.param, num_cases=3, size=32, num_slices=8, progress=False)
    found = {"lits": lits_cases, "kits19": kits19_cases}[request.param](folder)
    for case in found:
        cut_label(case["label"])
    for key in KEYS:
        turn(found[1][key])
    return found


def cut_label(path):
    """Organ and tumour on few slices, see `cases`."""
    image = load(path)
    axis = next(a for a, code in enumerate(nibabel.aff2axcodes(image.affine)) if code in "SI")
    label = np.moveaxis(np.minimum(np.asarray(image.dataobj), 1), axis, 2)
    label = label if nibabel.aff2axcodes(image.affine)[axis] == "S" else label[:, :, ::-1]
    label[14:18, 12:18] = 1
    label[14:16, 12:15, TUMOUR] = 2
    label[:, :, :FIRST] = label[:, :, -ABOVE:] = 0
    label = label if nibabel.aff2axcodes(image.affine)[axis] == "S" else label[:, :, ::-1]
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(label, 2, axis), image.affine), path)


def turn(path):
    """Store the slices of a volume from the other end."""
    image = load(path)
    codes = nibabel.aff2axcodes(image.affine)
    turned = nibabel.orientations.axcodes2ornt("".join({"S": "I", "I": "S"}.get(code, code) for code in codes))
    step = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), turned)
    nibabel.save(image.as_reoriented(step), path)


def stored_upwards(path):
    """Whether the file stores its slices from the feet to the head."""
    return "S" in nibabel.aff2axcodes(nibabel.load(path).affine)


def copy(cases, folder):
    """A case that a test may damage."""
    folder.mkdir(exist_ok=True)
    suffix = ".nii.gz" if cases[0]["image"].endswith(".gz") else ".nii"
    return {**{key: str(shutil.copy(cases[0][key], folder / f"{key}{suffix}")) for key in KEYS}, "case": "copy"}


def load(path):
    """An image in memory, so that its file can be written over."""
    image = nibabel.load(path)
    return nibabel.Nifti1Image(np.asarray(image.dataobj).copy(), image.affine)


def canonical(path):
    return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)


def transforms(*more):
    return [LoadSliced(KEYS, dtype=["float32", "uint8"]), CTWindowd("image"), TaskLabeld("label", "tumor"), *more]


@pytest.fixture
def decoded(monkeypatch):
    """The names of the volumes that were decoded, or opened, in this order."""
    read, original = [], LoadSlice._read
    monkeypatch.setattr(LoadSlice, "_read", lambda self, path: read.append(path.name) or original(self, path))
    return read


def test_scan_finds_what_nibabel_finds(cases):
    for case, scan in zip(cases, scan_cases(cases, progress=False)):
        label = canonical(case["label"])
        assert scan["num_slices"] == label.shape[2]
        assert scan["labels"] == {
            value: [k for k in range(label.shape[2]) if (label[:, :, k] == value).any()] for value in (1, 2)
        }


def test_slices_are_numbered_from_the_feet(cases):
    """Without a reader: where they were painted, whichever way the file is stored."""
    assert {stored_upwards(case["label"]) for case in cases} == {True, False}
    for scan in scan_cases(cases, progress=False):
        assert scan["labels"] == {1: list(range(FIRST, scan["num_slices"] - ABOVE)), 2: [TUMOUR]}


@pytest.mark.parametrize("geometry_key", [None, "image"])
def test_training_on_tumours_sees_the_slices_with_tumours_only(cases, geometry_key):
    options = {"keep": "foreground", "foreground": "tumor", "geometry_key": geometry_key}
    items = slice_list(cases, progress=False, **options)
    assert [item["slice"] for item in items] == [TUMOUR] * len(cases)
    dataset = slice_dataset(cases, transforms(), "none", progress=False, **options)
    assert all(item["label"].any() for item in dataset)


def test_background_starts_at_the_first_slice_without_foreground(cases):
    sizes = [canonical(case["label"]).shape[2] for case in cases]
    for step, without in ((1, [0, -2, -1]), (2, [0, -1]), (8, [0])):
        items = slice_list(cases, "foreground", "organ", background_step=step, progress=False)
        for case, size in zip(cases, sizes):
            found = [item["slice"] for item in items if item["case"] == case["case"]]
            background = [at for at in found if not FIRST <= at < size - ABOVE]
            assert background == [at % size for at in without]


@pytest.mark.parametrize(
    ("foreground", "values"), [(None, (1, 2)), ("organ", (1, 2)), ("tumor", (2,)), ([1], (1,)), ({1: 0, 2: 5}, (2,))]
)
@pytest.mark.parametrize("step", [0, 1, 3])
def test_slices_with_foreground_and_some_without(cases, foreground, values, step):
    items = slice_list(cases, "foreground", foreground, background_step=step, progress=False)
    for case in cases:
        label = canonical(case["label"])
        inside = [k for k in range(label.shape[2]) if np.isin(label[:, :, k], values).any()]
        outside = [k for k in range(label.shape[2]) if k not in inside]
        expected = sorted(inside + (outside[::step] if step else []))
        assert [item["slice"] for item in items if item["case"] == case["case"]] == expected


def test_all_slices_in_the_order_of_the_cases(cases):
    items = slice_list(cases, progress=False)
    expected = [(case["case"], k) for case in cases for k in range(canonical(case["label"]).shape[2])]
    assert [(item["case"], item["slice"]) for item in items] == expected
    assert items[0]["image"] == cases[0]["image"]
    assert len({item["stamp"] for item in items}) == len(cases)


def test_cases_without_label_give_all_their_slices(cases):
    unlabeled = [{key: case[key] for key in ("image", "case")} for case in cases]
    assert len(slice_list(unlabeled, progress=False)) == len(slice_list(cases, progress=False))
    with pytest.raises(ValueError, match='`keep` must be "all" for cases without label, but got .*' + cases[0]["case"]):
        slice_list(unlabeled, keep="foreground", progress=False)


def test_scan_is_kept_for_unchanged_files(cases, tmp_path, decoded):
    case = copy(cases, tmp_path / "data")
    first = scan_cases([case], cache_dir=tmp_path / "cache", progress=False)
    assert sorted(decoded)[0].startswith("image")
    del decoded[:]
    assert scan_cases([case], cache_dir=tmp_path / "cache", progress=False) == first
    assert scan_cases([case], check_images=False, cache_dir=tmp_path / "cache", progress=False) == first
    assert decoded == []
    assert list(json.loads((tmp_path / "cache" / "case_scans.json").read_text())) == [first[0]["stamp"]]
    os.utime(case["label"], ns=(1, 1))
    again = scan_cases([case], cache_dir=tmp_path / "cache", progress=False)
    assert again[0]["stamp"] != first[0]["stamp"]
    assert len(decoded) == 2
    (tmp_path / "cache" / "case_scans.json").write_text("{half")
    assert scan_cases([case], cache_dir=tmp_path / "cache", progress=False) == again


def test_images_are_only_opened_where_asked(cases, decoded):
    scan_cases(cases, check_images=False, progress=False)
    assert len(decoded) == 3  # labels
    scan_cases(cases, progress=False)
    assert len(decoded) == 9


def test_all_bad_cases_are_named_in_one_error(cases, tmp_path):
    bad = [dict(copy(cases, tmp_path / str(n)), case=f"bad{n}") for n in range(6)]
    bad[0]["image"] = "nowhere/image.nii.gz"
    with open(bad[1]["image"], "r+b") as file:
        file.truncate(500)
    label = load(bad[2]["label"])
    nibabel.save(label.slicer[:, 1:], bad[2]["label"])
    shifted = label.affine.copy()
    shifted[2, 3] += 5
    nibabel.save(nibabel.Nifti1Image(np.asarray(label.dataobj), shifted), bad[3]["label"])
    image = load(bad[4]["image"])
    scaled = np.clip((image.get_fdata() + 200) / 2, 0, 255).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(scaled, image.affine), bad[4]["image"])
    del bad[5]["image"]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        scan_cases([cases[0], *bad], progress=False)
    message = str(caught.value).splitlines()
    assert message[0] == "6 of 7 cases cannot be used; repair them or leave them out (`exclude`):"
    for line, pattern in zip(
        message[1:],
        [
            "bad0: nowhere/image.nii.gz is not there",
            "bad1: .*image.nii.* cannot be read",
            "bad2: the label must have the image's shape, but got .* and ",
            'bad3: the label must have the image\'s affine, but got .*geometry_key="image"',
            "bad4: the image must be in Hounsfield units, but got .*8-bit",
            'bad5: it has no "image", only',
        ],
    ):
        assert re.search(pattern, line)


def test_geometry_of_the_image_holds_where_asked(cases, tmp_path):
    case = copy(cases, tmp_path)
    label = load(case["label"])
    expected = scan_cases([case], progress=False)[0]
    nibabel.save(nibabel.Nifti1Image(np.asarray(label.dataobj), np.eye(4)), case["label"])
    with pytest.raises(ValueError, match="the label must have the image's affine"):
        scan_cases([case], progress=False)
    found = scan_cases([case], geometry_key="image", progress=False)[0]
    assert (found["num_slices"], found["labels"]) == (expected["num_slices"], expected["labels"])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_label_that_is_stored_mirrored_is_refused(cases, tmp_path, axis):
    """Its voxels lie where they belong, but another program may have mirrored them without the affine."""
    case = copy(cases, tmp_path)
    label = load(case["label"])
    affine = label.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (label.shape[axis] - 1)
    affine[:3, axis] *= -1
    mirrored = np.flip(np.asarray(label.dataobj), axis)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(mirrored), affine), case["label"])
    with pytest.raises(ValueError, match=f"{case['case']}: the label must have the image's affine"):
        scan_cases([case], progress=False)


@pytest.mark.parametrize(("cache", "kind"), [("memory", CacheDataset), ("disk", PersistentDataset), ("none", Dataset)])
def test_slices_equal_the_volumes_of_an_evaluation(cases, tmp_path, cache, kind):
    """What 2D training sees is what whole-volume evaluation cuts its slices from."""
    dataset = slice_dataset(cases, transforms(), cache, tmp_path, progress=False)
    assert type(dataset) is kind
    volumes = Compose(
        [
            LoadImaged(KEYS, ensure_channel_first=True),
            Orientationd(KEYS, "RAS", labels=None),
            CTWindowd("image"),
            TaskLabeld("label", "tumor"),
        ]
    )
    position = 0
    for case in cases:
        volume = volumes(case)
        for index in range(volume["image"].shape[-1]):
            item = dataset[position]
            for key in KEYS:
                assert torch.equal(torch.as_tensor(item[key]), volume[key][..., index].as_tensor())
            assert (item["case"], item["slice"]) == (case["case"], index)
            position += 1
    assert position == len(dataset)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_filling_decodes_each_volume_once_and_training_none(cases, tmp_path, cache, decoded):
    slice_list(cases, cache_dir=tmp_path, progress=False)  # scanned before
    del decoded[:]
    dataset = slice_dataset(cases, transforms(), cache, tmp_path, progress=False)
    assert len(decoded) == 2 * len(cases)
    for _ in DataLoader(dataset, batch_size=8, shuffle=True):
        pass
    assert len(decoded) == 2 * len(cases)


def test_disk_cache_serves_later_runs_and_forgets_old_content(cases, tmp_path, decoded):
    case = copy(cases, tmp_path / "data")
    cache = tmp_path / "cache"
    first = slice_dataset([case], transforms(), "disk", cache, progress=False)
    files = set(cache.glob("*.pt"))
    assert len(files) == len(first)
    del decoded[:]
    again = slice_dataset([case], transforms(), "disk", cache, progress=False)
    assert torch.equal(again[3]["image"], first[3]["image"])
    assert decoded == []
    assert set(cache.glob("*.pt")) == files
    other = [LoadSliced(KEYS), CTWindowd("image", "kidney"), TaskLabeld("label", "tumor")]
    windowed = slice_dataset([case], other, "disk", cache, progress=False)
    assert not torch.equal(windowed[3]["image"], first[3]["image"])
    volume = load(case["image"])
    nibabel.save(nibabel.Nifti1Image(np.asarray(volume.dataobj) - 50, volume.affine), case["image"])
    changed = slice_dataset([case], transforms(), "disk", cache, progress=False)
    assert not torch.equal(changed[3]["image"], first[3]["image"])


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_random_transforms_run_after_the_cache(cases, tmp_path, cache):
    random = RandShiftIntensityd("image", offsets=0.5, prob=1.0)
    random.set_random_state(seed=0)
    dataset = slice_dataset(cases[:1], transforms(random), cache, tmp_path, progress=False)
    plain = slice_dataset(cases[:1], transforms(), progress=False)
    shifts = [(dataset[2]["image"] - plain[2]["image"]).unique() for _ in range(3)]
    values = [float(shift.mean()) for shift in shifts]
    assert len(set(values)) == 3
    assert all(shift.max() - shift.min() < 1e-6 for shift in shifts)


def test_two_workers_see_the_same_slices(cases, tmp_path):
    dataset = slice_dataset(cases, transforms(), "disk", tmp_path, keep="foreground", progress=False)
    one = torch.cat([batch["image"] for batch in DataLoader(dataset, batch_size=4)])
    two = torch.cat([batch["image"] for batch in DataLoader(dataset, batch_size=4, num_workers=2)])
    assert torch.equal(torch.as_tensor(one), torch.as_tensor(two))


def test_processes_that_fill_together_share_the_work(cases, tmp_path, monkeypatch):
    """Both ranks fill at once: each starts at its part and skips what the other has written."""
    order = []
    original = PersistentDataset._cachecheck
    monkeypatch.setattr(
        PersistentDataset, "_cachecheck", lambda self, item: order.append(item["slice"]) or original(self, item)
    )
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda *_: 1)
    dataset = slice_dataset(cases[:1], transforms(), "disk", tmp_path, progress=False)
    half = len(dataset) // 2
    assert order == [*range(half, len(dataset)), *range(half)]
    del order[:]
    monkeypatch.setattr(torch.distributed, "get_rank", lambda *_: 0)
    slice_dataset(cases[:1], transforms(), "disk", tmp_path, progress=False)
    assert order == []


def test_progress_is_shown(cases, tmp_path, capsys):
    slice_dataset(cases, transforms(), "disk", tmp_path)
    shown = capsys.readouterr().err
    assert "Scanning cases" in shown
    assert "Caching slices" in shown


def test_bundle_config(cases, tmp_path):
    config = {
        "imports": ["$import monai_kd.data"],
        "cases": cases,
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "monai_kd.transforms.LoadSliced", "keys": KEYS, "dtype": ["float32", "uint8"]},
                {"_target_": "monai_kd.transforms.CTWindowd", "keys": "image", "window": "liver"},
                {"_target_": "monai_kd.transforms.TaskLabeld", "keys": "label", "task": "organ"},
            ],
        },
        "dataset": {
            "_target_": "monai_kd.data.slice_dataset",
            "data": "@cases",
            "transform": "@preprocessing",
            "keep": "foreground",
            "foreground": "organ",
            "cache": "disk",
            "cache_dir": str(tmp_path),
            "progress": False,
        },
    }
    dataset = ConfigParser(config).get_parsed_content("dataset")
    assert len(dataset) == len(slice_list(cases, "foreground", "organ", progress=False))
    assert all(item["label"].any() for item in dataset)


def test_guards(cases, tmp_path):
    with pytest.raises(ValueError, match="`cache` must be one of memory, disk, none, but got 'gpu'"):
        slice_dataset(cases, transforms(), "gpu")
    with pytest.raises(ValueError, match='`cache_dir` must be a folder for cache="disk", but got None'):
        slice_dataset(cases, transforms(), "disk")
    with pytest.raises(ValueError, match="`transform` must be picklable .* replace a lambda"):
        slice_dataset(cases, transforms(Lambdad("image", lambda x: x)), "disk", tmp_path, progress=False)
    with pytest.raises(ValueError, match="`background_step` must not be negative, but got -1"):
        slice_list(cases, "foreground", background_step=-1)
    with pytest.raises(ValueError, match="`cases` must hold slices to keep, but got none of 3 cases"):
        slice_list(cases, "foreground", [7], progress=False)
    with pytest.raises(ValueError, match="`geometry_key` must be \"image\" or None, but got 'label'"):
        scan_cases(cases, geometry_key="label")
    with pytest.raises(ValueError, match="`task` must be one of"):
        slice_list(cases, "foreground", "tumour", progress=False)


def rewritten(cases, tmp_path, change):
    """The first case with other values in its label."""
    image = nibabel.load(cases[0]["label"])
    values = change(np.asarray(image.dataobj).astype(np.float32))
    nibabel.save(nibabel.Nifti1Image(values, image.affine), tmp_path / "label.nii.gz")
    return [{**cases[0], "label": str(tmp_path / "label.nii.gz")}]


def test_label_that_the_task_does_not_know_is_no_background(cases, tmp_path):
    odd = rewritten(cases, tmp_path, lambda values: np.where(values == 1, 127, values))
    with pytest.raises(ValueError, match=r"must know all labels of the cases, but got .*127.* beside \[0, 1, 2\]"):
        slice_list(odd, keep="foreground", foreground="organ")


def test_label_of_fractions_is_refused(cases, tmp_path):
    odd = rewritten(cases, tmp_path, lambda values: values * 0.8)
    with pytest.raises(ValueError, match="the label must hold whole numbers, but got 0.8"):
        slice_list(odd)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_label_that_is_not_finite_is_refused(cases, tmp_path, value):
    odd = rewritten(cases, tmp_path, lambda values: np.where(values == 1, value, values))
    with pytest.raises(ValueError, match=f"the label must hold whole numbers, but got {value:g}"):
        slice_list(odd, progress=False)


@pytest.mark.parametrize("check_images", [True, False])
def test_affine_of_no_space_is_named_with_the_case(cases, tmp_path, check_images):
    image = load(cases[0]["image"])
    flat = image.affine.copy()
    flat[:, 2] = flat[:, 1]
    nibabel.save(nibabel.Nifti1Image(image.dataobj, flat), tmp_path / "image.nii.gz")
    odd = [{"image": str(tmp_path / "image.nii.gz"), "case": "flat"}]
    with pytest.raises(ValueError, match=r"flat: .*the affine must be finite and invertible, but got \[\["):
        scan_cases(odd, check_images=check_images, progress=False)
