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

"""What a distillation of a bundle will do, found before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

import monai_kd
from monai_kd.bundle.bundle_parts import BundleParts
from monai_kd.bundle.read_fraction import read_fraction
from monai_kd.bundle.trainer_parts import size
from monai_kd.networks import Teacher, shrink
from monai_kd.networks.bundle_importable import bundle_importable
from monai_kd.networks.shrink import build, flops_of, shrink_to_flops
from monai_kd.networks.weights_checksum import weights_checksum

FIRST = "1/4"  # of the widths, where nothing is asked for


@dataclass
class Plan:
    """
    Who teaches whom, by what, and where it goes.

    Args:
        parts: of the teacher's bundle.
        teacher: its network with its weights.
        block: arguments of the student's network.
        student: a network of them.
        vectors: whether they give one vector of logits for an image.
        output: folder of the student's bundle.
        terms: a YAML file with terms, or "" for the divergence of the outputs.
        weight: of that divergence, ``auto`` or a number.
        baseline: weights of the student alone, or "".
    """

    parts: BundleParts
    teacher: nn.Module
    block: dict[str, Any]
    student: nn.Module
    vectors: bool
    output: Path
    terms: str
    weight: str | float
    baseline: str

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the student's bundle says of itself."""
        facts: dict[str, Any] = {
            "teacher": self.parts.folder.name,
            "teacher_weights": f"{weights_checksum(self.teacher):08x}",
            "teacher_parameters": size(self.teacher),
            "parameters": size(self.student),
            "terms": self.terms or f"KDLoss(temperature=1, activation={self.parts.activation!r})",
            "weight": self.weight,
            "monai_kd": monai_kd.__version__,
        }
        if self.parts.input_shape:
            shape = self.parts.input_shape
            facts["flops"] = flops_of(self.student, shape)
            facts["teacher_flops"] = flops_of(self.teacher, shape)
            facts["input_shape"] = list(shape)
        return facts

    def text(self) -> str:
        """The plan in a few lines."""
        parts, facts = self.parts, self.facts
        changed = {key: value for key, value in self.block.items() if parts.block.get(key) != value}
        share = f"{facts['parameters'] / facts['teacher_parameters']:.1%} of its parameters"
        if "flops" in facts:
            share += f", {facts['flops'] / facts['teacher_flops']:.1%} of its FLOPs"
        kind = str(self.block.get("_target_", "")).rpartition(".")[2]
        lines = [
            f"teacher: {type(self.teacher).__name__} of {parts.folder}, {facts['teacher_parameters']:,} parameters, "
            f"weights {parts.weights}",
            f"student: {kind}, {facts['parameters']:,} parameters, {share}; {changed}",
            f"terms: {facts['terms']}, weight {self.weight}",
            f"in: trainer {parts.trainer}, network {parts.network}, validated by {parts.evaluator or 'nothing'}",
            f"to: {self.output}",
        ]
        lines += [f"left out: {name}, which would load weights into the student" for name in parts.loaders]
        return "\n".join(lines)


def make_plan(
    parts: BundleParts, student: Any, flops: Any, output: Path, terms: str, weight: Any, baseline: str
) -> Plan:
    """
    Load the teacher, describe the student, and check that their outputs can be compared.

    Args:
        parts: of the teacher's bundle.
        student: a part of the widths, or a file with the block of a network.
        flops: in place of it, a part of the operations.
        output: folder of the student's bundle.
        terms: a YAML file with terms, or "".
        weight: of the divergence of the outputs, ``auto`` or a number.
        baseline: weights of the student alone, or "".

    Raises:
        ValueError: when the student cannot be made, or cannot learn from this teacher.
    """
    with bundle_importable(parts.folder):
        teacher = build(parts.block)
        Teacher(teacher, parts.weights)  # loads the weights, and refuses those of another network
        block = _block(parts, student, flops)
        network = build(block)
    vectors = _check_outputs(teacher, network, parts)
    weight = weight if weight == "auto" else read_fraction("weight", weight)
    return Plan(parts, teacher, block, network, vectors, output, terms, weight, baseline)


def _block(parts: BundleParts, student: Any, flops: Any) -> dict[str, Any]:
    """The arguments of the student's network."""
    if student != "" and flops != "":
        raise ValueError("`student` or `flops` must be given, but got both.")
    if flops != "":
        if parts.input_shape is None:
            raise ValueError(
                "`flops` must be counted for the image of configs/metadata.json, but got no spatial_shape of numbers "
                "there; use --student."
            )
        text = str(flops).strip()
        share = read_fraction("flops", text.rstrip("%")) / (100 if text.endswith("%") else 1)
        return shrink_to_flops(parts.block, share, parts.input_shape)
    if str(student).endswith((".yaml", ".yml", ".json")):
        return _block_of_file(Path(student), parts)
    return shrink(parts.block, read_fraction("student", student or FIRST))


def _block_of_file(path: Path, parts: BundleParts) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"`student` must be a part as 1/4 or an existing file, but got {path}.")
    content = ConfigParser.load_config_file(str(path))
    content = content.get(parts.network, content) if isinstance(content, Mapping) else {}
    if "_target_" not in content:
        raise ValueError(f"`student` must be a file with a `_target_` block, but got {path}.")
    parser = ConfigParser(dict(parts.config) | {"student": dict(content)})
    with bundle_importable(parts.folder):
        return dict(parser.get_parsed_content("student", instantiate=False).config)


def _check_outputs(teacher: nn.Module, student: nn.Module, parts: BundleParts) -> bool:
    """Refuse networks whose outputs cannot be compared, before data is read; True for one vector for an image."""
    if parts.input_shape is None:
        return False
    outputs = []
    for name, network in (("teacher", teacher), ("student", student)):
        try:
            with torch.no_grad():
                output = network.eval()(torch.zeros(parts.input_shape))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the {name} must take an image {tuple(parts.input_shape)} alone, but {type(network).__name__} "
                f"raises {type(error).__name__}: {reason}"
            ) from error
        output = output[0] if isinstance(output, (list, tuple)) and len(output) else output
        if not isinstance(output, torch.Tensor):
            raise ValueError(
                f"the {name} must give one tensor of logits or a list of them, but {type(network).__name__} gives a "
                f"{type(output).__name__}; such networks cannot be distilled by this command."
            )
        outputs.append(output)
    first, second = outputs
    if first.shape != second.shape:
        raise ValueError(
            f"`student` must give the output of its teacher, {tuple(first.shape)}, but got {tuple(second.shape)}."
        )
    maps = tuple(first.shape[2:]) == tuple(parts.input_shape[2:])
    if not maps and first.ndim != 2:
        raise ValueError(
            "the teacher must give logits for each pixel (segmentation) or for an image (classification), but got "
            f"{tuple(first.shape)} for an image {tuple(parts.input_shape)}."
        )
    return first.ndim == 2
