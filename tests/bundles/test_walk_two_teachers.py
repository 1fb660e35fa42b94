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

"""The bundle with two teachers: what it promises of XP-Net, and what the commands of its README left behind."""

from __future__ import annotations

import csv
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from monai.bundle import ConfigParser

from monai_kd.bundle import bundle_network
from monai_kd.bundle.prepare_console import root_cause
from monai_kd.data import endoscopy_cases
from tests.bundles import two_ranks
from tests.bundles.journey import BUNDLES, DATA, SMALL, XPNET, resume_state, run_configs
from tests.bundles.test_multi_gpu import free_ports


def train(*overlays: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(BUNDLES[XPNET] / "configs" / file) for file in ("train.yaml", *overlays)])
    return parser


def test_supervised_loss_is_equation_1():
    """Dice + Tversky of each frame, by hand."""
    logits = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    label = (torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.7).float()
    p, axes = logits.sigmoid(), (1, 2, 3)
    overlap, false, missed = (p * label).sum(axes), (p * (1 - label)).sum(axes), ((1 - p) * label).sum(axes)
    dice = 1 - (2 * overlap + 1) / (p.sum(axes) + label.sum(axes) + 1)
    tversky = 1 - (overlap + 1) / (overlap + 0.3 * false + 0.7 * missed + 1)
    for overlay in ((), ("train_teacher2.yaml",)):
        loss = train(*overlay).get_parsed_content("loss")
        torch.testing.assert_close(loss(logits, label), (dice + tversky).mean())


def test_losses_of_pix2pix_are_those_of_lsgan():
    parser = train("train_teacher2.yaml")
    real, fake = torch.randn(2, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    own = parser.get_parsed_content("train::trainer::g_loss_function")
    torch.testing.assert_close(own([real, fake]), 0.01 * (fake - 1).square().mean())
    other = parser.get_parsed_content("train::trainer::d_loss_function")
    torch.testing.assert_close(other([fake, real], [real, fake]), ((real - 1) ** 2 + fake**2).mean() / 2)


def test_teachers_and_student_are_trained_as_the_paper_says():
    for overlays, rate, betas in (
        ((), 1e-4, (0.5, 0.999)),
        (("train_student.yaml",), 1e-4, (0.5, 0.999)),
        (("train_teacher.yaml",), 3e-4, (0.9, 0.999)),
        (("train_teacher2.yaml",), 3e-4, (0.9, 0.999)),
    ):
        parser = train(*overlays)
        parser["ckpt_name"] = "student" if rate > 2e-4 else "teacher_1_only"  # the name of the weights decides nothing
        optimizer, scheduler = (parser.get_parsed_content(name) for name in ("optimizer", "lr_scheduler"))
        assert (type(optimizer), optimizer.defaults["lr"]) == (torch.optim.Adam, rate)
        assert optimizer.defaults["betas"] == betas
        assert (scheduler.step_size, scheduler.gamma) == (30, 0.1)


@pytest.fixture(scope="module")
def options(walked) -> dict[str, Any]:
    """A short distillation from the teachers of the walk, whose weights lie in its folder."""
    folder = walked(XPNET)
    return SMALL[XPNET] | {
        "dataset_dir": str(folder / "data" / DATA[XPNET]),
        "team::teachers": f"$[monai_kd.networks.Teacher(@teacher_def, '{folder / XPNET / 'models'}/' + name + '.pt') "
        "for name in @teachers] if @distil else []",
        "tensorboard": False,
    }


@pytest.mark.slow
def test_videos_are_on_one_side(walked):
    """Of the frames of EndoCV2022 in the evaluation none comes from a sequence that was trained on."""
    folder = walked(XPNET)
    with open(folder / XPNET / "eval" / "model" / "cases.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    own = [row["case"] for row in rows if row["group"] == "EndoCV2022"]
    assert [row["group"] for row in rows] == ["EndoCV2022"] * len(own) + ["Kvasir-SEG"] * 4
    parser = train()
    parser["dataset_dir"] = str(folder / "data" / DATA[XPNET])
    split = parser.get_parsed_content("split")
    cases = {case["case"]: case["sequence"] for case in parser.get_parsed_content("cases")}
    trained, chosen = ({case["sequence"] for case in split[part]} for part in ("train", "validation"))
    held = {cases[case] for case in own}
    assert held
    assert [both for both in (held & trained, held & chosen, trained & chosen) if both] == []
    assert len(cases) == 40 == len(endoscopy_cases(folder / "data" / DATA[XPNET] / "EndoCV2022"))


@pytest.mark.slow
def test_second_teacher_is_another_one(walked):
    weights = [torch.load(walked(XPNET) / XPNET / "models" / f"{name}.pt") for name in ("teacher", "teacher2")]
    for each in weights:
        bundle_network(XPNET, "teacher_def").load_state_dict(each, strict=True)
    assert not torch.equal(weights[0]["head.weight"], weights[1]["head.weight"])
    summary = json.loads((walked(XPNET) / XPNET / "eval" / "teacher2" / "summary.json").read_text())
    assert set(summary) == {"EndoCV2022 polyp", "Kvasir-SEG polyp"}


@pytest.mark.slow
@pytest.mark.parametrize("overlay", [[], ["train_teacher2.yaml"]])
def test_one_epoch_and_one_are_two(options, tmp_path, overlay):
    """Student or generator, discriminator, both optimizers, learning rate and the teacher's turn."""
    configs, name = ["train.yaml", *overlay], "teacher2" if overlay else "model"
    # three steps an epoch: a turn that was lost would begin with the other teacher
    roots = [tmp_path / "whole", tmp_path / "halves"]
    common = options | {"train::trainer::epoch_length": 3, "batch_size": 2}
    run_configs(BUNDLES[XPNET], configs, bundle_root=str(roots[0]), **(common | {"max_epochs": 2}))
    run_configs(BUNDLES[XPNET], configs, bundle_root=str(roots[1]), **common)
    resume = [*configs, "resume.yaml"]
    other = {"gan_weight": 1.0, "tversky_loss::alpha": 0.9} if overlay else {"discriminator_optimizer::lr": 0.01}
    with pytest.raises(RuntimeError) as caught:
        run_configs(BUNDLES[XPNET], resume, bundle_root=str(roots[1]), **(common | {"max_epochs": 2} | other))
    differs = ["gan_weight 0.01 and not 1.0", "tversky_loss::alpha 0.3 and not 0.9"]
    differs = differs if overlay else ["discriminator_optimizer::lr 0.0002 and not 0.01"]
    assert all(each in root_cause(caught.value) for each in differs)
    run_configs(BUNDLES[XPNET], resume, bundle_root=str(roots[1]), **(common | {"max_epochs": 2}))
    one, two = (resume_state(root, 2, name) for root in roots)
    learnt = {"patch_discriminator", "patch_optimizer"} if overlay else {"adversarial", "gain"}
    assert set(one) == {"model", "optimizer", "lr_scheduler", "trainer", "best"} | learnt
    for key in ("model", "optimizer", *learnt):
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=0)
    assert one["lr_scheduler"] == two["lr_scheduler"]
    assert overlay or one["adversarial"]["turn"] == 6


@pytest.mark.slow
def test_no_teacher_and_a_weight_of_0_are_the_student_alone(options, tmp_path):
    runs = {"alone": {"distil": False}, "zero": {"adversarial_weight": "$lambda epochs_done: 0.0"}, "xpnet": {}}
    for name, own in runs.items():
        run_configs(BUNDLES[XPNET], ["train.yaml"], bundle_root=str(tmp_path), **(options | own | {"ckpt_name": name}))
    alone, zero, xpnet = (resume_state(tmp_path, 1, name)["model"] for name in runs)
    torch.testing.assert_close(alone, zero, rtol=0, atol=0)
    assert not torch.equal(alone["head.weight"], xpnet["head.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["teacher", "teacher2"])
def test_one_teacher_is_one_override(options, tmp_path, teacher):
    run = {"teachers": [teacher], "ckpt_name": teacher + "_only"}
    workflow = run_configs(BUNDLES[XPNET], ["train.yaml"], bundle_root=str(tmp_path), **(options | run))
    handler = workflow.parser.get_parsed_content("distillation::1")
    (member,) = handler.teacher.members.values()
    expected = torch.load(Path(options["team::teachers"].split("'")[1]) / f"{teacher}.pt", weights_only=True)
    assert torch.equal(member.network.head.weight, expected["head.weight"])


@pytest.mark.slow
@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs torch with gloo")
def test_two_ranks_keep_one_student_one_generator_and_one_discriminator_each(options, tmp_path):
    multiprocessing.set_forkserver_preload(["tests.bundles.two_ranks"])  # imported once, not by each process
    runs = {"teacher2": (["train.yaml", "train_teacher2.yaml"], {}), "model": (["train.yaml"], {})}
    override = options | {"batch_size": 2, "validate::dataset::data": "@test_cases"}  # two processes need two cases
    torch.multiprocessing.start_processes(
        two_ranks.main,
        args=(str(tmp_path), XPNET, free_ports(2), override, runs),
        nprocs=2,
        start_method="forkserver",
    )
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    for run in runs:
        assert not torch.equal(first[run]["images"], second[run]["images"])
        for part in ("weights", "discriminator"):
            for key, value in first[run][part].items():
                if "running" not in key and "num_batches" not in key:  # DDP leaves those of each rank as they are
                    torch.testing.assert_close(value, second[run][part][key], rtol=0, atol=0)
