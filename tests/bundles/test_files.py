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

"""What MONAI's model zoo checks of a bundle before it runs: files, metadata, and how the configurations agree."""

from __future__ import annotations

import json
import math
import re

import jsonschema
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, verify_metadata, verify_net_in_out

import monai_kd
from monai_kd.bundle import bundle_network
from tests.bundles.journey import (
    BUNDLES,
    CT,
    HEADNECK,
    KIDNEY,
    LIVER,
    PHOTOS,
    POLYP,
    ROOT,
    TEAMS,
    XPNET,
    ablations,
    commands,
)

NECESSARY = ["LICENSE", "configs/metadata.json", "configs/inference.json", "configs/logging.conf"]
NECESSARY += [f"configs/{name}.yaml" for name in ("train", "train_teacher", "train_student", "evaluate")]
NECESSARY += [f"configs/{name}.yaml" for name in ("multi_gpu_train", "resume")]
NECESSARY += ["docs/README.md", "docs/data_license.txt"]
TENSOR = {
    "type": "object",
    "required": ["type", "format", "modality", "num_channels", "spatial_shape", "dtype", "value_range"]
    + ["is_patch_data", "channel_def"],
    "properties": {
        "type": {"enum": ["image", "series", "tuples", "probabilities"]},
        "format": {"type": "string"},
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"], "pattern": r"^[0-9*+\-/()np]+$"}},
        "dtype": {"enum": ["float32"]},
        "value_range": {"type": "array", "items": {"type": "number"}, "maxItems": 2},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "patternProperties": {r"^\d+$": {"type": "string"}}, "minProperties": 1},
    },
}
FORMAT = {
    "type": "object",
    "required": ["inputs", "outputs"],
    "properties": {
        "inputs": {"type": "object", "required": ["image"], "additionalProperties": TENSOR},
        "outputs": {"type": "object", "required": ["pred"], "additionalProperties": TENSOR},
    },
}
VERSION = {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"}
TEXTS = ["name", "task", "description", "authors", "copyright", "data_source", "data_type", "image_classes"]
TEXTS += ["label_classes", "pred_classes", "intended_use", "schema"]
SCHEMA = {
    "type": "object",
    "required": [*TEXTS, "version", "changelog", "monai_version", "pytorch_version", "numpy_version"]
    + ["required_packages_version", "network_data_format", "teacher_data_format", "eval_metrics", "references"],
    "properties": {
        **{key: {"type": "string", "minLength": 1} for key in TEXTS},
        **dict.fromkeys(("version", "monai_version", "pytorch_version", "numpy_version"), VERSION),
        "changelog": {"type": "object", "patternProperties": {r"^\d+\.\d+\.\d+$": {"type": "string"}}},
        "required_packages_version": {"type": "object", "additionalProperties": VERSION, "required": ["monai-kd"]},
        "eval_metrics": {"type": "object"},
        "references": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "network_data_format": FORMAT,
        "teacher_data_format": FORMAT,
    },
}
every_bundle = pytest.mark.parametrize("name", BUNDLES)
every_ct_bundle = pytest.mark.parametrize("name", CT)


def metadata(name: str) -> dict:
    return json.loads((BUNDLES[name] / "configs" / "metadata.json").read_text("utf-8"))


def config(name: str, *files: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(BUNDLES[name] / "configs" / file) for file in files])
    return parser


def test_the_bundles_of_the_package():
    assert set(BUNDLES) >= {*CT, *PHOTOS}


@every_bundle
def test_necessary_files_are_there_and_not_large(name):
    assert [file for file in NECESSARY if not (BUNDLES[name] / file).is_file()] == []
    files = [path for path in BUNDLES[name].rglob("*") if path.is_file() and path.parent.name in ("configs", "docs")]
    assert max(path.stat().st_size for path in files) < 25e6
    assert (BUNDLES[name] / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", name)


@every_bundle
def test_metadata_is_complete(name, tmp_path):
    content = metadata(name)
    jsonschema.validate(content, SCHEMA)
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))  # in place of the one that MONAI would download
    meta_file = BUNDLES[name] / "configs" / "metadata.json"
    verify_metadata(meta_file=str(meta_file), filepath=str(tmp_path / "schema.json"))
    assert content["version"] in content["changelog"]
    assert content["required_packages_version"]["monai-kd"] == monai_kd.__version__
    for network in ("network_data_format", "teacher_data_format"):
        for tensor in (*content[network]["inputs"].values(), *content[network]["outputs"].values()):
            assert sorted(tensor["channel_def"]) == [str(channel) for channel in range(tensor["num_channels"])]


@every_bundle
def test_networks_take_and_give_what_the_metadata_says(name):
    configs = BUNDLES[name] / "configs"
    verify_net_in_out(
        "network_def", meta_file=str(configs / "metadata.json"), config_file=str(configs / "inference.json")
    )
    data_format = metadata(name)["teacher_data_format"]
    assert data_format["inputs"]["image"]["spatial_shape"] == ["32*n", "32*n"]
    teacher = bundle_network(name, "teacher_def").eval()
    with torch.no_grad():
        logits = teacher(torch.rand(1, data_format["inputs"]["image"]["num_channels"], 64, 32))
    assert logits.shape == (1, data_format["outputs"]["pred"]["num_channels"], 64, 32)


@every_bundle
def test_training_and_inference_agree(name):
    """What a user changes in one of them must be what stands in the other."""
    train, inference = config(name, "train.yaml"), config(name, "inference.json")
    assert inference.get("network_def") == train.get("student_def")
    for key in ("window", "patch_size", "field_of_view", "image_size"):
        if key in train:  # without weights, whose own come first
            assert inference.get_parsed_content(key) == train.get_parsed_content(key)
    assert inference.get("inferer") == train.get("validate::inferer")
    classes = train.get_parsed_content("classes")
    if name in CT:
        assert inference.get_parsed_content("num_classes") == train.get_parsed_content("num_classes")
    if name not in (POLYP, XPNET):  # whose networks have one channel
        classes = ["background", *classes]
    assert list(metadata(name)["network_data_format"]["outputs"]["pred"]["channel_def"].values()) == classes


@pytest.mark.parametrize("name", PHOTOS)
def test_frames_are_prepared_alike_for_training_evaluation_and_inference(name):
    train, inference = config(name, "train.yaml"), config(name, "inference.json")
    normalise = [item for item in inference.get("preprocessing")["transforms"] if "NormalizeIntensityd" in str(item)]
    assert normalise == [train.get("normalise")]
    assert inference.get("resize") == train.get("validate::resize")
    transforms = train.get("train::loading" if name in TEAMS else "train::transforms")
    assert "@normalise" in transforms
    resized = next(item for item in transforms if item != "@normalise" and item["_target_"] == "Resized")
    assert resized["mode"][0] == train.get("validate::resize")["mode"]
    assert resized["spatial_size"] == train.get("validate::resize")["spatial_size"]
    shared = [item for item in train.get("validate::postprocessing")["transforms"] if "to_onehot" not in item]
    written = inference.get("postprocessing")["transforms"]
    kinds = ["Activationsd", *(["Lambdad"] if name in TEAMS else []), "Invertd", "AsDiscreted"]
    assert [item["_target_"] for item in shared] == kinds
    assert written[: len(kinds) - 2] == shared[:-2]
    assert written[len(kinds) - 2] == shared[-2] | {"transform": "@resize"}
    assert inference.get("threshold") == shared[-1]["threshold"]


@pytest.mark.parametrize("name", [LIVER, KIDNEY])
def test_supervised_loss_is_that_of_the_released_code(name):
    """0.5 focal (gamma 2, mean over pixels) + 0.5 Dice (foreground, smoothing 1, of the whole batch), by hand."""
    logits = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    label = (torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.7).float()
    probability = logits.softmax(1)
    right = probability.gather(1, label.long())
    focal = (-((1 - right) ** 2) * right.log()).mean()
    overlap = (probability[:, 1:] * label).sum()
    dice = 1 - (2 * overlap + 1) / (probability[:, 1:].sum() + label.sum() + 1)
    loss = config(name, "train.yaml").get_parsed_content("loss")
    torch.testing.assert_close(loss(logits, label), 0.5 * focal + 0.5 * dice)


@every_ct_bundle
def test_learning_rate_is_a_cosine_to_a_thousandth(name):
    parser = config(name, "train.yaml")
    parser.update({"max_epochs": 10, "decay_epochs": 8})
    cosine = parser.get_parsed_content("cosine")
    factors = [cosine(epoch) for epoch in range(11)]
    assert factors[:9] == pytest.approx([max(1e-3, (1 + math.cos(math.pi * epoch / 8)) / 2) for epoch in range(9)])
    assert factors[8:] == [1e-3] * 3  # and stays there
    assert all(type(factor) is float for factor in factors)  # a checkpoint with NumPy's would need code to be read


def test_polyp_loss_is_equation_7():
    """Binary cross entropy + Dice of both maps, by hand."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(3, 1, 8, 8, generator=generator) for _ in range(2)]
    label = (torch.rand(3, 1, 8, 8, generator=generator) > 0.7).float()
    expected = torch.zeros(())
    for logits in maps:
        p = logits.sigmoid()
        overlap = (p * label).sum((1, 2, 3))
        dice = 1 - (2 * overlap + 1) / (p.sum((1, 2, 3)) + label.sum((1, 2, 3)) + 1)
        expected = expected - (label * p.log() + (1 - label) * (1 - p).log()).mean() + dice.mean()
    torch.testing.assert_close(config(POLYP, "train.yaml").get_parsed_content("loss")(maps, label), expected)


def test_polyp_objective_is_equation_8():
    train = config(POLYP, "train.yaml")
    train["weights"] = "paper"
    names = ("supervised", "at", "sgm", "kd")
    weights = [train.get_parsed_content(f"{name}_weight") for name in names]
    assert weights == [0.8, 0.2, 0.2, 0.0]
    terms = train.get("distillation")[0]["terms"]
    assert [term["name"] for term in terms] == ["at", "sgm", "kd"]
    assert [term["weight"] for term in terms] == ["@at_weight", "@sgm_weight", "@kd_weight"]


def test_3d_training_and_inference_agree():
    train = config(HEADNECK, "train.yaml", "train_3d.yaml")
    inference = config(HEADNECK, "inference.json", "inference_3d.yaml")
    assert inference.get("network_def") == train.get("student_def")
    assert inference.get_parsed_content("patch_size") == train.get_parsed_content("patch_size")
    assert inference.get("inferer") | {"overlap": 0} == train.get("validate::inferer") | {"overlap": 0}


@every_bundle
def test_lines_of_configurations_are_short(name):
    for path in (BUNDLES[name] / "configs").glob("*.yaml"):
        lines = path.read_text("utf-8").splitlines()
        assert [line for line in lines if len(line) > 100] == [], path
        assert lines[0].startswith("# "), f"{path} must say what it is for"


@every_bundle
def test_no_path_of_a_person(name):
    for path in BUNDLES[name].rglob("*"):
        if path.is_file() and path.parent.name in ("configs", "docs"):
            assert re.findall(r"(?:/home|/root|/Users|/tmp|/mnt|[A-Z]:\\)\S*", path.read_text("utf-8")) == [], path


@every_bundle
def test_targets_are_dotted_or_of_monai(name):
    """``_target_: monai_kd.handlers.X`` needs no import and no PYTHONPATH; short names are MONAI's own."""
    for path in (BUNDLES[name] / "configs").glob("*.[yj][as]*"):
        for target in re.findall(r"_target_\"?: \"?([\w.]+)", path.read_text("utf-8")):
            assert target.startswith(("monai_kd.", "torch.", "ignite.")) or "." not in target, target


def test_bundles_share_their_overlays():
    for overlay in ("train_teacher.yaml", "train_student.yaml", "multi_gpu_train.yaml", "resume.yaml", "logging.conf"):
        texts = {(folder / "configs" / overlay).read_text("utf-8") for folder in BUNDLES.values()}
        # the teachers of XP-Net have a learning rate of their own
        texts = {re.sub(r"^# Stage 1 of \d", "# Stage 1", text.replace("teaches: true\n", "")) for text in texts}
        assert len(texts) == 1, overlay


@pytest.mark.parametrize("name", [*TEAMS, XPNET])
def test_overlays_say_which_stage_of_how_many_they_are(name):
    stages = config(name, "train.yaml").get("stages")
    overlays = [files[0] for files in stages.values() if files]
    assert overlays.pop() == "train_student.yaml"  # the same in all bundles: for comparison
    for number, overlay in enumerate(overlays, start=1):
        text = (BUNDLES[name] / "configs" / overlay).read_text("utf-8")
        assert text.startswith(f"# Stage {number} of {len(stages)}, over train.yaml: "), overlay


@every_bundle
def test_every_configuration_is_in_the_readme(name):
    readme = (BUNDLES[name] / "docs" / "README.md").read_text("utf-8")
    used = " ".join(commands(readme))
    shipped = {path.name for path in (BUNDLES[name] / "configs").iterdir()} - {"logging.conf", "metadata.json"}
    assert {file for file in shipped if f"configs/{file}" not in used} == set()


@every_bundle
def test_rows_of_the_ablations_keep_their_weights_apart(name):
    rows = ablations((BUNDLES[name] / "docs" / "README.md").read_text("utf-8"))
    names = [re.search(r"--ckpt_name (\S+)", overrides)[1] for overrides in rows.values()]
    assert len(set(names)) == len(names) > 3


@every_ct_bundle
def test_readme_has_the_rows_of_the_tables_of_the_paper(name):
    rows = ablations((BUNDLES[name] / "docs" / "README.md").read_text("utf-8"))
    terms = ("PMD", "IMD", "RAD")
    subsets = [" + ".join(t for t, on in zip(terms, bits) if on) for bits in
               ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1))]  # fmt: skip
    assert {"student alone", *subsets, *(f"Table VI, row {row}" for row in (4, 5, 6, 7))} <= set(rows)


@every_bundle
def test_yaml_reads_the_same_without_monai(name):
    """No duplicate key, and nothing that YAML 1.1 turns into a boolean by surprise."""
    for path in (BUNDLES[name] / "configs").glob("*.yaml"):
        content = yaml.safe_load(path.read_text("utf-8"))
        assert all(isinstance(key, str) for key in content), path


@pytest.mark.parametrize("name", CT)
def test_dicom_reader_is_there_before_load_imaged(name):
    """MONAI lists its readers when LoadImaged is made, and imports the rest of monai_kd only where it is asked for."""
    for file in ("inference.json", "train.yaml"):
        parser = ConfigParser(ConfigParser.load_config_file(BUNDLES[name] / "configs" / file))
        assert "$import monai_kd.transforms" in parser["imports"], file
