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

"""docs/deploy/run_exported_volumes.py: what it writes beside what the bundle writes, without torch and MONAI."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from monai_kd.bundle.export_metadata import export_metadata
from monai_kd.cli.export import export
from monai_kd.data import ct_phantom, write_dicom_series
from tests.bundles.journey import ROOT, run_configs

SCRIPT = ROOT / "docs" / "deploy" / "run_exported_volumes.py"
script = runpy.run_path(str(SCRIPT))
CONV = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 3, "kernel_size": 3, "padding": 1}
NETWORK_3D = CONV | {"_target_": "torch.nn.Conv3d"}
META = {
    "version": "0.1.0",
    "network_data_format": {
        "inputs": {"image": {"num_channels": 1}},
        "outputs": {"pred": {"num_channels": 3, "channel_def": {"0": "background", "1": "organ", "2": "tumor"}}},
    },
}
SAVE = {
    "_target_": "SaveImaged",
    "keys": "pred",
    "output_dir": "@output_dir",
    "output_postfix": "",
    "output_dtype": "$torch.uint8",
    "separate_folder": False,
}


def config(network: dict[str, Any], before: list[Any], inferer: dict[str, Any], after: list[Any]) -> dict[str, Any]:
    """A configuration for inference."""
    load = {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True}
    return {
        "imports": ["$import glob", "$import torch"],
        "bundle_root": ".",
        "output_dir": "masks",
        "dataset_dir": "scans",
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "network_def": network,
        "preprocessing": {"_target_": "Compose", "transforms": [load, *before]},
        "files": "$sorted(glob.glob(@dataset_dir + '/*.nii.gz'))",
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': file} for file in @files]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": inferer,
        "postprocessing": {"_target_": "Compose", "transforms": [*after, SAVE]},
        "handlers": [
            {"_target_": "CheckpointLoader", "load_path": "@ckpt_path", "load_dict": {"model": "@network_def"}}
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "$torch.device('cpu')",
            "val_data_loader": "@dataloader",
            "network": "@network_def",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


TURN = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None}
WINDOW = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -100, "a_max": 200, "b_min": 0, "b_max": 1}
WINDOW |= {"clip": True}
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}


def back(nearest: bool) -> dict[str, Any]:
    keys = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
    return keys | {"nearest_interp": nearest}


def spacing(*size: float) -> dict[str, Any]:
    return {"_target_": "Spacingd", "keys": "image", "pixdim": list(size), "mode": "bilinear"}


CONFIGS = {
    "slices": config(
        CONV,
        [TURN, WINDOW, {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": [20, 30, -1]}],
        {"_target_": "SliceInferer", "roi_size": [16, 16], "spatial_dim": 2, "overlap": 0.25},
        [ARGMAX, back(nearest=True)],
    ),
    "volumes": config(
        NETWORK_3D,
        [TURN, spacing(1.7, 1.3, 2.5), WINDOW],
        {"_target_": "SlidingWindowInferer", "roi_size": [16, 12, 8], "overlap": 0.5, "mode": "gaussian"},
        [SOFTMAX, back(nearest=False), ARGMAX],
    ),
    "classes brought back": config(
        NETWORK_3D,
        [TURN, spacing(1.1, 1.9, 2.2), WINDOW],
        {"_target_": "SlidingWindowInferer", "roi_size": [40, 16, 8], "overlap": 0.25},
        [ARGMAX, back(nearest=True)],
    ),
}


@pytest.fixture(params=CONFIGS)
def bundle(request, tmp_path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    content = CONFIGS[request.param]
    (folder / "configs" / "inference.json").write_text(json.dumps(content))
    (folder / "configs" / "metadata.json").write_text(json.dumps(META))
    torch.manual_seed(0)
    network = ConfigParser({"network": content["network_def"]}).get_parsed_content("network")
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture
def scans(tmp_path) -> Path:
    """Four orientations, three spacings, one of them oblique."""
    folder = tmp_path / "scans"
    folder.mkdir()
    turned = ("RAS", "LPS", "PIR", "ASL")
    sizes = ((1.5, 1.5, 2.0), (1.0, 2.0, 3.0), (2.0, 0.9, 2.5), (1.2, 1.2, 1.2))
    for number, (codes, size) in enumerate(zip(turned, sizes)):
        phantom = ct_phantom(seed=number, size=32, num_slices=12)
        affine = np.diag([*size, 1.0])
        affine[:3, 3] = -20, 7, 30
        if number == 3:
            angle = 0.2
            rotation = np.eye(4)
            rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            affine = rotation @ affine
        image = nibabel.Nifti1Image(phantom.image, affine)
        table = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(codes)
        )
        nibabel.save(image.as_reoriented(table), folder / f"scan{number}.nii.gz")
    return folder


def network_of(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The bundle's network in torch, as the script calls one, and the block that an export would write."""
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.read_meta(META)
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    block = export_metadata(parser, network)

    def call(windows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(windows)).numpy()

    return call, block


def test_masks_are_those_of_the_bundle(bundle, scans, tmp_path):
    """In all but one voxel of 10,000, and of the same geometry."""
    run_configs(bundle, ["inference.json"], dataset_dir=str(scans), output_dir=str(tmp_path / "monai"))
    network, block = network_of(bundle)
    for path in sorted(scans.iterdir()):
        mask = script["segment"](script["load"](path), network, block)
        expected = nibabel.load(tmp_path / "monai" / path.name)
        values = np.asarray(expected.dataobj)
        assert mask.voxels.shape == values.shape == nibabel.load(path).shape
        np.testing.assert_allclose(mask.affine, expected.affine, atol=1e-4)
        assert len(np.unique(values)) > 1
        assert np.mean(mask.voxels == values) >= 0.9999


@pytest.mark.slow
def test_exported_file_runs_without_torch_and_monai(bundle, scans, tmp_path):
    if "Slice" not in (bundle / "configs" / "inference.json").read_text():
        pytest.skip("one file is enough")
    pytest.importorskip("onnxruntime")
    export(str(bundle), formats="onnx", output_dir=str(tmp_path / "file"))
    model = tmp_path / "file" / "model.onnx"
    phantom = ct_phantom(seed=9, size=32, num_slices=6)
    write_dicom_series(scans / "series", phantom.image, phantom.affine, name="case")
    (scans / "broken.nii.gz").write_bytes(b"nothing")
    words = [str(SCRIPT), str(model), str(scans), "--output", str(tmp_path / "masks")]
    code = (
        "import runpy, sys; sys.modules.update(dict.fromkeys(['torch', 'monai', 'monai_kd'])); "
        f"sys.argv = {words!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "1 of 6 volumes could not be read" in done.stderr
    assert "broken.nii.gz cannot be read" in done.stderr
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [
        *(f"scan{number}.nii.gz" for number in range(4)),
        "series.nii.gz",
    ]
    network, block = network_of(bundle)
    for path in [scans / "scan1.nii.gz", scans / "series"]:
        mask = script["segment"](script["load"](path), network, block)
        name = path.name.removesuffix(".nii.gz")
        written = nibabel.load(tmp_path / "masks" / f"{name}.nii.gz")
        assert np.mean(np.asarray(written.dataobj) == mask.voxels) >= 0.9999


def test_series_is_the_volume_that_was_written(tmp_path):
    phantom = ct_phantom(seed=0, size=32, num_slices=5)
    write_dicom_series(tmp_path / "series", phantom.image, phantom.affine, name="case")
    volume = script["load"](tmp_path / "series")
    turned = script["turn"](volume, script["orientation"](volume.affine, "RAS")[0])
    expected = nibabel.as_closest_canonical(nibabel.Nifti1Image(phantom.image, phantom.affine))
    np.testing.assert_allclose(turned.voxels, np.asarray(expected.dataobj))
    np.testing.assert_allclose(turned.affine, expected.affine, atol=1e-4)


def test_series_without_a_slice_is_refused(tmp_path):
    phantom = ct_phantom(seed=0, size=32, num_slices=5)
    write_dicom_series(tmp_path / "series", phantom.image, phantom.affine, name="case")
    sorted((tmp_path / "series").iterdir())[2].unlink()
    with pytest.raises(ValueError, match="equally far apart, but some are missing"):
        script["load"](tmp_path / "series")


@pytest.mark.parametrize(("length", "side", "overlap"), [(10, 4, 0.25), (10, 10, 0.5), (7, 12, 0.5), (33, 8, 0.6)])
def test_windows_cover_the_axis_to_its_end(length, side, overlap):
    begins = script["starts"](length, side, overlap)
    covered = {place for begin in begins for place in range(begin, min(begin + side, length))}
    assert covered == set(range(length))
    assert begins[-1] == max(0, length - side)


def test_student_of_frames_is_refused(tmp_path):
    block = dict.fromkeys(script["ENTRIES"]) | {"reader": "LoadRGB", "in_channels": 3, "channels": "RGB"}
    with pytest.raises(ValueError, match=r"volumes of one channel, but got one of 3 .*; run_exported.py is for frames"):
        script["_block"](json.dumps(block), tmp_path / "model.onnx")
