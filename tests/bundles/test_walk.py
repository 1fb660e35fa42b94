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

"""After all commands of a bundle's README: what they left behind is there and right."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigWorkflow, load
from monai.metrics import compute_dice
from monai.transforms import LoadImage, Orientation

from monai_kd.bundle import bundle_network
from monai_kd.transforms import CTWindow, task_labels
from tests.bundles.journey import (
    BUNDLES,
    CT,
    DATA,
    DISC,
    ENDOSCENE,
    HEADNECK,
    KIDNEY,
    LIVER,
    PHOTOS,
    POLYP,
    SKIN,
    SMALL,
    TEAMS,
    TWINS,
    XPNET,
    commands,
    is_walked,
    run_configs,
    undisturbed,
)

pytestmark = pytest.mark.slow
every_bundle = pytest.mark.parametrize("name", BUNDLES)
every_ct_bundle = pytest.mark.parametrize("name", CT)
TASK = {LIVER: task_labels("tumor"), KIDNEY: task_labels("tumor"), HEADNECK: {label: label for label in range(5)}}
WINDOW = {LIVER: "liver", KIDNEY: "kidney", HEADNECK: (40, 400)}


def weights(bundle: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(bundle / "models" / name, weights_only=True)


def scan_of(name: str, data: Path, case: str) -> tuple[Path, Path]:
    """Image and label of a case."""
    if name == LIVER:
        folder, number = data / DATA[name] / "Training Batch 1", case.split("-")[1]
        return folder / f"volume-{number}.nii", folder / f"segmentation-{number}.nii"
    if name == KIDNEY:
        folder = data / DATA[name] / case
        return folder / "imaging.nii.gz", folder / "segmentation.nii.gz"
    return data / DATA[name] / "images" / f"{case}.nii.gz", data / DATA[name] / "masks" / f"{case}.nii.gz"


# what inference calls a case of the data set, whose volumes lie deeper
SCAN = {LIVER: "Training Batch 1_{}", KIDNEY: "{}_imaging", HEADNECK: "{}"}


def mask_of(name: str, bundle: Path, case: str) -> Path:
    return bundle / "eval" / "predictions" / f"{SCAN[name].format(case)}_seg.nii.gz"


@every_bundle
def test_every_command_ran(walked, name):
    seconds = json.loads((walked(name) / "seconds.json").read_text())
    left = [c for c in commands((BUNDLES[name] / "docs" / "README.md").read_text("utf-8")) if c not in seconds]
    assert not any(is_walked(name, command) for command in left)
    if name not in TWINS:
        assert all("torchrun" in command for command in left)  # LiTS's, where it ran, stands for all
        assert len(left) == (0 if name == LIVER else 1)


@every_bundle
def test_weights_are_those_of_the_network_alone(walked, name):
    """No teacher in the student's checkpoint, no prefix of DDP, nothing but tensors."""
    bundle = walked(name) / name
    if name not in TEAMS:  # trained with a small one in its place
        bundle_network(bundle, "teacher_def").load_state_dict(weights(bundle, "teacher.pt"), strict=True)
    for file in ("student_alone.pt", "model.pt"):
        bundle_network(bundle, "network_def").load_state_dict(weights(bundle, file), strict=True)


@every_bundle
def test_monai_loads_the_network_with_its_weights(walked, name):
    with undisturbed():
        network = load(name, bundle_dir=str(walked(name)), workflow_type="inference", device="cpu")
    kinds = {POLYP: "PolypPVT", XPNET: "SeparableEPSAUNet"} | dict.fromkeys(TEAMS, "UNet")
    assert type(network).__name__ == kinds.get(name, "ENet")
    for key, value in weights(walked(name) / name, "model.pt").items():
        torch.testing.assert_close(network.state_dict()[key], value, rtol=0, atol=0)


@every_ct_bundle
def test_evaluation_is_what_the_written_masks_say(walked, name):
    """Dice by MONAI, VOE and RVD by their definition, from the masks that inference wrote for the same cases."""
    folder = walked(name)
    with open(folder / name / "eval" / "model" / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = list(dict.fromkeys(row["class"] for row in rows))
    assert len(rows) == 2 * len(classes)
    for row in rows:
        image, label = scan_of(name, folder / "data", row["case"])
        raw = np.asarray(nibabel.load(label).dataobj)
        truth = np.vectorize(TASK[name].get)(raw) == classes.index(row["class"]) + 1
        mask = nibabel.load(mask_of(name, folder / name, row["case"]))
        pred = np.asarray(mask.dataobj) == classes.index(row["class"]) + 1
        assert int(row["pred_voxels"]) == pred.sum()
        assert int(row["label_voxels"]) == truth.sum()
        np.testing.assert_allclose(mask.affine, nibabel.load(image).affine, atol=1e-4)
        if not truth.any():
            assert row["dice"] == row["voe"] == row["rvd"] == ""
            continue
        dice = compute_dice(torch.from_numpy(pred)[None, None], torch.from_numpy(truth)[None, None]).item()
        assert float(row["dice"]) == pytest.approx(dice, abs=1e-6)
        assert float(row["voe"]) == pytest.approx(1 - (pred & truth).sum() / (pred | truth).sum(), abs=1e-6)
        assert float(row["rvd"]) == pytest.approx(pred.sum() / truth.sum() - 1, rel=1e-5, abs=1e-6)


@every_bundle
def test_evaluation_keeps_to_the_test_cases(walked, name):
    """Each network on the same cases, none of which was trained on; the summary is that of the table."""
    folder = walked(name)
    tables = {}
    for run in ("teacher", "student_alone", "model"):
        with open(folder / name / "eval" / run / "cases.csv", newline="") as file:
            tables[run] = list(csv.DictReader(file))
    cases = {tuple(row["case"] for row in table) for table in tables.values()}
    assert len(cases) == 1
    workflow = ConfigWorkflow(str(folder / name / "configs" / "train.yaml"), logging_file=False)
    workflow.parser["dataset_dir"] = str(folder / "data" / DATA[name])
    split = workflow.parser.get_parsed_content("split")
    seen = {case["case"] for part in ("train", "validation") for case in split[part]}
    assert seen
    assert seen & set(*cases) == set()
    summary = json.loads((folder / name / "eval" / "model" / "summary.json").read_text())
    for label, entry in summary.items():
        own = [row for row in tables["model"] if f"{row.get('group', '')} {row['class']}".strip() == label]
        values = [float(row["dice"]) for row in own if row["dice"]]
        assert entry["dice"]["n"] == len(values)
        assert entry["dice"]["mean"] == (pytest.approx(np.mean(values)) if values else None)


@every_ct_bundle
def test_inference_is_a_forward_pass(walked, name, tmp_path):
    """Slice by slice, by hand: read, orient, window, (crop,) network, most probable class, back to the file's grid."""
    folder = walked(name)
    image, _ = scan_of(name, folder / "data", {LIVER: "volume-0", KIDNEY: "case_00000", HEADNECK: "case_0"}[name])
    size = {"patch_size": [64, 64]} if name != HEADNECK else {}
    run_configs(folder / name, ["inference.json"], dataset_dir=str(image), output_dir=str(tmp_path), **size)
    written = nibabel.load(next(tmp_path.iterdir()))

    network = bundle_network(folder / name)
    network.load_state_dict(weights(folder / name, "model.pt"))
    network.eval()
    scan = Orientation("RAS", labels=None)(LoadImage(ensure_channel_first=True)(image))
    values = CTWindow(WINDOW[name])(scan).as_tensor()
    edge = (values.shape[1] - 64) // 2
    inner = values[:, edge : edge + 64, edge : edge + 64]
    with torch.no_grad():
        logits = network(inner.permute(3, 0, 1, 2))  # slices as a batch
    expected = torch.zeros(scan.shape[1:], dtype=torch.uint8)
    expected[edge : edge + 64, edge : edge + 64] = logits.argmax(1).permute(1, 2, 0).to(torch.uint8)
    got = nibabel.as_closest_canonical(written)
    assert written.shape == nibabel.load(image).shape
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(got.dataobj), expected.numpy())
    assert 0 < expected.float().mean() < network.head.out_channels


@every_ct_bundle
def test_masks_are_named_after_their_scans(walked, name):
    """Also for KiTS19, where all volumes have one name, and for series whose folders differ after a dot only."""
    predictions = walked(name) / name / "eval" / "predictions"
    case = {LIVER: "volume-{}", KIDNEY: "case_0000{}", HEADNECK: "case_{}"}[name]
    expected = {SCAN[name].format(case.format(number)) for number in range(6)} | {"1.2.0", "1.2.1", "scan"}
    assert {path.name for path in predictions.iterdir()} == {f"{case}_seg.nii.gz" for case in expected}


@every_ct_bundle
def test_mask_of_dicom_has_its_geometry(walked, name):
    """The second series holds the volume of scan.nii.gz: same affine and the same mask."""
    folder = walked(name)
    scan = nibabel.load(folder / "data" / "scan.nii.gz")
    masks = [nibabel.load(folder / name / "eval" / "predictions" / f"{case}_seg.nii.gz") for case in ("1.2.1", "scan")]
    for mask in masks:
        assert mask.shape == scan.shape
        np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-3)
    np.testing.assert_array_equal(np.asarray(masks[0].dataobj), np.asarray(masks[1].dataobj))


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "IPL", "SAR", "PSL"])
def test_mask_keeps_any_orientation(walked, tmp_path, axcodes):
    """The same scan stored in another order of axes: the mask of it, in that order."""
    folder = walked(LIVER)
    scan = nibabel.load(folder / "data" / "scan.nii.gz")
    target = nibabel.orientations.axcodes2ornt(axcodes)
    turned = scan.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(scan.affine), target))
    nibabel.save(turned, tmp_path / "turned.nii")
    output = {"output_dir": str(tmp_path / "out"), "patch_size": [64, 64]}
    for path in (tmp_path / "turned.nii", folder / "data" / "scan.nii.gz"):
        run_configs(folder / LIVER, ["inference.json"], dataset_dir=str(path), **output)
    masks = {path.name.split("_")[0]: nibabel.load(path) for path in (tmp_path / "out").iterdir()}
    np.testing.assert_allclose(masks["turned"].affine, turned.affine, atol=1e-4)
    assert masks["turned"].shape == turned.shape
    straight = nibabel.as_closest_canonical(masks["scan"])
    back = nibabel.as_closest_canonical(masks["turned"])
    np.testing.assert_array_equal(np.asarray(back.dataobj), np.asarray(straight.dataobj))


@every_bundle
@pytest.mark.parametrize(
    ("configs", "kind"),
    [(["train.yaml"], "train"), (["train.yaml", "evaluate.yaml"], "train"), (["inference.json"], "infer")],
)
def test_properties_of_monai_are_there(walked, name, configs, kind):
    folder = walked(name)
    override = {"dataset_dir": str(folder / "data" / DATA[name]), "bundle_root": str(folder / name)}
    photos = dict.fromkeys((POLYP, XPNET, ENDOSCENE), "video.mp4")
    photos |= {SKIN: "ISIC2017/ISIC-2017_Test_v2_Data", DISC: "IDRiD/A. Segmentation/1. Original Images"}
    scan = folder / "data" / photos.get(name, "scan.nii.gz")
    override |= SMALL[name] if kind == "train" else {"dataset_dir": str(scan)}
    files = [str(folder / name / "configs" / file) for file in configs]
    workflow = ConfigWorkflow(files, workflow_type=kind, logging_file=False, **override)
    workflow.initialize()
    assert workflow.check_properties() == []
    optional = [key for key, entry in workflow.properties.items() if not entry["required"]]
    assert [key for key in optional if key not in ("train_postprocessing", "train_key_metric", "key_metric")
            and getattr(workflow, key, None) is None] == []  # fmt: skip


@every_bundle
def test_torchscript_is_the_network(walked, name):
    bundle = walked(name) / name
    network = bundle_network(bundle)
    network.load_state_dict(weights(bundle, "model.pt"))
    image = torch.rand(2, 3 if name in PHOTOS else 1, 64, 64)
    with torch.no_grad():
        logits = network.eval()(image)
        exported = torch.jit.load(bundle / "models" / "model.ts").eval()(image)
    torch.testing.assert_close(exported, logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "shape"), [(LIVER, (1, 1, 64, 64)), (POLYP, (1, 3, 64, 64))])
def test_onnx_is_the_network(walked, name, shape):
    bundle = walked(name) / name
    network = bundle_network(bundle)
    network.load_state_dict(weights(bundle, "model.pt"))
    session = onnxruntime.InferenceSession(bundle / "models" / "model.onnx")
    image = torch.rand(shape)
    with torch.no_grad():
        logits = network.eval()(image)
    exported = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
    np.testing.assert_allclose(exported, logits.numpy(), rtol=0, atol=1e-4)


@every_bundle
def test_report_compares_the_three(walked, name):
    page = (walked(name) / name / "eval" / "report.html").read_text("utf-8")
    assert all(run in page for run in ("teacher", "student_alone", "model"))


def test_3d_student_is_a_unet(walked):
    """Trained, distilled, evaluated and used for inference in 3D, apart from the weights of the slices."""
    bundle = walked(HEADNECK) / HEADNECK
    student = weights(bundle, "3d/model.pt")
    assert student["model.0.conv.unit0.conv.weight"].shape == (8, 1, 3, 3, 3)
    assert (bundle / "models" / "3d" / "teacher.pt").is_file()
    rows = list(csv.DictReader((bundle / "eval" / "3d" / "model" / "cases.csv").open()))
    assert {row["case"] for row in rows} == {"case_0", "case_1"}


def test_published_dicom_gives_the_mask_of_its_volume(walked, shared_data, tmp_path):
    """Twelve slices as files without suffix, and the volume that they were taken from as NIfTI."""
    folder = shared_data / "ct-3dircadb17"
    options = {"dataset_dir": str(folder / "dicom_84_95"), "output_dir": str(tmp_path)}
    options["spacing_factor"] = 10  # the weights are of phantoms with large pixels
    run_configs(walked(LIVER) / LIVER, ["inference.json"], **options)
    mask = nibabel.load(tmp_path / "dicom_84_95_seg.nii.gz")
    volume = nibabel.load(folder / "images" / "ircad17.nii.gz")
    block = nibabel.as_closest_canonical(volume.slicer[:, :, 84:96])
    np.testing.assert_allclose(nibabel.as_closest_canonical(mask).affine, block.affine, atol=1e-3)
    assert nibabel.as_closest_canonical(mask).shape == block.shape
