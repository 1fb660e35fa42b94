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

import pytest
import torch
from monai.bundle import ConfigParser

import monai_kd
from monai_kd.bundle import locate_bundle
from monai_kd.bundle.export_metadata import export_metadata

NETWORK = torch.nn.Conv2d(3, 2, 1)


def shipped(name: str, *configs: str) -> dict:
    folder = locate_bundle(name) / "configs"
    parser = ConfigParser()
    parser.read_config([str(folder / config) for config in configs])
    parser.read_meta(str(folder / "metadata.json"))
    return export_metadata(parser, NETWORK)


def bundle(preprocessing: list, **entries) -> ConfigParser:
    data = {"inputs": {"image": {"num_channels": 3}}, "outputs": {"pred": {"num_channels": 2}}}
    compose = {"_target_": "Compose", "transforms": preprocessing}
    return ConfigParser({"preprocessing": compose, "_meta_": {"network_data_format": data}, **entries})


def test_bundle_of_frames():
    assert shipped("polyp_endoscopy_kdas", "inference.json") == {
        "monai_kd": monai_kd.__version__,
        "bundle": "Polyps in endoscopy, distilled",
        "bundle_version": "0.1.0",
        "network": "Conv2d",
        "in_channels": 3,
        "out_channels": 1,
        "classes": ["polyp"],
        "channels": ["red", "green", "blue"],
        "reader": "LoadRGB",
        "orientation": None,
        "spacing": None,
        "size": [352, 352],
        "crop": None,
        "patch_size": None,
        "overlap": 0.25,
        "blending": "constant",
        "slice_axis": None,
        "inverse": "linear",
        "window": None,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "activation": "sigmoid",
        "threshold": 0.5,
        "other": [],
    }


@pytest.mark.parametrize(
    ("name", "configs", "expected"),
    [
        ("liver_tumor_ct_emkd", ["inference.json"], {"window": [-40.0, 160.0], "patch_size": [384, 384], "crop": None}),
        ("kidney_tumor_ct_emkd", ["inference.json"], {"window": [-200.0, 300.0], "classes": ["background", "tumor"]}),
        ("headneck_organs_ct_emkd", ["inference.json"], {"window": [-160.0, 240.0], "crop": [64, 64, -1]}),
        ("headneck_organs_ct_emkd", ["inference.json", "inference_3d.yaml"], {"patch_size": [64, 64, 32]}),
    ],
)
def test_bundles_of_ct(name, configs, expected):
    block = shipped(name, *configs)
    expected |= {"reader": "LoadVolume", "orientation": "RAS", "size": None, "activation": None, "other": []}
    assert {key: block[key] for key in expected} == expected


def test_entries_of_monai_bundles():
    """Spacing, a window by its limits, and references to other entries."""
    spacing = {"_target_": "Spacingd", "keys": "image", "pixdim": "@pixdim"}
    window = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1}
    steps = [{"_target_": "LoadImaged", "keys": "image"}, "@spacing", window | {"clip": True}]
    steps += [{"_target_": "EnsureTyped", "keys": "image"}]
    block = export_metadata(bundle(steps, pixdim=[1.5, 1.5, 2], spacing=spacing), NETWORK)
    assert (block["spacing"], block["window"], block["other"]) == ([1.5, 1.5, 2.0], [-57.0, 164.0], [])
    assert block["classes"] == ["channel 0", "channel 1"]
    post = {"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}]}
    assert export_metadata(bundle([], postprocessing=post), NETWORK)["activation"] == "softmax"


@pytest.mark.parametrize(
    "step",
    [
        {"_target_": "ScaleIntensityd", "keys": "image"},  # by the range of each image
        {"_target_": "NormalizeIntensityd", "keys": "image"},  # by its mean
        {"_target_": "Resized", "keys": "image", "spatial_size": [8, 8]},  # area
        {"_target_": "Resized", "keys": "image", "spatial_size": [8, 8], "mode": "bilinear", "anti_aliasing": True},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 1, "b_min": -1, "b_max": 1},
        "$monai_kd.transforms.LoadRGBd('image')",
    ],
)
def test_what_the_block_cannot_say_is_named(step):
    """A program that took the rest for the whole would run on other values than the network was trained on."""
    block = export_metadata(bundle([step]), NETWORK)
    assert len(block["other"]) == 1
    assert block["size"] is None
    assert block["mean"] is None
    assert block["window"] is None


def test_second_transform_of_a_kind_is_named():
    resize = {"_target_": "Resized", "keys": "image", "spatial_size": [8, 8], "mode": "bilinear"}
    block = export_metadata(bundle([resize, resize | {"spatial_size": [4, 4]}]), NETWORK)
    assert (block["size"], block["other"]) == ([8, 8], ["Resize"])


def test_given_classes_take_the_place_of_the_metadata():
    block = export_metadata(bundle([]), NETWORK, ["background", "liver", "tumor"])
    assert (block["classes"], block["out_channels"]) == (["background", "liver", "tumor"], 3)


def test_metadata_without_format_is_refused():
    with pytest.raises(ValueError, match=r"must have inputs.image and outputs.pred .* 'network_data_format'"):
        export_metadata(ConfigParser({"_meta_": {"version": "0.1.0"}}), NETWORK)


LOAD = {"_target_": "monai_kd.transforms.LoadRGBd", "keys": "image"}
RESIZE = {"_target_": "Resized", "keys": "image", "spatial_size": [8, 8], "mode": "bilinear"}
WINDOW = {"_target_": "monai_kd.transforms.CTWindowd", "keys": "image", "window": [40, 400]}
NORMALIZE = {"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": [0.5], "divisor": [0.2]}
CROP = {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": [8, 8]}


@pytest.mark.parametrize(
    ("steps", "other"),
    [
        ([LOAD, RESIZE, WINDOW, NORMALIZE, CROP], []),
        ([NORMALIZE, WINDOW], ["CTWindow"]),
        ([WINDOW, RESIZE], ["Resize"]),  # clipped before it is blurred
        ([CROP, WINDOW], ["CTWindow"]),  # padded with 0 HU
        ([RESIZE, LOAD], ["LoadRGB"]),
    ],
)
def test_transform_out_of_order_is_named(steps, other):
    """A program applies the entries in one order alone."""
    block = export_metadata(bundle(steps), NETWORK)
    assert block["other"] == other
    assert [key for key in ("size", "window", "mean", "crop") if block[key] is not None]


def test_transform_of_another_key_is_passed_over():
    """The copy for an overlay has another size than the image."""
    copy = {"_target_": "CopyItemsd", "keys": "image", "names": "photo"}
    aside = RESIZE | {"keys": "photo", "spatial_size": [4, 4]}
    block = export_metadata(bundle([LOAD, copy, aside, RESIZE | {"keys": ["label", "image"]}]), NETWORK)
    assert (block["size"], block["other"]) == ([8, 8], [])
    assert export_metadata(bundle([copy, aside]), NETWORK)["size"] is None


@pytest.mark.parametrize(
    "step",
    [
        {"_target_": "CopyItemsd", "keys": "photo", "names": "image"},
        {"_target_": "ConcatItemsd", "keys": ["a", "b"], "name": "image"},
        {"_target_": "Lambda", "func": "$lambda item: item | {'image': item['image'] * 2}"},
        {"_target_": "Lambda", "func": "$lambda item: {**item, 'image': 0}"},
        {"_target_": "OneOf", "transforms": [RESIZE]},
    ],
)
def test_what_takes_the_place_of_the_image_is_named(step):
    block = export_metadata(bundle([LOAD, step]), NETWORK)
    assert block["other"] == [step["_target_"].removesuffix("d")]
    assert block["size"] is None


@pytest.mark.parametrize("disabled", [True, "True", "$not @resized"])
def test_disabled_transform_is_passed_over(disabled):
    steps = [
        LOAD,
        RESIZE | {"_disabled_": disabled},
        {"_target_": "ScaleIntensityd", "keys": "image"} | {"_disabled_": True},
    ]
    parser = bundle(steps, resized=False)
    block = export_metadata(parser, NETWORK)
    assert (block["size"], block["other"]) == (None, [])
    assert len(parser.get_parsed_content("preprocessing").transforms) == 1  # MONAI passes over it too
    enabled = export_metadata(bundle([RESIZE | {"_disabled_": "$not @resized"}], resized=True), NETWORK)
    assert enabled["size"] == [8, 8]


def test_preprocessing_that_is_no_list_is_read_or_named():
    inner = {"_target_": "Compose", "transforms": [RESIZE, WINDOW]}
    block = export_metadata(bundle([LOAD, inner]), NETWORK)
    assert (block["size"], block["window"], block["other"]) == ([8, 8], [-160.0, 240.0], [])
    for alone, size, other in ((RESIZE, [8, 8], []), ("$my.transforms()", None, ["$my.transforms()"])):
        parser = bundle([])
        parser["preprocessing"] = alone
        block = export_metadata(parser, NETWORK)
        assert (block["size"], block["other"]) == (size, other)


SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
INVERT = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
SMOOTH = INVERT | {"nearest_interp": False}
THRESHOLD = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
FOREGROUND = {"_target_": "Lambdad", "keys": "pred", "func": "$lambda pred: pred[1:]"}
LARGEST = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"}
MASK = {"_target_": "CopyItemsd", "keys": "pred", "names": "mask"}
SAVE = {"_target_": "SaveImaged", "keys": "mask", "output_dir": "."}
OVERLAY = {"_target_": "Lambda", "func": "$lambda item: item | {'overlay': item['photo'] + item['pred']}"}
TURN = {"_target_": "Transposed", "keys": ["mask", "overlay"], "indices": [0, 2, 1]}


@pytest.mark.parametrize(
    ("steps", "other"),
    [
        ([SIGMOID, SMOOTH, THRESHOLD, OVERLAY, MASK, TURN, SAVE], []),
        ([SOFTMAX, FOREGROUND, SMOOTH, THRESHOLD], []),
        ([SMOOTH, ARGMAX, MASK, SAVE], []),
        ([SIGMOID, SMOOTH, THRESHOLD, LARGEST], ["KeepLargestConnectedComponent"]),
        ([SIGMOID, THRESHOLD, MASK, LARGEST | {"keys": "mask"}], ["KeepLargestConnectedComponent"]),
        ([SIGMOID, THRESHOLD, LARGEST | {"keys": "probability"}], []),
        ([SIGMOID, THRESHOLD, LARGEST | {"_disabled_": True}], []),
        ([SIGMOID, {"_target_": "Lambdad", "keys": "pred", "func": "$lambda pred: 1 - pred"}, THRESHOLD], ["Lambda"]),
        ([{"_target_": "Lambda", "func": "$lambda item: item | {'pred': 1 - item['pred']}"}], ["Lambda"]),
        ([SIGMOID, FOREGROUND, THRESHOLD], ["Lambda"]),  # the first of two masks is lost
        ([SIGMOID, SIGMOID], ["Activations"]),
        ([THRESHOLD], ["AsDiscrete"]),  # of logits, no probabilities
        ([SIGMOID, ARGMAX], ["AsDiscrete"]),
        ([ARGMAX | {"to_onehot": 2}], ["AsDiscrete"]),
        ([SIGMOID, THRESHOLD, SIGMOID], ["Activations"]),
        ([SIGMOID, INVERT, THRESHOLD], ["Invert"]),  # MONAI's default: nearest
        ([SIGMOID, THRESHOLD, SMOOTH], ["Invert"]),  # after the threshold
        ([SIGMOID, {"_target_": "Transposed", "keys": "pred", "indices": [0, 1, 2]}], ["Transpose"]),
    ],
)
def test_what_the_block_cannot_say_of_masks_is_named(steps, other):
    """Of images of another size than the masks."""
    post = {"_target_": "Compose", "transforms": steps}
    assert export_metadata(bundle([LOAD, RESIZE], postprocessing=post), NETWORK)["other"] == other


def test_threshold_of_several_classes_is_named():
    """Masks of each class, where a program would take the most probable one."""
    post = {"_target_": "Compose", "transforms": [SOFTMAX, FOREGROUND, THRESHOLD]}
    block = export_metadata(bundle([], postprocessing=post), NETWORK, ["background", "disc", "cup"])
    assert (block["threshold"], block["other"]) == (None, ["Lambda", "AsDiscrete"])


@pytest.mark.parametrize(
    "path", sorted(locate_bundle("polyp_endoscopy_kdas").parent.iterdir()), ids=lambda path: path.name
)
def test_block_says_all_of_a_shipped_bundle(path):
    assert shipped(str(path), "inference.json")["other"] == []
