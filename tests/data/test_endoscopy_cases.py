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
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_kd.data import endoscopy_cases, hold_out, k_fold, write_endoscopy_phantoms
from monai_kd.transforms import LoadMask, LoadRGB

PAIRS = {  # image and mask folder, and the names of a pair in them, as published
    "PraNet, train": ("TrainDataset/image", "TrainDataset/mask", "7.png", "7.png"),
    "PraNet, later": ("TrainDataset/images", "TrainDataset/masks", "7.png", "7.png"),
    "PraNet, mixed": ("TrainDataset/image", "TrainDataset/masks", "7.png", "7.png"),
    "PraNet, test": (
        "TestDataset/TestDataset/CVC-300/images",
        "TestDataset/TestDataset/CVC-300/masks",
        "7.png",
        "7.png",
    ),
    "Kvasir-SEG": ("Kvasir-SEG/images", "Kvasir-SEG/masks", "cju7.jpg", "cju7.jpg"),
    "CVC-ClinicDB": ("CVC-ClinicDB/Original", "CVC-ClinicDB/Ground Truth", "7.tif", "7.tif"),
    "CVC-ClinicDB, Kaggle": ("CVC-ClinicDB/PNG/Original", "CVC-ClinicDB/PNG/Ground Truth", "7.png", "7.png"),
    "EndoScene": ("CVC-EndoSceneStill/CVC-300/bbdd", "CVC-EndoSceneStill/CVC-300/gtpolyp", "7.bmp", "7.bmp"),
    "ETIS": ("ETIS-LaribPolypDB/ETIS-LaribPolypDB", "ETIS-LaribPolypDB/Ground Truth", "7.tif", "p7.tif"),
    "PolypGen": ("data_C1/images_C1", "data_C1/masks_C1", "7_.jpg", "7_mask.jpg"),
    "PolypGen, video": ("positive/seq12/images_seq12", "positive/seq12/masks_seq12", "7.jpg", "7_mask.jpg"),
    "PolypGen, mask in TIFF": ("data_C6/images_C6", "data_C6/masks_C6", "7.jpg", "7_mask.tif"),
    "EndoCV2022": ("PolypGen2.0/seq21/images", "PolypGen2.0/seq21/masks", "seq6_C6_99.jpg", "seq6_C6_99_mask.jpg"),
    "ISIC": ("skin/images", "skin/masks", "ISIC_7.jpg", "ISIC_7_segmentation.png"),
}


def picture(path, height=8, width=10, value=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(path)


def mask(path, height=8, width=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((height, width), np.uint8)
    array[2:4, 2:6] = 255
    Image.fromarray(array).save(path, quality=100)


def pair(root, stem="1", images="images", masks="masks"):
    picture(root / images / f"{stem}.png")
    mask(root / masks / f"{stem}.png")


@pytest.mark.parametrize("form", PAIRS)
def test_layouts_as_published(tmp_path, form):
    images, masks, image, label = PAIRS[form]
    picture(tmp_path / images / image)
    mask(tmp_path / masks / label)
    (tmp_path / images / "Thumbs.db").touch()
    (tmp_path / masks / "7_boxes.txt").touch()
    (tmp_path / "kavsir_bboxes.json").write_text("{}")
    (tmp_path / "bbox_image_C1").mkdir()
    dataset = {"CVC-ClinicDB, Kaggle": "CVC-ClinicDB"}.get(form, Path(masks).parent.name)
    assert endoscopy_cases(tmp_path) == [
        {
            "image": str(tmp_path / images / image),
            "label": str(tmp_path / masks / label),
            "case": f"{dataset}_{Path(image).stem}",
            "dataset": dataset,
        }
    ]
    assert len(endoscopy_cases(tmp_path / Path(masks).parent)) == 1  # the folder itself will do


def test_kaggle_form_is_read_once(tmp_path):
    for kind, suffix in (("PNG", ".png"), ("TIF", ".tif")):
        picture(tmp_path / kind / "Original" / f"3{suffix}")
        mask(tmp_path / kind / "Ground Truth" / f"3{suffix}")
    (tmp_path / "metadata.csv").write_text("frame_id,sequence_id,png_image_path\n3,5,PNG/Original/3.png\n")
    case, *more = endoscopy_cases(tmp_path, sequences=tmp_path / "metadata.csv")
    assert not more
    assert case["image"].endswith("3.png")
    assert case["sequence"] == "5"


@pytest.mark.parametrize("layout", ["pranet", "kvasir", "clinicdb", "folder"])
def test_generated_layouts(tmp_path, layout):
    write_endoscopy_phantoms(tmp_path / "set", layout, num_frames=12, size=48, progress=False)
    cases = endoscopy_cases(tmp_path / "set")
    assert len(cases) == len({case["case"] for case in cases}) == 12
    if layout == "pranet":
        tests = endoscopy_cases(tmp_path / "set" / "TestDataset")
        assert [case["case"] for case in tests] == [
            f"{name}_1" for name in ("CVC-300", "CVC-ClinicDB", "CVC-ColonDB", "ETIS-LaribPolypDB", "Kvasir")
        ]
        train = endoscopy_cases(tmp_path, datasets=["TrainDataset"])
        assert [case["case"] for case in train] == [f"TrainDataset_{number}" for number in range(1, 8)]
    else:
        assert {case["dataset"] for case in cases} == {"set"}


def test_frames_are_counted_as_people_do(tmp_path):
    for stem in ("10", "9", "1", "b2", "b10"):
        pair(tmp_path, stem)
    assert [Path(case["image"]).stem for case in endoscopy_cases(tmp_path)] == ["1", "9", "10", "b2", "b10"]


def test_names(tmp_path):
    for stem in ("1", "2", "v1.5", "4"):
        pair(tmp_path / "set", stem)
    file = tmp_path / "names.txt"
    file.write_bytes(b"\xef\xbb\xbf2\r\n\r\n v1.5 \r\nimages/4.png\n")
    expected = ["set_2", "set_4", "set_v1.5"]
    assert [case["case"] for case in endoscopy_cases(tmp_path, names=file)] == expected
    assert [case["case"] for case in endoscopy_cases(tmp_path, names=["2", "v1.5", "4.jpg"])] == expected
    assert [case["case"] for case in endoscopy_cases(tmp_path, names=str(file), exclude=["set_4"])] == expected[::2]
    (tmp_path / "set" / "masks" / "1.png").unlink()  # not asked for, no matter
    assert len(endoscopy_cases(tmp_path, names=file)) == 3
    with pytest.raises(ValueError, match="2 images in ") as caught:
        endoscopy_cases(tmp_path, names=["1", "2", "77"])
    assert "set_1: " in str(caught.value)
    assert "77: `names` has it, but there is no such image" in str(caught.value)
    with pytest.raises(ValueError, match="`names` must hold at least one name, but got none"):
        endoscopy_cases(tmp_path, names=[" "])
    with pytest.raises(FileNotFoundError, match="`names` must be a list or a text file, but got .*nowhere.txt"):
        endoscopy_cases(tmp_path, names=tmp_path / "nowhere.txt")


def test_all_problems_in_one_error(tmp_path):
    folder = tmp_path / "set"
    for stem in ("good", "wide", "cut", "grey", "text", "twice"):
        pair(folder, stem)
    picture(folder / "images" / "lonely.png")
    mask(folder / "masks" / "widow.png")
    mask(folder / "masks" / "wide.png", width=9)
    picture(folder / "images" / "twice.jpg")
    picture(folder / "masks" / "grey.png", value=90)
    (folder / "masks" / "text.png").write_text("no picture")
    noise = np.random.RandomState(0).randint(0, 256, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "images" / "cut.png")
    (folder / "images" / "cut.png").write_bytes((folder / "images" / "cut.png").read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"7 images in .* cannot be used; repair them or leave them out") as caught:
        endoscopy_cases(tmp_path)
    reasons = dict(line.strip().split(": ", 1) for line in str(caught.value).splitlines()[1:])
    expected = {
        "set_lonely": "lonely.png has no mask",
        "set_widow": "widow.png has no image",
        "set_wide": "must have one size, but got 10 x 8 and 9 x 8",
        "set_twice": "must be one image and one mask, but got",
        "set_grey": "must be a mask of 0 and 255",
        "set_text": "must be a picture that Pillow reads",
        "set_cut": "cut.png cannot be read",
    }
    assert reasons.keys() == expected.keys()
    assert all(text in reasons[case] for case, text in expected.items())
    assert [case["case"] for case in endoscopy_cases(tmp_path, exclude=list(expected))] == ["set_good"]
    assert len(endoscopy_cases(tmp_path, exclude=["set_lonely", "set_widow", "set_twice"], check=False)) == 5


def test_size_is_compared_as_seen(tmp_path):
    pair(tmp_path, "1")
    turned = Image.fromarray(np.full((10, 8, 3), 90, np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "images" / "1.png", exif=exif)
    assert len(endoscopy_cases(tmp_path)) == 1


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("turned", ["images", "masks", "both"])
@pytest.mark.parametrize("width", [8, 10])
def test_orientation_of_one_of_both(tmp_path, orientation, turned, width):
    pair(tmp_path / "set", "1")
    for kind in ("images", "masks"):
        path = tmp_path / "set" / kind / "1.png"
        stored = Image.open(path).resize((width, 8), Image.Resampling.NEAREST)
        exif = stored.getexif()
        exif[0x0112] = orientation if turned in (kind, "both") else 1
        stored.save(path, exif=exif)
    if turned == "both":
        assert len(endoscopy_cases(tmp_path)) == 1
        return
    message = "must have one size" if width == 10 and orientation > 4 else "must have one EXIF orientation, but got"
    with pytest.raises(ValueError, match=rf"set_1: image and mask {message}.*images.1\.png, .*masks.1\.png"):
        endoscopy_cases(tmp_path)


def test_sequences(tmp_path):
    tmp_path = tmp_path / "CVC-ClinicDB"
    for frame in (1, 25, 26, 612, 613):
        pair(tmp_path, str(frame))
    cases = endoscopy_cases(tmp_path, sequences="clinicdb")
    assert [case["sequence"] for case in cases] == ["1", "1", "2", "29", f"{tmp_path.name}_613"]  # no such frame there
    (tmp_path / "videos.csv").write_text("frame,sequence\n1,a\n25,a\n26,b\n612,b\n613,c\n")
    cases = endoscopy_cases(tmp_path, sequences=tmp_path / "videos.csv")
    split = hold_out(cases, fraction=0.3, group_key="sequence")
    assert {case["sequence"] for case in split["train"]}.isdisjoint(case["sequence"] for case in split["validation"])
    assert len(split["train"]) + len(split["validation"]) == 5
    (tmp_path / "videos.csv").write_text("name,sequence\n1,a\n")
    with pytest.raises(
        ValueError, match=r"must have the columns \('frame', 'sequence'\), but got \['name', 'sequence'\]"
    ):
        endoscopy_cases(tmp_path, sequences=tmp_path / "videos.csv")
    (tmp_path / "videos.csv").write_text("frame,sequence\n0001,a\n")
    with pytest.raises(ValueError, match="`sequences` must name the frames, but got .*videos.csv without 1, 25, 26"):
        endoscopy_cases(tmp_path, sequences=tmp_path / "videos.csv")
    with pytest.raises(FileNotFoundError, match='a CSV file, "clinicdb" or "folder", but got nowhere.csv'):
        endoscopy_cases(tmp_path, sequences="nowhere.csv")


def test_clinicdb_table_is_for_its_frames_alone(tmp_path):
    names = ("CVC-ClinicDB", "CVC-612", "TrainDataset", "ETIS-LaribPolypDB", "CVC-300")
    for name in names:
        pair(tmp_path / name, "26")
    found = {case["dataset"]: case["sequence"] for case in endoscopy_cases(tmp_path, sequences="clinicdb")}
    assert found == dict.fromkeys(names[:3], "2") | {name: f"{name}_26" for name in names[3:]}
    with pytest.raises(ValueError, match="must name the frames, but got clinicdb without 26 of ETIS-LaribPolypDB"):
        endoscopy_cases(tmp_path, datasets=["ETIS-LaribPolypDB"], sequences="clinicdb")


def test_frame_of_two_sequences(tmp_path):
    pair(tmp_path, "1")
    table = tmp_path / "videos.csv"
    table.write_text("frame,sequence\n1,a\n1.png,b\n")
    with pytest.raises(ValueError, match=r"one sequence for each frame, but got 'a' and 'b' for '1\.png' in .*videos"):
        endoscopy_cases(tmp_path, sequences=table)
    table.write_text("frame,sequence\n1,a\n1.png,a\n")
    assert [case["sequence"] for case in endoscopy_cases(tmp_path, sequences=table)] == ["a"]


def test_table_of_a_part_is_logged(tmp_path, caplog):
    for stem in ("1", "2", "3"):
        pair(tmp_path, stem)
    table = tmp_path / "videos.csv"
    table.write_text("frame,sequence\n1,a\n2,a\n9,b\n")
    endoscopy_cases(tmp_path, sequences=table)
    assert caplog.messages == [f"{table} names 2 of 3 frames; each of the others is a sequence of its own"]
    caplog.clear()
    endoscopy_cases(tmp_path, sequences=table, names=["1", "2"])
    assert caplog.messages == []


def test_one_name_is_a_list_of_one(tmp_path):
    for name in ("Kvasir", "X"):
        pair(tmp_path / name, "1")
        pair(tmp_path / name, "2")
    assert [case["case"] for case in endoscopy_cases(tmp_path, datasets="X")] == ["X_1", "X_2"]
    assert len(endoscopy_cases(tmp_path, exclude="Kvasir_1")) == 3
    with pytest.raises(ValueError, match="`exclude` must name cases as Kvasir_STEM, but got Kvasir_12, not in"):
        endoscopy_cases(tmp_path, exclude="Kvasir_12")


def test_guards(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="`folder` must hold images/ and masks/, at any depth, but got .*nowhere"
    ):
        endoscopy_cases(tmp_path / "nowhere")
    pair(tmp_path / "one" / "Kvasir")
    with pytest.raises(FileNotFoundError, match="must hold frames that are not excluded, but got"):
        endoscopy_cases(tmp_path, exclude=["Kvasir_1"])
    with pytest.raises(FileNotFoundError, match=r"must hold the data sets ETIS, but got .* with .*docs/README\.md"):
        endoscopy_cases(tmp_path, datasets=["Kvasir", "ETIS"])
    pair(tmp_path / "two" / "Kvasir")
    with pytest.raises(ValueError, match="Kvasir_1: it is also .*read one folder at a time"):
        endoscopy_cases(tmp_path)
    mask(tmp_path / "two" / "Kvasir" / "GT" / "1.png")
    with pytest.raises(ValueError, match=r"images and one of masks, but got \['images', 'GT', 'masks'\] in .*Kvasir"):
        endoscopy_cases(tmp_path)


def test_pranet_split_of_real_data(shared_data):
    splits = shared_data / "splits"
    for dataset, name, counts in (("kvasir-seg", "kvasir", (900, 100)), ("cvc-clinicdb", "clinicdb", (550, 62))):
        files = [splits / f"pranet_{part}_{name}_{n}.txt" for part, n in zip(("train", "test"), counts)]
        train, test = (endoscopy_cases(shared_data / dataset, names=file, check=False) for file in files)
        assert (len(train), len(test)) == counts
        assert not {case["case"] for case in train} & {case["case"] for case in test}


def test_sequence_split_of_real_data(shared_data):
    table = shared_data / "splits" / "clinicdb_sequences.csv"
    cases = endoscopy_cases(shared_data / "cvc-clinicdb", sequences=table, check=False)
    assert cases == endoscopy_cases(shared_data / "cvc-clinicdb", sequences="clinicdb", check=False)
    assert len({case["sequence"] for case in cases}) == 29
    folds = [k_fold(cases, fold, group_key="sequence") for fold in range(5)]
    assert sum(len(fold["test"]) for fold in folds) == 612
    for fold in folds:
        parts = [{case["sequence"] for case in part} for part in fold.values()]
        assert sum(map(len, parts)) == len(set().union(*parts)) == 29


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["kvasir-seg", "cvc-clinicdb", "skin-isic2017", "fundus-drions"])
def test_all_files_of_real_data_can_be_used(shared_data, dataset):
    assert len(endoscopy_cases(shared_data / dataset)) > 100


def test_suffixes_of_frames_in_sequences(tmp_path):
    for stem in ("1", "2", "v1.5"):
        pair(tmp_path / "set", stem)
    table = tmp_path / "videos.csv"
    table.write_text("frame,sequence\n1.png,a\nimages/2.JPG,b\n v1.5 ,c\n")
    assert [case["sequence"] for case in endoscopy_cases(tmp_path, sequences=table)] == ["a", "b", "c"]
    table.write_text("frame,sequence\n7.png,a\n")
    with pytest.raises(ValueError, match="`sequences` must name the frames, but got .*videos.csv without 1, 2, v1.5"):
        endoscopy_cases(tmp_path, sequences=table)


@pytest.mark.parametrize(("row", "got"), [("2,", "'2' and ''"), ("2", "'2' and ''"), (" ,b", "'' and 'b'")])
def test_blank_cells_in_sequences(tmp_path, row, got):
    for stem in ("1", "2"):
        pair(tmp_path / "set", stem)
    (tmp_path / "videos.csv").write_text(f"frame,sequence\n1,a\n{row}\n")
    with pytest.raises(ValueError, match=f"a frame and a sequence in each row, but got {got} in line 3 of .*videos"):
        endoscopy_cases(tmp_path, sequences=tmp_path / "videos.csv")


def test_unknown_cases_to_exclude(tmp_path):
    pair(tmp_path / "one", "1")
    pair(tmp_path / "one", "2")
    picture(tmp_path / "two" / "images" / "7.png")
    mask(tmp_path / "two" / "masks" / "p7.png")
    with pytest.raises(ValueError, match="`exclude` must name cases as one_STEM, but got 1, one_3, two_p7, not in"):
        endoscopy_cases(tmp_path, exclude=["one_1", "1", "one_3", "two_p7"])
    cases = endoscopy_cases(tmp_path, datasets=["one"], exclude=["one_1", "two_7"])  # the latter is not asked for
    assert [case["case"] for case in cases] == ["one_2"]


def test_webp_is_read(tmp_path):
    images, masks = tmp_path / "set" / "images", tmp_path / "set" / "masks"
    picture(images / "1.webp")
    mask(masks / "1.png")
    picture(images / "2.WEBP", value=30)
    mask(masks / "2.webp")  # with loss
    pair(tmp_path / "set", "3")
    cases = endoscopy_cases(tmp_path, names=["1.webp", "2", "3"])
    assert [Path(case["image"]).name for case in cases] == ["1.webp", "2.WEBP", "3.png"]
    assert abs(LoadRGB()(cases[1]["image"]) - 30 / 255).max() < 0.03
    expected = LoadMask()(cases[2]["label"])
    assert all((LoadMask()(case["label"]) == expected).all() for case in cases)
    frames = [Image.fromarray(np.full((8, 10, 3), value, np.uint8)) for value in (10, 200)]
    frames[0].save(images / "1.webp", save_all=True, append_images=frames[1:])
    (images / "3.webp").touch()
    with pytest.raises(ValueError, match="2 images in .* cannot be used") as caught:
        endoscopy_cases(tmp_path)
    assert "set_1: `filename` must hold one picture, but got 2 in" in str(caught.value)
    assert "set_3: it must be one image and one mask, but got" in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links on this system")
def test_links_may_lead_in_circles(tmp_path):
    """Ten folders with a link to the top each: without a memory the walk would have 10 ^ 40 paths before it."""
    pair(tmp_path / "sets" / "Kvasir")
    for number in range(10):
        (tmp_path / "sets" / f"part{number}").mkdir()
        (tmp_path / "sets" / f"part{number}" / "top").symlink_to(tmp_path / "sets", target_is_directory=True)
    elsewhere = tmp_path / "elsewhere" / "ClinicDB"
    pair(elsewhere, "2")
    for link in ("a", "b"):  # the second is no second data set
        (tmp_path / "sets" / link).symlink_to(elsewhere, target_is_directory=True)
    cases = endoscopy_cases(tmp_path / "sets")
    assert [case["case"] for case in cases] == ["Kvasir_1", "ClinicDB_2"]
    assert cases[1]["image"] == str(tmp_path / "sets" / "a" / "images" / "2.png")
    (tmp_path / "circle").mkdir()
    (tmp_path / "circle" / "self").symlink_to(tmp_path / "circle", target_is_directory=True)
    with pytest.raises(FileNotFoundError, match="`folder` must hold images/ and masks/"):
        endoscopy_cases(tmp_path / "circle")


def polypgen(root):
    """A frame or two of each kind of PolypGen, with the folders beside them that hold no cases."""
    for place in ("data_C1", "data_C6"):
        centre = place.removeprefix("data_")
        for stem in ("1", "2"):
            picture(root / place / f"images_{centre}" / f"{centre}_{stem}.jpg")
            mask(root / place / f"masks_{centre}" / f"{centre}_{stem}_mask.jpg")
        picture(root / place / f"bbox_images_{centre}" / f"{centre}_1.jpg")
    for video in ("seq1", "seq12"):
        for stem in ("9", "10"):
            folder = root / "sequenceData" / "positive" / video
            picture(folder / f"images_{video}" / f"{stem}_endocv2021_positive.jpg")
            mask(folder / f"masks_{video}" / f"{stem}_endocv2021_positive_mask.jpg")
            picture(folder / f"bbox_image_{video}" / f"{stem}_endocv2021_positive.jpg")
            (folder / f"bbox_{video}").mkdir(exist_ok=True)
            (folder / f"bbox_{video}" / f"{stem}_endocv2021_positive.txt").touch()
    picture(root / "sequenceData" / "negativeOnly" / "seq1_neg" / "1.jpg")
    picture(root / "imagesAll_positive" / "C1_1.jpg")


def test_sequences_of_folders(tmp_path):
    """A sequence of PolypGen is one video, a single frame a video of its own."""
    polypgen(tmp_path)
    cases = endoscopy_cases(tmp_path, sequences="folder")
    assert [(case["case"], case["sequence"]) for case in cases] == [
        *((f"data_{centre}_{centre}_{stem}",) * 2 for centre in ("C1", "C6") for stem in ("1", "2")),
        *((f"{video}_{stem}_endocv2021_positive", video) for video in ("seq1", "seq12") for stem in ("9", "10")),
    ]
    split = hold_out(cases, fraction=0.3, group_key="sequence")
    held = {case["sequence"] for case in split["validation"]}
    assert held.isdisjoint(case["sequence"] for case in split["train"])
    only = endoscopy_cases(tmp_path / "sequenceData" / "positive", sequences="folder")
    assert {case["sequence"] for case in only} == {"seq1", "seq12"}


def test_folders_that_are_no_sequences(tmp_path):
    pair(tmp_path / "Kvasir-SEG")
    with pytest.raises(ValueError, match=r'"folder"` must find frames in folders such as seq12/, but got Kvasir-SEG\.'):
        endoscopy_cases(tmp_path, sequences="folder")


def test_generated_sequences(tmp_path):
    """As EndoCV2022 has them: three videos of three frames and one of the frame that is left."""
    options = {"num_frames": 10, "frames_per_sequence": 3, "size": 48, "progress": False}
    cases = endoscopy_cases(write_endoscopy_phantoms(tmp_path, "endocv2022", **options), sequences="folder")
    assert [case["case"] for case in cases[:4]] == ["seq1_seq1_1", "seq1_seq1_2", "seq1_seq1_3", "seq2_seq2_1"]
    assert [case["sequence"] for case in cases] == ["seq1"] * 3 + ["seq2"] * 3 + ["seq3"] * 3 + ["seq4"]
    folds = [k_fold(cases, fold, num_folds=4, group_key="sequence") for fold in range(4)]
    assert sorted(len(fold["test"]) for fold in folds) == [1, 3, 3, 3]
    assert not list(tmp_path.rglob("*.csv"))


def test_equal_reasons_are_counted(tmp_path):
    for number in range(9):
        pair(tmp_path / "set", str(number))
        picture(tmp_path / "set" / "masks" / f"{number}.png", 10, 8, value=0)  # transposed
    with pytest.raises(ValueError, match="9 images in ") as caught:
        endoscopy_cases(tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert "set_0: image and mask must have one size, but got 10 x 8 and 8 x 10, transposed (" in lines[1]
    assert lines[4] == "  and 6 others for the same reason: set_3, set_4, set_5, set_6, set_7, set_8"


def test_names_of_macos_match(tmp_path):
    one, other = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    picture(tmp_path / "set" / "images" / f"{other}.JPG")
    mask(tmp_path / "set" / "masks" / f"{one}.jpeg")
    pair(tmp_path / "set", "2")
    (tmp_path / "videos.csv").write_text(f"frame,sequence\n{one},a\n2,b\n", encoding="utf-8-sig")
    cases = endoscopy_cases(tmp_path, names=[f"{other}.jpg", "2"], sequences=tmp_path / "videos.csv")
    assert [(case["case"], case["sequence"]) for case in cases] == [("set_2", "b"), (f"set_{one}", "a")]
    assert len(endoscopy_cases(tmp_path, exclude=f"set_{other}")) == 1
