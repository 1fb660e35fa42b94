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

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.nets import HierarchicalDiscriminator

HAD = {  # two maps before each block but the first, of which the second is half as large and is brought to its size
    "features": [[2, 1 / 2], [2, 1 / 4], [4, 1 / 4], [4, 1 / 8], [8, 1 / 8], [8, 1 / 16]],
    "levels": (1, 1, 2, 2, 3, 3),
    "channels": (4, 8, 16, 32),
}
XP = {"features": [[8, 1], [16, 1 / 4], [16, 1 / 4], [8, 1]], "channels": (8, 16, 16, 8)}


def maps(dims: int = 2, size: int = 64, features: Any = XP["features"], batch: int = 2, **kwargs: Any) -> tuple:
    """Segmentation, image and features of random numbers."""
    generator = torch.Generator().manual_seed(5)

    def draw(channels: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(batch, channels, *[round(size * scale)] * dims, generator=generator, **kwargs)

    return draw(1), draw(3), [draw(channels, scale) for channels, scale in features]


def xp_net(dims: int = 2, **kwargs: Any) -> HierarchicalDiscriminator:
    return HierarchicalDiscriminator(dims, 4, **(XP | kwargs))


class TestReleasedCode:
    """HAD-Net's discriminator, its weights and its two losses; parity's numbers come from its released code."""

    @pytest.fixture
    def arrays(self, shared_parity: Path) -> dict[str, torch.Tensor]:
        with np.load(shared_parity / "hadnet_G_adv.npz") as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}

    @pytest.fixture
    def discriminator(self, arrays: dict[str, torch.Tensor]) -> HierarchicalDiscriminator:
        discriminator = HierarchicalDiscriminator(3, in_channels=5, **HAD)
        own = [*discriminator.blocks, discriminator.head]
        for i, module in enumerate(own, start=1):
            kind = f"D.disc_{i}." + ("0." if i < len(own) else "")
            state = {name.removeprefix(kind): value for name, value in arrays.items() if name.startswith(kind)}
            convolution = module.conv if i < len(own) else module
            convolution.load_state_dict(state)
        return discriminator

    @staticmethod
    def said(arrays: dict[str, torch.Tensor], who: str) -> tuple:
        features = [arrays[f"f{who}{pair}{second}"] for pair in range(3) for second in range(2)]
        return arrays[f"seg_{who}"], arrays["x"], features

    @staticmethod
    def case(shared_parity: Path, name: str) -> dict[str, Any]:
        cases = json.loads((shared_parity / "cases.json").read_text())["cases"]
        return next(case for case in cases if case["id"] == f"hadnet/{name}")

    def test_loss_of_the_student_and_its_gradient(self, shared_parity, arrays, discriminator):
        case = self.case(shared_parity, "G_adv")
        segmentation, image, features = self.said(arrays, "s")
        decision = discriminator(segmentation.requires_grad_(), image, features)
        assert list(decision.shape) == case["extra"]["D_out_shape"]
        assert decision.flatten().tolist() == pytest.approx(case["extra"]["D_out"], rel=1e-5)
        loss = F.mse_loss(decision, torch.ones_like(decision))
        assert loss.item() == pytest.approx(case["loss"], rel=1e-5)
        loss.backward()
        assert segmentation.grad.norm().item() == pytest.approx(case["grad_norms"]["seg_s"], rel=1e-4)
        torch.testing.assert_close(segmentation.grad, arrays["grad_seg_s"], rtol=1e-4, atol=1e-6)

    def test_loss_of_the_discriminator_and_its_gradient(self, shared_parity, arrays, discriminator):
        case = self.case(shared_parity, "D_loss")
        real, fake = (discriminator(*self.said(arrays, who)) for who in "ts")
        assert real.flatten().tolist() == pytest.approx(case["extra"]["D_real"], rel=1e-5)
        losses = F.mse_loss(real, torch.ones_like(real)), F.mse_loss(fake, torch.zeros_like(fake))
        assert [loss.item() for loss in losses] == pytest.approx([case["extra"]["real"], case["extra"]["fake"]])
        assert sum(losses).item() == pytest.approx(case["loss"], rel=1e-5)
        sum(losses).backward()
        squares = sum(parameter.grad.square().sum() for parameter in discriminator.parameters())
        assert squares.sqrt().item() == pytest.approx(case["extra"]["D_param_grad_norm"], rel=1e-4)

    def test_size_of_the_paper(self):
        """88.2 million weights at HAD-Net's 32 filters, 4 classes and 3 sequences."""
        features = [[channels * 32, scale] for channels, scale in HAD["features"]]
        with torch.device("meta"):
            discriminator = HierarchicalDiscriminator(3, 7, features, levels=HAD["levels"])
        assert sum(parameter.numel() for parameter in discriminator.parameters()) == pytest.approx(88.2e6, rel=0.001)


def by_hand(discriminator: HierarchicalDiscriminator, segmentation, image, features) -> torch.Tensor:
    """The default geometry with XP-Net's features in torch's functions: two join the image, two the third block."""
    x = torch.cat([segmentation, image, features[0], features[3]], 1)
    for level, block in enumerate(discriminator.blocks):
        x = torch.cat([x, features[1], features[2]], 1) if level == 2 else x
        x = F.conv2d(x, block.conv.weight, block.conv.bias, stride=2, padding=1)
        x = F.leaky_relu(F.instance_norm(x) if level > 0 else x, 0.2)
    return F.conv2d(x, discriminator.head.weight, padding=1)


class TestGeometry:
    def test_features_join_where_they_are_as_large(self):
        discriminator = xp_net()
        assert discriminator.levels == (0, 2, 2, 0)
        segmentation, image, features = maps()
        decision = discriminator(segmentation, image, features)
        assert decision.shape == (2, 1, 3, 3)
        torch.testing.assert_close(decision, by_hand(discriminator, segmentation, image, features))

    def test_of_the_paper(self):
        """Five blocks of stride 1, a feature before each but the first, at full resolution."""
        discriminator = HierarchicalDiscriminator(
            2,
            4,
            [[32, 1], [128, 1 / 4], [256, 1 / 8], [64, 1 / 2]],
            channels=(32, 128, 128, 32, 32),
            kernel_size=3,
            strides=1,
            levels=(1, 2, 3, 4),
            first_norm=True,
        )
        assert [block.conv.in_channels for block in discriminator.blocks] == [4, 32 + 32, 128 + 128, 128 + 256, 32 + 64]
        segmentation, image, features = maps(size=16, features=discriminator.features, batch=1)
        assert discriminator(segmentation, image, features).shape == (1, 1, 16, 16)
        wide = [F.interpolate(feature, (16, 16)) for feature in features]
        x = torch.cat([segmentation, image], 1)
        for block, feature in zip(discriminator.blocks, [None, *wide]):
            x = x if feature is None else torch.cat([x, feature], 1)
            x = F.leaky_relu(F.instance_norm(F.conv2d(x, block.conv.weight, block.conv.bias, padding=1)), 0.2)
        expected = F.conv2d(x, discriminator.head.weight, padding=1)
        torch.testing.assert_close(discriminator(segmentation, image, features), expected)

    def test_scales_choose_the_nearest_level(self):
        features = [[1, 1], [1, 0.6], [1, 1 / 3], [1, 1 / 16], [1, 0.01]]
        assert xp_net(features=features).levels == (0, 1, 2, 3, 3)
        assert xp_net(features=features, strides=(4, 1, 2, 2)).levels == (0, 0, 1, 3, 3)

    def test_levels_may_be_given(self):
        discriminator = xp_net(levels=(0, 3, 1, 1))
        assert [block.conv.in_channels for block in discriminator.blocks] == [4 + 8, 8 + 16 + 8, 16, 16 + 16]
        assert discriminator(*maps()).shape == (2, 1, 3, 3)

    def test_without_features(self):
        discriminator = xp_net(features=[], channels=(8, 16))
        segmentation, image, _ = maps()
        assert discriminator(segmentation, image, []).shape == (2, 1, 15, 15)

    def test_sizes_that_pooling_has_rounded(self):
        segmentation, image, features = maps(size=67, features=[[8, 1], [16, 16 / 67]])
        assert features[1].shape[2:] == (16, 16)
        xp_net(features=[[8, 1], [16, 1 / 4]])(segmentation, image, features)

    def test_each_input_is_seen(self):
        segmentation, image, features = maps()
        inputs = [segmentation, image, *features]
        for tensor in inputs:
            tensor.requires_grad_()
        xp_net()(segmentation, image, features).square().sum().backward()
        assert all(tensor.grad.abs().sum() > 0 for tensor in inputs)

    def test_images_of_a_batch_do_not_mix(self):
        discriminator, (segmentation, image, features) = xp_net(), maps()
        single = discriminator(segmentation[1:], image[1:], [feature[1:] for feature in features])
        torch.testing.assert_close(discriminator(segmentation, image, features)[1:], single)

    def test_slices_are_volumes_that_do_not_change(self):
        """In the deep of the volume, a 3D kernel that is 2D's in one plane and else 0 gives 2D's decisions."""
        flat = HierarchicalDiscriminator(2, 2, [], (4,), kernel_size=3, strides=1)
        deep = HierarchicalDiscriminator(3, 2, [], (4,), kernel_size=3, strides=1)
        state = flat.state_dict()
        for name, value in state.items():
            if value.ndim == 4:
                state[name] = F.pad(value[:, :, None], (0, 0, 0, 0, 1, 1))
        deep.load_state_dict(state)
        segmentation, image = torch.randn(2, 1, 1, 8, 8)
        volume = [tensor[:, :, None].expand(-1, -1, 3, -1, -1) for tensor in (segmentation, image)]
        torch.testing.assert_close(deep(*volume, [])[:, :, 1], flat(segmentation, image, []))


class TestNumerics:
    def test_gradient(self):
        discriminator = HierarchicalDiscriminator(2, 2, [[2, 1], [2, 1 / 2]], channels=(3, 3)).double()
        segmentation, image = (torch.randn(1, 1, 16, 16, dtype=torch.float64, requires_grad=True) for _ in range(2))
        one, half = (torch.randn(1, 2, size, size, dtype=torch.float64, requires_grad=True) for size in (16, 8))
        assert torch.autograd.gradcheck(lambda *x: discriminator(x[0], x[1], x[2:]), (segmentation, image, one, half))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype):
        discriminator, (segmentation, image, features) = xp_net(), maps()
        expected = discriminator(segmentation, image, features)
        half = copy.deepcopy(discriminator).to(dtype)
        decision = half(segmentation.to(dtype), image.to(dtype), [feature.to(dtype) for feature in features])
        assert decision.dtype == dtype
        torch.testing.assert_close(decision.float(), expected, rtol=0, atol=0.1)

    def test_autocast(self):
        discriminator, (segmentation, image, features) = xp_net(), maps()
        expected = discriminator(segmentation, image, features)
        with torch.autocast("cpu", torch.bfloat16):
            decision = discriminator(segmentation.bfloat16(), image, features)
        assert decision.dtype == torch.bfloat16
        torch.testing.assert_close(decision.float(), expected, rtol=0, atol=0.1)

    def test_compiled(self):
        torch.compiler.reset()
        discriminator, given = xp_net(), maps()
        compiled = torch.compile(discriminator, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(*given), discriminator(*given))
        torch.compiler.reset()

    def test_seed_gives_the_weights_and_is_left_alone(self):
        state = torch.get_rng_state()
        first = xp_net()
        assert torch.equal(state, torch.get_rng_state())
        second = xp_net()
        torch.manual_seed(1)
        third = xp_net()
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
        assert not torch.equal(first.head.weight, third.head.weight)


class TestGuards:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"spatial_dims": 1}, "`spatial_dims` must be 2 or 3, but got 1"),
            ({"in_channels": 1}, "`in_channels` must be at least 2, .* but got 1, 4 and"),
            ({"kernel_size": 2}, "`kernel_size` 3 .* but got 4, 2 and"),
            ({"channels": ()}, r"in at least one block, but got 4, 4 and \[\]"),
            ({"channels": (8, 0)}, r"but got 4, 4 and \[8, 0\]"),
            ({"features": [[8, 2]]}, r"scale \(in \(0, 1\]\) of each map, but got \[8, 2\]"),
            ({"features": [[0, 1]]}, r"channels \(1 or more\) .* but got \[0, 1\]"),
            ({"features": [[8]]}, r"but got \[8\]"),
            ({"levels": (0, 1, 2, 0.5)}, r"one of the 4 blocks, .* but got \(0, 1, 2, 0.5\)"),
            ({"strides": 0}, "`strides` must hold a whole number from 1 for each block, .* but got 0"),
            ({"strides": ((2, 2, 1),) * 4}, "`strides` must hold a whole number"),
            ({"levels": (0, 1)}, r"one of the 4 blocks, from 0, for each of 4 features, but got \(0, 1\)"),
            ({"levels": (0, 1, 2, 4)}, r"but got \(0, 1, 2, 4\)"),
        ],
    )
    def test_arguments(self, options, message):
        with pytest.raises(ValueError, match=message):
            HierarchicalDiscriminator(**({"spatial_dims": 2, "in_channels": 4} | XP | options))

    def test_strides_for_other_blocks(self):
        with pytest.raises(ValueError, match="Sequence must have length 4, got 2"):
            xp_net(strides=(1, 2))

    def test_features_that_are_no_list(self):
        segmentation, image, features = maps()
        with pytest.raises(TypeError, match="`features` must be a list of tensors, but got Tensor"):
            xp_net()(segmentation, image, features[0])

    def test_features_of_other_shapes(self):
        segmentation, image, features = maps()
        wanted = r"maps of the shapes \[\(2, 8, 64, 64\), \(2, 16, 16, 16\), \(2, 16, 16, 16\), \(2, 8, 64, 64\)\]"
        for wrong, got in (
            (features[:3], r"\[\(2, 8, 64, 64\), \(2, 16, 16, 16\), \(2, 16, 16, 16\)\]"),
            ([features[0], features[2], features[0], features[3]], r".*\(2, 16, 16, 16\), \(2, 8, 64, 64\), \(2, 8"),
            ([*features[:3], features[3][..., :32]], r".*\(2, 8, 64, 32\)"),
            ([*features[:3], features[3][..., None]], r".*\(2, 8, 64, 64, 1\)"),
        ):
            with pytest.raises(ValueError, match=f"`features` must be {wanted}, but got {got}"):
                xp_net()(segmentation, image, wrong)

    def test_segmentation_of_another_size(self):
        segmentation, image, features = maps()
        with pytest.raises(ValueError, match=r"of one size, with 4 channels together, but got \(2, 1, 32, 64\)"):
            xp_net()(segmentation[:, :, :32], image, features)
        with pytest.raises(ValueError, match=r"4 channels together, but got \(2, 2, 64, 64\) and \(2, 3, 64, 64\)"):
            xp_net()(segmentation.expand(-1, 2, -1, -1), image, features)

    def test_image_too_small(self):
        """Instance normalisation of a map of one pixel is refused by torch, and a convolution without any."""
        for size, norm in ((32, False), (16, True)):
            given = maps(size=size)
            if norm:
                with pytest.raises(ValueError, match=r"large enough for 4 blocks of strides .*, but got \(16, 16\)"):
                    xp_net()(*given)
            else:
                assert xp_net()(*given).shape == (2, 1, 1, 1)
        assert isinstance(xp_net().blocks[1].adn.N, nn.InstanceNorm2d)
