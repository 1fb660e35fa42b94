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

"""What holds for each loss of the package, whatever its formula. A new loss joins the list below."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_kd.losses import (
    AttentionSupervisionLoss,
    AttentionTransferLoss,
    ChannelWiseLoss,
    CrossImageRelationalLoss,
    DecoupledKDLoss,
    HintLoss,
    ImportanceMapLoss,
    IntraClassFeatureVariationLoss,
    KDLoss,
    LocalAffinityLoss,
    MimicLoss,
    PairwiseAffinityLoss,
    RegionAffinityLoss,
    SimilarityPreservingLoss,
    SymmetricalGuidingLoss,
)

CLASSES = 3
NEED_LABEL = {
    "kd_class": KDLoss(balance="class"),
    "decoupled_kd": DecoupledKDLoss(),
    "decoupled_kd_class": DecoupledKDLoss(temperature=1, balance="class"),
    "hint_class": HintLoss(balance="class", num_classes=CLASSES),
    "importance_map_class": ImportanceMapLoss(balance="class", num_classes=CLASSES),
    "region_affinity": RegionAffinityLoss(num_classes=CLASSES),
    "region_affinity_vector_l2": RegionAffinityLoss(norm=2, vector=True, num_classes=CLASSES),
    "region_affinity_nearest_l1": RegionAffinityLoss(norm=1, mask_resize="nearest", num_classes=CLASSES),
    "intra_class_feature_variation": IntraClassFeatureVariationLoss(num_classes=CLASSES),
    "intra_class_feature_variation_class": IntraClassFeatureVariationLoss("nearest", "class", CLASSES),
    "cross_image_relational_class": CrossImageRelationalLoss(balance="class", num_classes=CLASSES),
    "local_affinity_zero_class": LocalAffinityLoss(order="zero", balance="class"),
}
GROW_WITH_PIXELS = {"importance_map_paper": ImportanceMapLoss(exponent=2, norm="l1", resize="pool")}
# a mean over pixels of a sum that does not grow, and over pairs of images
SHRINK_WITH_PIXELS = {"attention_transfer": AttentionTransferLoss()}
SHRINK_WITH_BATCH = {"similarity_preserving": SimilarityPreservingLoss()}
# takes lengths that depend on the student for constants, as the released code does
GRADIENT_NOT_THE_SLOPE = {"pairwise_affinity": PairwiseAffinityLoss()}
# a row of twice the length is another token, and a map that is tiled along one axis is no square; so few nodes are
# others on a tiled map, and pixels at the seam get other neighbours
DEPEND_ON_SIZE = {
    **GRADIENT_NOT_THE_SLOPE,
    "pairwise_affinity_average": PairwiseAffinityLoss(pool=3, pool_mode="average", detach_norm=False),
    "local_affinity": LocalAffinityLoss(),
    "local_affinity_first": LocalAffinityLoss(order="first"),
    "attention_supervision": AttentionSupervisionLoss(),
    "attention_supervision_row": AttentionSupervisionLoss(norm="row"),
    "symmetrical_guiding": SymmetricalGuidingLoss(),
    "symmetrical_guiding_softmax": SymmetricalGuidingLoss(sigma="softmax", direction="reverse", tokens="pixels"),
    "symmetrical_guiding_sigmoid_softmax": SymmetricalGuidingLoss(temperature=1, sigma="sigmoid_softmax"),
}
LOSSES = {
    "kd": KDLoss(),
    "kd_reverse": KDLoss(temperature=1, direction="reverse"),
    "hint": HintLoss(),
    "mimic": MimicLoss(),
    "channel_wise": ChannelWiseLoss(),
    "attention_transfer_paper": AttentionTransferLoss(norm="l2"),
    "attention_transfer_odd": AttentionTransferLoss(exponent=3, norm="l2"),
    "importance_map": ImportanceMapLoss(),
    "importance_map_odd": ImportanceMapLoss(exponent=3),
    "attention_supervision_pixels": AttentionSupervisionLoss(tokens="pixels"),
    "pairwise_affinity_pixels": PairwiseAffinityLoss(pool=None, detach_norm=False),
    "cross_image_relational": CrossImageRelationalLoss(),
    **GROW_WITH_PIXELS,
    **SHRINK_WITH_PIXELS,
    **SHRINK_WITH_BATCH,
    **DEPEND_ON_SIZE,
    **NEED_LABEL,
}
NOT_OF_EACH_SIZE = GROW_WITH_PIXELS.keys() | SHRINK_WITH_PIXELS.keys() | DEPEND_ON_SIZE.keys()

SPATIAL = st.lists(st.integers(2, 5), min_size=2, max_size=3)
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
few = settings(max_examples=8, deadline=None)


def batch(spatial, size=2, seed=0, dtype=torch.float32):
    """Two maps and a label in which each image has at least two classes."""
    draw = torch.Generator().manual_seed(seed)
    student = torch.randn(size, CLASSES, *spatial, generator=draw, dtype=dtype).requires_grad_()
    teacher = torch.randn(size, CLASSES, *spatial, generator=draw, dtype=dtype)
    label = torch.randint(0, CLASSES, (size, 1, *spatial), generator=draw)
    label.flatten(1)[:, :2] = torch.tensor([0, 1])
    return student, teacher, label


def fitting(loss, spatial):
    """The spatial size, or the square one that the loss takes instead."""
    return (*spatial[:-1], spatial[-2]) if isinstance(loss, SymmetricalGuidingLoss) else tuple(spatial)


@each_loss
@few
@given(spatial=SPATIAL, size=st.integers(1, 3), seed=st.integers(0, 99))
def test_zero_at_equality_and_positive_elsewhere(loss, spatial, size, seed):
    size = max(size, 2) if isinstance(loss, SimilarityPreservingLoss) else size  # one image has none to resemble
    student, teacher, label = batch(fitting(loss, spatial), size, seed)
    same = loss(student, student.detach().clone(), label)
    assert same.ndim == 0
    assert same.item() == 0
    same.backward()
    assert float(student.grad.norm()) <= 1e-6
    assert loss(student, teacher, label).item() > 0


@each_loss
@few
@given(spatial=SPATIAL, seed=st.integers(0, 99))
def test_only_the_student_learns(loss, spatial, seed):
    student, teacher, label = batch(fitting(loss, spatial), seed=seed)
    teacher.requires_grad_()
    loss(student, teacher, label).backward()
    assert teacher.grad is None
    assert torch.isfinite(student.grad).all()
    assert float(student.grad.norm()) > 0


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - GRADIENT_NOT_THE_SLOPE.keys()))
def test_gradient_is_the_slope_of_the_value(name):
    loss = LOSSES[name]
    student, teacher, label = batch(fitting(loss, (3, 2)), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda student: loss(student, teacher, label), student)


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - SHRINK_WITH_BATCH.keys()))
@few
@given(spatial=SPATIAL, size=st.integers(1, 3), seed=st.integers(0, 99))
def test_repeated_batch_same_loss(name, spatial, size, seed):
    loss = LOSSES[name]
    student, teacher, label = batch(fitting(loss, spatial), size, seed)
    expected = loss(student, teacher, label)
    repeated = loss(*(torch.cat([x, x]) for x in (student, teacher, label)))
    torch.testing.assert_close(repeated, expected)


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - NOT_OF_EACH_SIZE))
@few
@given(spatial=SPATIAL, axis=st.sampled_from([-1, -2]), seed=st.integers(0, 99))
def test_larger_patch_same_loss(name, spatial, axis, seed):
    student, teacher, label = batch(spatial, seed=seed)
    expected = LOSSES[name](student, teacher, label)
    tiled = LOSSES[name](*(torch.cat([x, x], dim=axis) for x in (student, teacher, label)))
    torch.testing.assert_close(tiled, expected)


@each_loss
@few
@given(spatial=st.lists(st.integers(2, 5), min_size=2, max_size=2), seed=st.integers(0, 99))
def test_two_dimensions_equal_three_with_depth_one(loss, spatial, seed):
    student, teacher, label = batch(fitting(loss, spatial), seed=seed)
    flat = loss(student, teacher, label)
    torch.testing.assert_close(loss(*(x.unsqueeze(2) for x in (student, teacher, label))), flat)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_finite_at_ten_thousand(loss, dtype):
    student, teacher, label = batch((4, 4))
    student = (1e4 * student.detach()).to(dtype).requires_grad_()
    value = loss(student, (1e4 * teacher).to(dtype), label)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(loss, dtype):
    student, teacher, label = batch((4, 4))
    student, teacher = student.detach().to(dtype), teacher.to(dtype)
    expected = loss(student.float(), teacher.float(), label)
    assert torch.equal(loss(student, teacher, label), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(student.float(), teacher.float(), label)
    assert torch.equal(inside, expected)


@each_loss
def test_both_zero_give_no_gradient(loss):
    student, teacher, label = batch((4, 4))
    student = torch.zeros_like(student, requires_grad=True)
    loss(student, torch.zeros_like(teacher), label).backward()
    assert float(student.grad.abs().max()) < 1e-7


@each_loss
def test_dead_student_gets_a_finite_gradient(loss):
    student, teacher, label = batch((4, 4))
    student = torch.zeros_like(student, requires_grad=True)
    value = loss(student, teacher, label)
    value.backward()
    assert torch.isfinite(value)
    assert float(student.grad.abs().max()) < 10


@each_loss
@pytest.mark.parametrize("spatial", [(4, 6), (4, 6, 2)])
def test_memory_format_and_meta_tensor_change_nothing(loss, spatial):
    student, teacher, label = batch(fitting(loss, spatial))
    expected = loss(student, teacher, label)
    last = torch.channels_last if len(spatial) == 2 else torch.channels_last_3d
    torch.testing.assert_close(loss(*(x.contiguous(memory_format=last) for x in (student, teacher, label))), expected)
    tracked = loss(MetaTensor(student), MetaTensor(teacher), MetaTensor(label.float()))
    assert type(tracked) is torch.Tensor
    assert torch.equal(tracked, expected)
    tracked.backward()
    assert float(student.grad.norm()) > 0


@each_loss
def test_one_hot_label_equals_indices(loss):
    student, teacher, label = batch(fitting(loss, (4, 6)))
    one_hot = torch.nn.functional.one_hot(label[:, 0], CLASSES).movedim(-1, 1)
    torch.testing.assert_close(loss(student, teacher, one_hot), loss(student, teacher, label))


@each_loss
def test_compiles_without_a_graph_break(loss):
    student, teacher, label = batch((4, 4))
    expected = torch.autograd.grad(loss(student, teacher, label), student)[0]
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(student, teacher, label), student)[0], expected)


@each_loss
def test_holds_no_state_and_can_be_copied(loss):
    student, teacher, label = batch((4, 4))
    assert not loss.state_dict()
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(copied(student, teacher, label), loss(student, teacher, label))


@pytest.mark.parametrize("loss", NEED_LABEL.values(), ids=NEED_LABEL.keys())
def test_missing_label_is_refused(loss):
    student, teacher, _ = batch((4, 4))
    with pytest.raises(ValueError, match=f"`label` must be given for .*{type(loss).__name__}.*, but got None"):
        loss(student, teacher)


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - NEED_LABEL.keys()))
def test_label_that_is_not_needed_may_be_missing(name):
    student, teacher, label = batch((4, 4))
    assert torch.equal(LOSSES[name](student, teacher), LOSSES[name](student, teacher, label))


@each_loss
def test_wrong_batch_is_refused(loss):
    student, teacher, label = batch((4, 4))
    with pytest.raises(ValueError, match=r"`student` must have the batch size .*\(2, 3, 4, 4\) and \(1, 3, 4, 4\)"):
        loss(student, teacher[:1], label)
