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

"""The methods that the papers compare with, as the bundles' compare.yaml has them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer

from monai_kd.networks import FeatureCapture
from monai_kd.networks.isolated_rng import isolated_rng
from tests.bundles.as_trained import without_gain
from tests.bundles.journey import BUNDLES, HEADNECK, KIDNEY, LIVER, ROOT, SKIN, TEAMS, section

EMKD = (LIVER, KIDNEY, HEADNECK)
METHODS = {
    name: list(yaml.safe_load((BUNDLES[name] / "configs" / "compare.yaml").read_text("utf-8"))["methods"])
    for name in (LIVER, SKIN)
}
CASES = [(name, method) for name, methods in METHODS.items() for method in methods]
DOCS = (ROOT / "docs" / "methods" / "comparators.md").read_text("utf-8")


def parsed(name: str, *overlays: str, **values: Any) -> ConfigParser:
    """A bundle's training with networks from random weights."""
    parser = ConfigParser()
    parser.read_config([str(BUNDLES[name] / "configs" / file) for file in ("train.yaml", *overlays)])
    parser.update({"teacher_ckpt": None, "device": torch.device("cpu")} | values)
    if name == SKIN:
        parser.update({"teacher_def::backbone": "tiny", "image_size": [64, 64], "channels": [512, 128]})
    return without_gain(parser)


def step(parser: ConfigParser, name: str) -> tuple[torch.Tensor, dict[str, torch.Tensor], Any]:
    """One step on random images: the student's gradient, what is logged, and the trainer."""
    torch.manual_seed(0)
    with isolated_rng():  # a module may have any weights, a callable needs a checkpoint
        parser["teacher_def"] = parser.get_parsed_content("teacher_def")()
    student = parser.get_parsed_content("network")
    handlers = [handler for handler in parser.get_parsed_content("distillation") if handler is not None]
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 3 if name == SKIN else 1, 64, 64, generator=generator)
    label = (torch.nn.functional.avg_pool2d(image[:, :1], 17, 1, 8) > 0).float()
    trainer = SupervisedTrainer(
        torch.device("cpu"),
        1,
        [{"image": image, "label": label}],
        student,
        torch.optim.SGD(student.parameters(), 0.0),
        parser.get_parsed_content("loss"),
        train_handlers=handlers,
        decollate=False,
    )
    trainer.run()
    return torch.cat([parameter.grad.flatten() for parameter in student.parameters()]), trainer.state.output, trainer


@pytest.fixture(scope="module")
def alone() -> dict[str, torch.Tensor]:
    return {name: step(parsed(name, "train_student.yaml"), name)[0] for name in METHODS}


@pytest.mark.parametrize(("name", "method"), CASES)
def test_method_teaches(alone, name, method):
    """Each of its terms has a gradient that is finite and not 0, and what is trained beside the student is kept."""
    parser = parsed(name, "compare.yaml", method=f"@methods::{method}")
    gradient, output, trainer = step(parser, name)
    assert torch.isfinite(gradient).all()
    assert not torch.equal(gradient, alone[name])
    terms = parser.get_parsed_content("distillation::0::terms")
    names = [term.name for term in terms]
    assert method in names or (method == "emkd" and names == ["pmd", "imd", "rad"])
    for term in names:
        assert 0 < float(output[f"loss_{term}"]) < float("inf")
        assert f"| `{term}` |" in DOCS or term in ("kd", "pmd", "imd", "rad")
    adapters = [parameter for term in terms for adapter in term.adapters for parameter in adapter.parameters()]
    optimized = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert all(id(parameter) in optimized for parameter in adapters)
    assert bool(adapters) is (method in ("fitnet", "mimic"))
    assert parser.get("resume::states")["distillation"] == "@distillation::0"


NETWORKS = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|.*\| `([\w.]+)` (\d+) \| `([\w.]+)` (\d+) \|$", DOCS, re.M)


@pytest.mark.parametrize(("network", "size", "low", "low_channels", "high", "high_channels"), NETWORKS)
def test_network_teaches_or_learns(network, size, low, low_channels, high, high_channels):
    """With EMKD's terms at the layers of the page, without an adapter."""
    who = "teacher" if network in ("RAUNet", "PSPNet", "DeepLabV3Plus") else "student"
    target = f"monai_kd.networks.nets.{network}"
    values = {f"{who}_def::_target_": target}
    if network == "DeepLabV3Plus":  # it takes no weights of an encoder
        values = {"teacher_def": {"_target_": target, "_mode_": "callable", "in_channels": 1, "out_channels": 2}}
    parser = parsed(LIVER, **values, **{f"{who}_layers": [low, high]})
    built = parser.get_parsed_content("network_def") if who == "student" else parser.get_parsed_content("teacher_def")()
    assert sum(parameter.numel() for parameter in built.parameters()) == int(size.replace(",", ""))
    capture = FeatureCapture(built.eval(), [low, high])
    built(torch.zeros(1, 1, 64, 64))
    shapes = [tuple(capture.features[layer].shape[1:]) for layer in (low, high)]
    capture.remove()
    assert shapes == [(int(low_channels), 32, 32), (int(high_channels), 8, 8)]
    gradient, output, _ = step(parser, LIVER)
    assert torch.isfinite(gradient).all()
    assert all(0 < float(output[f"loss_{term}"]) < float("inf") for term in ("pmd", "imd", "rad"))


def test_page_has_all_networks():
    assert [row[0] for row in NETWORKS] == [
        *("RAUNet", "PSPNet", "DeepLabV3Plus", "ENet", "ESPNet", "ERFNet", "MobileNetV2Seg", "ResNet18Seg")
    ]


@pytest.mark.parametrize("name", METHODS)
def test_readme_has_each_method(name):
    text = section((BUNDLES[name] / "docs" / "README.md").read_text("utf-8"), "Other methods")
    assert re.findall(r"--method @methods::(\w+) --ckpt_name (\w+)`", text) == [(each, each) for each in METHODS[name]]


def test_bundles_of_a_method_share_it():
    for family in (EMKD, TEAMS):
        assert len({(BUNDLES[name] / "configs" / "compare.yaml").read_text("utf-8") for name in family}) == 1
        readmes = [(BUNDLES[name] / "docs" / "README.md").read_text("utf-8") for name in family]
        assert len({section(readme, "Other methods") for readme in readmes}) == 1
