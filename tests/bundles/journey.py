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

"""The way of a user through the README of a bundle, on phantoms: all of its commands, as they stand there."""

from __future__ import annotations

import logging
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import av
import nibabel
import numpy as np
import torch
from monai.utils import set_determinism
from PIL import Image

from monai_kd.bundle import KDWorkflow
from monai_kd.data import (
    ct_phantom,
    endoscopy_phantom,
    write_dicom_series,
    write_endoscopy_phantoms,
    write_phantoms,
)

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = {path.name: path for path in sorted((ROOT / "bundles").iterdir()) if (path / "configs").is_dir()}
LIVER, KIDNEY, HEADNECK = "liver_tumor_ct_emkd", "kidney_tumor_ct_emkd", "headneck_organs_ct_emkd"
POLYP, XPNET = "polyp_endoscopy_kdas", "polyp_endoscopy_xpnet"
SKIN, ENDOSCENE, DISC = "skin_lesion_dermoscopy_plckd", "polyp_endoscopy_plckd", "optic_disc_fundus_plckd"
CT = [LIVER, KIDNEY, HEADNECK]  # those that distil with EMKD
TEAMS = [SKIN, ENDOSCENE, DISC]  # those with a teacher team
PHOTOS = [POLYP, XPNET, *TEAMS]
EXPORT = "python -m monai_kd export"
# what makes a training short; everything else is as it ships
TINY: dict[str, Any] = {"max_epochs": 1, "val_interval": 1, "num_workers": 0, "batch_size": 4, "progress": False}
TINY["train::trainer::epoch_length"] = 2
TEAM = TINY | {"image_size": [64, 64], "teacher_def::backbone": "tiny", "false_pixel_queues::length": 64}
SMALL: dict[str, dict[str, Any]] = {
    LIVER: TINY | {"patch_size": [64, 64]},
    KIDNEY: TINY | {"patch_size": [64, 64]},
    HEADNECK: dict(TINY),
    POLYP: TINY | {"image_size": [64, 64]},
    XPNET: TINY | {"image_size": [64, 64]},
    **dict.fromkeys(TEAMS, TEAM),
}
SMALL_3D = {"patch_size": [32, 32, 16], "batch_size": 1}
DATA = {LIVER: "LiTS", KIDNEY: "kits19/data", HEADNECK: "headneck", POLYP: "polyps", XPNET: "polyps"}
DATA |= {SKIN: "ISIC2017", ENDOSCENE: "CVC-EndoSceneStill", DISC: "IDRiD"}
# of the twins of SKIN, whose configurations differ by their data only (test_walk_team.py): what other tests build on
TWINS = [ENDOSCENE, DISC]
TWINS_WALK = ("StagedWorkflow", "train_student", "evaluate", "report", "inference", "export")


def write_data(name: str, folder: Path) -> None:
    """The data set of a bundle as its README says, and scans for inference, in `folder` instead of /workspace/data."""
    target = folder / DATA[name]
    if name in (POLYP, XPNET):
        _write_frames(target, name)
        return
    if name in TEAMS:
        _write_photos(name, target)
        return
    if name == LIVER:
        write_phantoms(target, "lits", num_cases=6, size=64, num_slices=5, progress=False)
    elif name == KIDNEY:
        write_phantoms(target, "kits19", num_cases=6, size=64, num_slices=5, organ="kidney", progress=False)
    else:
        _write_organs(target)
    for number in (0, 1):
        phantom = ct_phantom(seed=100 + number, size=64, num_slices=5)
        write_dicom_series(folder / "dicom" / f"1.2.{number}", phantom.image, phantom.affine, name=f"case{number}")
    nibabel.save(nibabel.Nifti1Image(phantom.image, phantom.affine), folder / "scan.nii.gz")


def _write_frames(folder: Path, name: str) -> None:
    if name == POLYP:
        write_endoscopy_phantoms(folder, "pranet", num_frames=40, size=64, progress=False)
    else:
        write_endoscopy_phantoms(folder / "EndoCV2022" / "PolypGen2.0", "endocv2022", 40, size=64, progress=False)
        write_endoscopy_phantoms(folder / "Kvasir-SEG", "kvasir", num_frames=4, size=64, progress=False)
    _write_video(folder.parent / "video.mp4")


def _write_video(path: Path) -> None:
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(3):
            pixels = endoscopy_phantom(seed=number, size=64).image
            video.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        video.mux(stream.encode())


def _write_photos(name: str, folder: Path) -> None:
    """The data set of a teacher team as it is published, its images photographs with something roundish in them."""
    for number, (image, mask) in enumerate(_photos(name, folder)):
        phantom = endoscopy_phantom(seed=number, size=64)
        for path, pixels in ((image, phantom.image), (mask, 255 * (phantom.label > 0).astype(np.uint8))):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    if name == ENDOSCENE:
        _write_video(folder.parent / "video.mp4")


def _photos(name: str, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Where an image and its mask are."""
    if name == SKIN:
        for split, numbers in (("Training", range(12)), ("Validation", range(12, 15)), ("Test_v2", range(15, 20))):
            images, masks = (folder / f"ISIC-2017_{split}_{kind}" for kind in ("Data", "Part1_GroundTruth"))
            for number in numbers:
                yield images / f"ISIC_{number:07d}.jpg", masks / f"ISIC_{number:07d}_segmentation.png"
    elif name == ENDOSCENE:  # some frames of each part of its split
        for part, suffix, numbers in (
            ("CVC-300", "bmp", (*range(1, 7), 77, 149, 150)),
            ("CVC-612", "tif", (*range(26, 32), 51, 52, 1, 2, 3)),
        ):
            for number in numbers:
                yield folder / part / "bbdd" / f"{number}.bmp", folder / part / "gtpolyp" / f"{number}.{suffix}"
    else:
        images, masks = (
            folder / "A. Segmentation" / kind for kind in ("1. Original Images", "2. All Segmentation Groundtruths")
        )
        for split, numbers in (("a. Training Set", range(1, 16)), ("b. Testing Set", range(55, 60))):
            for number in numbers:
                yield (
                    images / split / f"IDRiD_{number:02d}.jpg",
                    masks / split / "5. Optic Disc" / f"IDRiD_{number:02d}_OD.tif",
                )


def _write_organs(folder: Path) -> None:
    for number in range(6):
        phantom = ct_phantom(seed=number, size=72, num_slices=9)
        left = np.arange(72)[:, None, None] >= np.nonzero(phantom.label)[0].mean()
        label = phantom.label + 2 * (left & (phantom.label > 0)).astype(np.uint8)  # four organs of two
        for kind, array in (("images", phantom.image), ("masks", label)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            image = nibabel.Nifti1Image(array, phantom.affine)
            nibabel.save(image, folder / kind / f"case_{number}.nii.gz")
    splits = ["validation", "validation", "train", "train", "train", "train"]
    rows = ", ".join(f'{{"case": "case_{number}", "split": "{split}"}}' for number, split in enumerate(splits))
    (folder / "cases.json").write_text(f"[{rows}]")


def section(readme: str, title: str) -> str:
    """The text below a heading, down to the next of its rank."""
    rank = re.search(rf"^(#+) {re.escape(title)}$", readme, re.M)
    assert rank, f"no heading {title!r}"
    return re.split(rf"^#{{1,{len(rank[1])}}} ", readme[rank.end() :], maxsplit=1, flags=re.M)[0]


def commands(readme: str) -> list[str]:
    """The commands of a bundle's README, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", section(readme, "MONAI Bundle Commands"), re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def ablations(readme: str) -> dict[str, str]:
    """The overrides of each row in a README's table of objectives."""
    return dict(re.findall(r"^\| ([^|`]+?)(?: \(.*\))? \| `(--[^`]*)` \|$", section(readme, "Terms and weights"), re.M))


def shortened(command: str, name: str, data: Path) -> list[str]:
    """The words of a command, with `data` for /workspace/data and the overrides that make it short."""
    command = re.sub(r"(--shape 1,\d+),\d+,\d+", r"\1,64,64", command.replace("/workspace/data", str(data)))
    words = shlex.split(command)
    if command.startswith(EXPORT) and name not in (LIVER, POLYP):  # the others' networks are these, or MONAI's
        words = [word.replace(",onnx", "") for word in words]
    if "report" in words and name in TWINS:  # without the cost of the networks, which are SKIN's
        del words[words.index("--bundle") : words.index("--output")]
    extra: dict[str, Any] = {}
    if "train.yaml" in command and " run" in command:
        extra = SMALL[name] | {"dataset_dir": str(data / DATA[name])}
        extra |= SMALL_3D if "train_3d" in command else {}
        extra |= {"max_epochs": 2} if "resume" in command else {}
        if command.startswith("torchrun"):  # two processes need two cases
            extra["validate::dataset::data"] = "@test_cases" if name in PHOTOS else "$@split['test']"
        if "evaluate" in command:
            extra = {key: value for key, value in extra.items() if key != "train::trainer::epoch_length"}
    elif "inference.json" in command and " run" in command:
        extra = {key: SMALL[name][key] for key in ("patch_size", "image_size") if key in SMALL[name]}
        extra |= {"patch_size": SMALL_3D["patch_size"]} if "inference_3d" in command else {}
    return [*words, *(word for key, value in extra.items() for word in (f"--{key}", str(value)))]


@contextmanager
def undisturbed() -> Iterator[None]:
    """A run in this process leaves logging, search path and determinism as they were, and warns nobody."""
    root, path, argv = logging.getLogger(), list(sys.path), list(sys.argv)
    handlers, level, hook = list(root.handlers), root.level, sys.excepthook
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:], root.level, sys.path[:], sys.argv[:] = handlers, level, path, argv
        sys.excepthook = hook
        set_determinism(seed=None)
        torch.use_deterministic_algorithms(False)


def run_command(words: list[str], folder: Path) -> None:
    """Run a command of the README from a folder: torchrun in processes of its own, the rest in this one."""
    if words[0] == "torchrun":
        words = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return
    assert words[:2] == ["python", "-m"], words
    with undisturbed(), chdir(folder):
        sys.argv[:] = words[2:]
        try:
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            if stop.code:
                raise RuntimeError(f"{words}: exit {stop.code}") from stop


def resume_state(root: Path, epoch: int, name: str = "model") -> dict[str, Any]:
    """What a run wrote to its root after an epoch, to be resumed from."""
    return torch.load(root / "models" / "resume" / f"{name}_checkpoint_epoch={epoch}.pt", weights_only=True)


def run_configs(bundle: Path, configs: list[str], **override: Any) -> KDWorkflow:
    """Run configurations of a bundle in this process; returns the workflow."""
    with undisturbed():
        files = [str(bundle / "configs" / config) for config in configs]
        workflow = KDWorkflow(config_file=files, logging_file=False, **override)
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        return workflow


def is_walked(name: str, command: str) -> bool:
    """Whether a command of a README is run for this bundle, see `walk`."""
    if name in TWINS:
        return any(word in command for word in TWINS_WALK)
    return name == LIVER or not command.startswith("torchrun")


def walk(name: str, folder: Path) -> dict[str, float]:
    """
    Copy a bundle, write data for it, and run all commands of its README in order; the slowest of LiTS alone, the
    export to ONNX of each network once, and of the twins of SKIN what differs (TWINS_WALK).

    Returns:
        the seconds that each command took.
    """
    bundle = folder / name
    shutil.copytree(BUNDLES[name], bundle, ignore=shutil.ignore_patterns("models", "eval", "cache"))
    write_data(name, folder / "data")
    seconds = {}
    for command in commands((bundle / "docs" / "README.md").read_text("utf-8")):
        if is_walked(name, command):
            start = time.monotonic()
            run_command(shortened(command, name, folder / "data"), bundle)
            seconds[command] = time.monotonic() - start
    for checkpoint in [*(bundle / "models").rglob("resume/teacher*"), *(bundle / "models").rglob("resume/assistant*")]:
        checkpoint.unlink()  # a quarter of a gigabyte each
    return seconds
