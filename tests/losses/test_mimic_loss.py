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

import numpy as np
import pytest
import torch

from monai_kd.losses import HintLoss, MimicLoss


def feature(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 5, 4, 6), (3, 1, 2, 4, 3)])
def test_equals_a_loop_over_pixels(shape):
    student, teacher = feature(*shape), feature(*shape, seed=1)
    vectors = [x.movedim(1, -1).flatten(0, -2).double().numpy() for x in (student, teacher)]
    expected = np.mean([np.linalg.norm(s - t) ** 2 for s, t in zip(*vectors, strict=True)])
    assert MimicLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_is_the_hint_times_channels_and_so_is_its_gradient():
    student, teacher = feature(2, 5, 4, 6).requires_grad_(), feature(2, 5, 4, 6, seed=1)
    mimic, hint = MimicLoss()(student, teacher), HintLoss()(student, teacher)
    torch.testing.assert_close(mimic, 5 * hint)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (mimic, hint)]
    torch.testing.assert_close(gradients[0], 5 * gradients[1])


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"but got .*; for a feature pass `adapter=ChannelAdapter\(3, 5\)`"):
        MimicLoss()(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4, 4))


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match="`student` must be a tensor, but got list"):
        MimicLoss()([torch.zeros(2, 3, 4, 4)], torch.zeros(2, 5, 4, 4))
