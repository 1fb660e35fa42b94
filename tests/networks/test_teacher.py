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

"""The teacher from all that it may be made of, and that it only ever speaks."""

from __future__ import annotations

import copy
import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.handlers import CheckpointSaver
from monai.networks.nets import UNet
from torch import nn

from monai_kd.networks import Teacher
from monai_kd.networks.teacher import as_outputs
from tests.handlers.training import make_trainer

UNET: dict[str, Any] = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (2, 4), "strides": (2,)}


class Moody(nn.Module):
    """A network that answers otherwise in train mode, and remembers that it was."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 2, 1)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


def make_unet() -> UNet:
    return UNet(**UNET)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 1, 16, 16)


@pytest.fixture
def trained() -> UNet:
    """Weights other than those that a new network has."""
    with torch.random.fork_rng():
        torch.manual_seed(99)
        return make_unet().eval()


@pytest.fixture
def bundle(tmp_path: Path, trained: UNet) -> Path:
    """The folder of a bundle, with a reference and an expression in its configuration."""
    for folder in ("configs", "models"):
        (tmp_path / "bundle" / folder).mkdir(parents=True)
    definition = {"_target_": "UNet"} | UNET | {"channels": [2, 4], "strides": [2], "out_channels": "$len(@names)"}
    config = {"names": ["background", "liver"], "network_def": definition}
    (tmp_path / "bundle" / "configs" / "inference.json").write_text(json.dumps(config))
    torch.save(trained.state_dict(), tmp_path / "bundle" / "models" / "model.pt")
    return tmp_path / "bundle"


class TestSources:
    def test_module(self, trained, image):
        expected = trained(image)
        teacher = Teacher(trained)
        assert teacher.network is trained
        assert torch.equal(teacher(image).logits, expected)

    @pytest.mark.parametrize("build", [make_unet, functools.partial(UNet, **UNET), lambda: make_unet().train()])
    @pytest.mark.parametrize("form", ["plain", "entry", "module.", "_orig_mod."])
    def test_callable_and_checkpoint(self, trained, image, tmp_path, build, form):
        weights = trained.state_dict()
        if form.endswith("."):
            weights = {form + name: value for name, value in weights.items()}
        torch.save({"model": weights} if form == "entry" else weights, tmp_path / "model.pt")
        assert torch.equal(Teacher(build, tmp_path / "model.pt")(image).logits, trained(image))

    def test_checkpoint_of_a_trainer(self, trained, image, tmp_path):
        network = make_unet()
        trainer = make_trainer(network, epochs=1)
        saved = {"network": network, "optimizer": trainer.optimizer, "trainer": trainer}
        CheckpointSaver(str(tmp_path), saved, save_final=True, final_filename="final.pt").attach(trainer)
        trainer.run()
        assert torch.equal(Teacher(make_unet, tmp_path / "final.pt")(image).logits, network.eval()(image))

    def test_entry_of_a_checkpoint(self, trained, image, tmp_path):
        torch.save({"student": make_unet().state_dict(), "ema": trained.state_dict()}, tmp_path / "model.pt")
        teacher = Teacher(make_unet, tmp_path / "model.pt", checkpoint_key="ema")
        assert torch.equal(teacher(image).logits, trained(image))

    def test_safetensors(self, trained, image, tmp_path):
        pytest.importorskip("safetensors.torch").save_file(trained.state_dict(), tmp_path / "model.safetensors")
        assert torch.equal(Teacher(make_unet, str(tmp_path / "model.safetensors"))(image).logits, trained(image))

    @pytest.mark.parametrize("kind", [str, Path])
    def test_bundle(self, trained, image, bundle, kind):
        assert torch.equal(Teacher(kind(bundle))(image).logits, trained(image))

    def test_bundle_in_yaml(self, trained, image, bundle):
        config = json.loads((bundle / "configs" / "inference.json").read_text())
        (bundle / "configs" / "inference.json").unlink()
        (bundle / "configs" / "train.yaml").write_text(yaml.safe_dump(config))
        assert torch.equal(Teacher(bundle)(image).logits, trained(image))

    def test_bundle_with_other_weights(self, image, bundle, tmp_path):
        other = make_unet().eval()
        torch.save(other.state_dict(), tmp_path / "other.pt")
        assert torch.equal(Teacher(bundle, tmp_path / "other.pt")(image).logits, other(image))

    @pytest.mark.parametrize(
        "compiler", [torch.jit.script, lambda net: torch.jit.trace(net, torch.zeros(1, 1, 16, 16))]
    )
    def test_torchscript(self, image, tmp_path, compiler):
        network = Moody().train()
        compiler(network.eval() if compiler is not torch.jit.script else network).save(str(tmp_path / "model.ts"))
        teacher = Teacher(str(tmp_path / "model.ts"))
        torch.testing.assert_close(teacher(image).logits, network.eval()(image))
        assert not any(parameter.requires_grad for parameter in teacher.parameters())

    def test_compiled_network(self, trained, image, tmp_path):
        torch.save(trained.state_dict(), tmp_path / "model.pt")
        teacher = Teacher(torch.compile(make_unet(), backend="eager"), tmp_path / "model.pt")
        assert torch.equal(teacher(image).logits, trained(image))

    def test_yaml(self, trained, image, tmp_path):
        torch.save(trained.state_dict(), tmp_path / "model.pt")
        (tmp_path / "train.yaml").write_text(
            f"""
            checkpoint: {tmp_path}/model.pt
            network_def: {{_target_: torch.nn.Conv2d, in_channels: 1, out_channels: 2, kernel_size: 1}}
            teacher_def:
              _target_: UNet
              _mode_: callable
              spatial_dims: 2
              in_channels: 1
              out_channels: 2
              channels: [2, 4]
              strides: [2]
            teacher:
              _target_: monai_kd.networks.Teacher
              network: '@teacher_def'
              checkpoint: '@checkpoint'
              image_key: smooth
            """
        )
        parser = ConfigParser()
        parser.read_config(str(tmp_path / "train.yaml"))
        state = torch.get_rng_state()
        teacher = parser.get_parsed_content("teacher")
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(teacher({"smooth": image}).logits, trained(image))


class TestRandomState:
    @pytest.mark.parametrize("source", ["callable", "bundle", "torchscript", "module with a checkpoint"])
    def test_the_student_starts_as_without_a_teacher(self, source, bundle, tmp_path, trained):
        torch.jit.script(Moody()).save(str(tmp_path / "model.ts"))
        module = make_unet()
        torch.manual_seed(7)
        alone = make_unet().state_dict()
        torch.manual_seed(7)
        if source == "callable":
            Teacher(make_unet, bundle / "models" / "model.pt")
        elif source == "bundle":
            Teacher(bundle)
        elif source == "torchscript":
            Teacher(tmp_path / "model.ts")
        else:
            Teacher(module, bundle / "models" / "model.pt")
        distilled = make_unet().state_dict()
        assert all(torch.equal(distilled[name], value) for name, value in alone.items())


class TestSpeaks:
    def test_in_eval_mode_whatever_anybody_sets(self, image):
        network = Moody()
        reference = copy.deepcopy(network).eval()
        teacher, parent = Teacher(network), nn.Sequential(network)
        for wake in (network.train, parent.train, network.layers[1].train, network.layers[2].train):
            wake()
            assert torch.equal(teacher(image).logits, reference(image))
            assert not any(module.training for module in network.modules())
        assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), reference.state_dict().values()))

    def test_without_gradient(self, image):
        teacher = Teacher(Moody())
        logits = teacher(image.requires_grad_()).logits
        assert not logits.requires_grad
        assert not any(parameter.requires_grad for parameter in teacher.parameters())

    def test_to_its_own_image(self, image):
        teacher = Teacher(Moody(), image_key="smooth")
        assert teacher.image_keys == {"smooth"}
        assert torch.equal(teacher({"image": image, "smooth": 2 * image}).logits, teacher(2 * image).logits)
        assert Teacher(Moody()).image_keys == {"image"}

    def test_in_plain_tensors(self, image):
        teacher = Teacher(Moody())
        teacher.capture(["layers.0"])
        knowledge = teacher(MetaTensor(image))
        assert type(knowledge.logits) is type(knowledge.features["layers.0"]) is torch.Tensor

    def test_all_outputs(self, image):
        class Several(nn.Conv2d):
            def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
                logits = super().forward(image)
                return logits, logits[..., ::2, ::2]

        knowledge = Teacher(Several(1, 2, 1))(image)
        assert [tuple(output.shape) for output in knowledge.outputs] == [(2, 2, 16, 16), (2, 2, 8, 8)]
        assert knowledge.logits is knowledge.outputs[0]

    def test_all_outputs_that_are_stacked(self, image):
        class Stacked(nn.Conv2d):
            def forward(self, image: torch.Tensor) -> torch.Tensor:
                logits = super().forward(image)
                return torch.stack([logits, 2 * logits, 3 * logits], dim=1)

        teacher = Teacher(Stacked(1, 2, 1))
        logits = teacher.network(image)[:, 0]
        outputs = teacher(MetaTensor(image)).outputs
        assert len(outputs) == 3
        assert all(torch.equal(output, factor * logits) for factor, output in zip((1, 2, 3), outputs))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_to_an_image_of_another_precision(self, image, dtype):
        teacher = Teacher(Moody())
        assert torch.equal(teacher(image.to(dtype)).logits, teacher.network(image.to(dtype).float()))
        teacher.network.to(dtype)
        assert torch.equal(teacher(image).logits, teacher.network(image.to(dtype)))

    def test_to_an_image_as_it_is_without_weights(self, image):
        assert torch.equal(Teacher(nn.Identity())(image.double()).logits, image.double())

    def test_is_no_module_that_a_student_would_take_along(self):
        student = nn.Conv2d(1, 2, 1)
        student.teacher = Teacher(Moody())
        assert list(student.state_dict()) == ["weight", "bias"]
        assert len(list(student.parameters())) == 2

    def test_from_another_device(self):
        teacher = Teacher(Moody())
        assert teacher.to("meta") is teacher
        assert {parameter.device.type for parameter in teacher.parameters()} == {"meta"}


class TestCapture:
    def test_layers_until_removed(self, image):
        teacher = Teacher(Moody())
        capture = teacher.capture(["layers.0", "layers.1"])
        knowledge = teacher(image)
        assert list(knowledge.features) == ["layers.0", "layers.1"]
        assert torch.equal(knowledge.features["layers.0"], teacher.network.layers[0](image))
        assert teacher(image).features["layers.1"].shape == (2, 3, 16, 16)
        capture.remove()
        assert teacher(image).features == {}
        assert not any(module._forward_hooks for module in teacher.network.modules())

    def test_keeps_nothing_and_hears_nobody_else(self, image):
        teacher = Teacher(Moody())
        capture = teacher.capture(["layers.0"])
        teacher(image)
        teacher.network(image)  # by somebody else
        assert capture._outputs == {}
        with pytest.raises(RuntimeError, match="Given groups=1"):
            teacher(torch.zeros(1, 3, 4, 4))
        assert capture._outputs == {}
        assert not capture.enabled

    def test_of_several_is_each_for_itself(self, image):
        teacher = Teacher(Moody())
        expected = [teacher.network.layers[:2](image), teacher.network.layers[0](image)]
        both = [teacher.capture(["layers.1"]), teacher.capture(["layers.0", "layers.1"])]
        features = teacher(image).features
        assert list(features) == ["layers.1", "layers.0"]
        assert all(torch.equal(feature, value) for feature, value in zip(features.values(), expected))
        both[1].remove()
        assert list(teacher(image).features) == ["layers.1"]
        with teacher.capture(["layers.3"]):
            assert list(teacher(image).features) == ["layers.1", "layers.3"]
        both[0].remove()
        assert teacher(image).features == {}
        assert not any(module._forward_hooks for module in teacher.network.modules())

    def test_of_no_layer_is_none(self, image):
        teacher = Teacher(Moody())
        assert teacher.capture([]).removed
        assert teacher(image).features == {}

    def test_of_torchscript_is_refused(self):
        teacher = Teacher(torch.jit.script(Moody()))
        with pytest.raises(ValueError, match=r"layer `layers.0` cannot be captured: a TorchScript network"):
            teacher.capture(["layers.0"])


class TestOutputs:
    @pytest.mark.parametrize("dims", [2, 3])
    def test_are_unstacked_by_the_dimensions_of_the_image(self, dims):
        image, stacked = torch.zeros(2, 1, *[8] * dims), torch.randn(2, 3, 4, *[8] * dims, requires_grad=True)
        outputs = as_outputs(MetaTensor(stacked), image)
        assert [type(output) for output in outputs] == [torch.Tensor] * 3
        assert all(torch.equal(output, stacked[:, i]) for i, output in enumerate(outputs))
        (gradient,) = torch.autograd.grad(outputs[1].sum(), stacked)
        assert torch.equal(gradient[:, 1], torch.ones_like(outputs[1]))
        assert gradient[:, ::2].abs().sum() == 0

    def test_of_a_list_stay_as_they_are(self):
        deep, flat = torch.zeros(1, 3, 2, 8, 8), torch.zeros(1, 2, 8, 8)
        assert as_outputs([deep, flat], torch.zeros(1, 1, 8, 8)) == [deep, flat]
        assert as_outputs(flat, flat) == [flat]
        assert as_outputs(deep, {"a student's": "own form of input"}) == [deep]


class TestRefuses:
    @pytest.mark.parametrize("network", [lambda: 3, {"_target_": "UNet"}, 3, None])
    def test_what_is_no_network(self, network):
        with pytest.raises(
            TypeError, match="`network` must be a module, a callable that builds one, a bundle folder or a"
        ):
            Teacher(network)

    def test_paths_that_are_not_there(self, tmp_path, bundle):
        with pytest.raises(FileNotFoundError, match="must be an existing bundle folder or TorchScript file, but got"):
            Teacher(tmp_path / "nowhere")
        with pytest.raises(
            FileNotFoundError, match="`checkpoint` must be an existing file, but got .*no.pt; train the tea"
        ):
            Teacher(make_unet, tmp_path / "no.pt")
        (bundle / "models" / "model.pt").unlink()
        with pytest.raises(FileNotFoundError, match=r"but got .*models.model\.pt; train the teacher first"):
            Teacher(bundle)

    def test_another_architecture(self, bundle):
        with pytest.raises(ValueError, match="must hold the weights of Moody .*Is it of another architecture"):
            Teacher(Moody(), bundle / "models" / "model.pt")

    def test_code_in_a_checkpoint(self, tmp_path):
        class Malice:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(tmp_path / "made"),)

        torch.save({"model": Malice()}, tmp_path / "model.pt")
        with pytest.raises(ValueError, match="which needs code to be run"):
            Teacher(make_unet, tmp_path / "model.pt")
        assert not (tmp_path / "made").exists()

    def test_several_entries(self, tmp_path):
        torch.save({"student": make_unet().state_dict(), "teacher": make_unet().state_dict()}, tmp_path / "model.pt")
        with pytest.raises(ValueError, match=r"`checkpoint_key` must name .* it has \['student', 'teacher'\]"):
            Teacher(make_unet, tmp_path / "model.pt")

    @pytest.mark.parametrize("prediction", [{"logits": torch.zeros(1)}, [torch.zeros(1), None], None, "logits"])
    def test_outputs_that_are_no_tensors(self, prediction):
        with pytest.raises(
            ValueError, match=f"must return one logits tensor .* but got {type(prediction).__name__}; wrap"
        ):
            as_outputs(prediction, torch.zeros(1, 1, 4, 4))


def test_outputs_with_the_finest_last_are_refused():
    maps = [torch.zeros(1, 2, size, size) for size in (4, 8, 16)]
    with pytest.raises(ValueError, match="must return the one of full resolution first"):
        as_outputs(maps, torch.zeros(1, 1, 16, 16))
    assert as_outputs(maps[::-1], torch.zeros(1, 1, 16, 16))[0] is maps[2]


def test_frozen_torchscript_can_teach(tmp_path):
    network = torch.nn.Conv2d(1, 2, 3, padding=1).eval()
    image = torch.rand(2, 1, 8, 8)
    torch.jit.save(torch.jit.freeze(torch.jit.trace(network, image)), tmp_path / "frozen.ts")
    torch.testing.assert_close(Teacher(str(tmp_path / "frozen.ts"))(image).logits, network(image).detach())
