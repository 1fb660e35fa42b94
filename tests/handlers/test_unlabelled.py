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

"""Images without labels: equal to a loop by hand, laws, batch normalization, resume, refusals."""

from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Events
from monai.handlers import CheckpointLoader, CheckpointSaver
from torch import nn
from torch.utils.data import DataLoader

from monai_kd.handlers import DistillationHandler, DistillationTerm, EpochSeedHandler, loss_terms
from monai_kd.losses import KDLoss, RegionAffinityLoss
from monai_kd.networks import Teacher
from tests.handlers.engine_case import make_batches, make_data, same, soften, student_net, teacher_net
from tests.handlers.training import On, adam, handler_of, make_trainer, segmentation_loss


def unlabelled_data(length=6, dims=2):
    """Other images of noise, without labels."""
    generator = torch.Generator().manual_seed(9)
    return [{"image": torch.randn(1, *[16] * dims, generator=generator)} for _ in range(length)]


def unlabelled_loader(**kwargs):
    return DataLoader(unlabelled_data(**kwargs), batch_size=3)


def by_hand(student, batches, extras, weight=0.5, accumulation=1):
    """Both batches in one forward pass; the labels count for the first alone."""
    teacher = copy.deepcopy(teacher_net()).eval()
    optimizer = adam(student.parameters())
    student.train()
    for i, (batch, extra) in enumerate(zip(batches, extras)):
        images = torch.cat([batch["image"], extra["image"]])
        pred = student(images)
        with torch.no_grad():
            target = teacher(images)
        own = segmentation_loss(pred[: len(batch["image"])], batch["label"])
        loss = own + weight * soften(pred, target)
        if i % accumulation == 0:
            optimizer.zero_grad()
        (loss / accumulation).backward()
        if (i + 1) % accumulation == 0:
            optimizer.step()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_equal_to_a_loop_by_hand(accumulation):
    first, second = student_net(), student_net()
    extras = list(unlabelled_loader()) * 2  # shorter than the epoch: started again
    handler = handler_of(DistillationTerm(soften, 0.5), unlabelled=unlabelled_loader())
    make_trainer(first, [handler], epochs=1, accumulation_steps=accumulation).run()
    by_hand(second, make_batches(), extras, accumulation=accumulation)
    assert same(first, second)


def test_patches_in_3d_reach_batch_normalization():
    first, second = student_net(dims=3), student_net(dims=3)
    for student, options in ((first, {"unlabelled": unlabelled_loader(dims=3)}), (second, {})):
        handler = handler_of(DistillationTerm(soften, 0.0), teacher=teacher_net(dims=3), **options)
        make_trainer(student, [handler], data=make_data(dims=3), epochs=1).run()
    assert not torch.equal(first.norm.running_mean, second.norm.running_mean)


def test_trainer_sees_its_own_images_alone():
    seen = []

    def loss(pred, label):
        seen.append((len(pred), len(label)))
        return segmentation_loss(pred, label)

    sizes = []

    def note(engine):
        output = engine.state.output
        sizes.append((len(output), output[0]["pred"].shape[0], len(engine.state.batch)))

    handler = handler_of(DistillationTerm(soften, 0.5), unlabelled=unlabelled_loader())
    make_trainer(student_net(), [handler, On(Events.ITERATION_COMPLETED, note)], loss_function=loss).run()
    assert set(seen) == {(2, 2)}
    assert set(sizes) == {(2, 2, 2)}  # decollated: two items, two classes


def test_the_same_images_without_labels_double_nothing():
    """Mean over all images: unlabelled copies of the batch leave loss and batch statistics as they are."""
    data = make_data()
    copies = DataLoader([{"image": item["image"]} for item in data], batch_size=2)
    plain, doubled = student_net(), student_net()
    loss = KDLoss(temperature=1.0)
    for student, options in ((plain, {}), (doubled, {"unlabelled": copies})):
        optimizer = torch.optim.SGD(student.parameters(), 0.1)  # Adam would enlarge what rounding leaves
        handler = handler_of(DistillationTerm(loss, 0.5), **options)
        make_trainer(student, [handler], data=data, optimizer=optimizer).run()
    for own, other in zip(plain.parameters(), doubled.parameters()):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("options", "share"), [({}, 3.0), ({"auto_share": 0.7}, 0.7)])
def test_share_of_the_gradient_counts_all_images(options, share):
    log = []
    note = On(Events.ITERATION_COMPLETED, lambda engine: log.append(loss_terms(engine.state.output)))
    handler = handler_of(DistillationTerm(soften, "auto"), unlabelled=unlabelled_loader(), **options)
    make_trainer(student_net(), [handler, note]).run()
    assert log[0]["gradient_ratio_soften"] == pytest.approx(share, rel=1e-4)


def test_layers():
    seen = []

    def hint(student, teacher, label):
        seen.append((len(student), len(teacher)))
        return (student - teacher).square().mean()

    term = DistillationTerm(hint, 0.5, "middle", "middle", name="hint")
    handler = handler_of(term, teacher=teacher_net(channels=4), unlabelled=unlabelled_loader())
    make_trainer(student_net(), [handler]).run()
    assert set(seen) == {(5, 5)}


def test_second_handler_sees_the_labelled_images():
    seen = []

    def other(student, teacher, label):
        seen.append((len(student), len(teacher), len(label)))
        return (student - teacher).square().mean()

    first = handler_of(DistillationTerm(soften, 0.5), unlabelled=unlabelled_loader())
    second = handler_of(DistillationTerm(other, 0.5, name="other"))
    make_trainer(student_net(), [first, second]).run()
    assert set(seen) == {(2, 2, 2)}


class TestWithoutAnyLabel:
    def test_trains_as_by_hand(self):
        data = [{"image": item["image"]} for item in make_data()]
        first, second = student_net(), student_net()
        handler = handler_of(DistillationTerm(soften, 0.5), supervised_weight=0)
        make_trainer(first, [handler], data=data, epochs=1).run()
        teacher, optimizer = teacher_net().eval(), adam(second.parameters())
        second.train()
        for batch in make_batches():
            optimizer.zero_grad()
            with torch.no_grad():
                target = teacher(batch["image"])
            (0.5 * soften(second(batch["image"]), target)).backward()
            optimizer.step()
        assert same(first, second)

    def test_the_trainer_gets_its_loss_back(self):
        data = [{"image": item["image"]} for item in make_data()]
        trainer = make_trainer(student_net(), [handler_of(DistillationTerm(soften), supervised_weight=0)], data=data)
        trainer.run()
        assert trainer.loss_function is segmentation_loss


class TestPseudoLabels:
    def test_term_that_needs_a_label_is_refused(self):
        term = DistillationTerm(RegionAffinityLoss(num_classes=2), 0.5, name="rad")
        handler = handler_of(term, unlabelled=unlabelled_loader())
        with pytest.raises(ValueError, match=r"term `rad`.*`pseudo_labels=True`.*`label` must be given"):
            make_trainer(student_net(), [handler]).run()

    def test_are_the_teachers_classes(self):
        seen = []

        def note(student, teacher, label):
            seen.append((teacher, label))
            return (student - teacher).square().mean()

        term = DistillationTerm(note, 0.5, name="note")
        handler = handler_of(term, unlabelled=unlabelled_loader(), pseudo_labels=True)
        make_trainer(student_net(), [handler], epochs=1).run()
        for (teacher, label), batch in zip(seen, make_batches()):
            assert torch.equal(label[:2], batch["label"])
            assert torch.equal(label[2:], teacher[2:].argmax(1, keepdim=True).to(label.dtype))

    def test_of_a_one_hot_label_and_of_one_channel(self):
        handler = handler_of(DistillationTerm(soften), unlabelled=unlabelled_loader())
        handler.unlabelled._labelled = 1
        logits = torch.tensor([[[0.0], [0.0]], [[-1.0], [2.0]]])
        hot = handler.unlabelled.label(torch.tensor([[[1.0], [0.0]]]), logits)
        assert hot[1].flatten().tolist() == [0.0, 1.0]
        one = handler.unlabelled.label(torch.tensor([[[1.0]]]), torch.tensor([[[0.0]], [[3.0]]]))
        assert one.flatten().tolist() == [1.0, 1.0]


class TestMixedImages:
    """The second batch is made of the first."""

    def seen(self):
        """What the teacher saw in an epoch, and the trainer's batches."""
        teacher, images = teacher_net(), []
        teacher.register_forward_pre_hook(lambda _, given: images.append(given[0].clone()))
        handler = DistillationHandler(Teacher(teacher), [DistillationTerm(soften, 0.5)], unlabelled="mixed")
        make_trainer(student_net(), [handler], epochs=1).run()
        return images, make_batches()

    def test_are_blends_of_two_images_of_the_batch(self):
        images, batches = self.seen()
        assert len(images) == len(batches)
        shares = []
        for whole, batch in zip(images, batches):
            own = batch["image"]
            assert torch.equal(whole[: len(own)], own)
            for i, blend in enumerate(whole[len(own) :]):
                pairs = [(j, _share(blend, own[i], own[j])) for j in range(len(own)) if j != i]
                found = [
                    share
                    for j, share in pairs
                    if torch.allclose(blend, share * own[i] + (1 - share) * own[j], atol=1e-5)
                ]
                assert len(found) == 1
                shares += found
        assert 0.2 <= min(shares) < max(shares) <= 0.8

    def test_are_the_same_in_another_run_whatever_the_random_state(self):
        first = self.seen()[0]
        torch.manual_seed(99)
        assert all(map(torch.equal, first, self.seen()[0]))

    def test_move_no_random_state(self):
        states = []
        for unlabelled in (None, "mixed"):
            trainer = make_trainer(student_net(), [handler_of(DistillationTerm(soften, 0.5), unlabelled=unlabelled)])
            torch.manual_seed(99)
            trainer.run()
            states.append(torch.get_rng_state())
        assert torch.equal(*states)

    def test_labels_count_for_the_own_images_alone(self):
        log = []
        note = On(Events.ITERATION_COMPLETED, lambda engine: log.append(loss_terms(engine.state.output)))
        make_trainer(student_net(), [handler_of(DistillationTerm(soften, 0.5), unlabelled="mixed"), note]).run()
        student, batch = student_net().train(), make_batches()[0]
        blends = self.seen()[0][0]
        pred = student(blends)[: len(batch["image"])]  # batch normalization sees both
        assert log[0]["loss_supervised"] == pytest.approx(segmentation_loss(pred, batch["label"]).item(), rel=1e-5)

    def test_resume_is_exact(self, tmp_path):
        whole = resumable(4, tmp_path / "whole", unlabelled="mixed")
        resumable(2, tmp_path / "parts", unlabelled="mixed")
        assert same(resumable(4, tmp_path / "parts", load=tmp_path / "parts" / "2.pt", unlabelled="mixed"), whole)

    def test_one_image_is_refused(self):
        handler = handler_of(DistillationTerm(soften), unlabelled="mixed")
        with pytest.raises(ValueError, match="must have batches of 2 images or more to blend, but got 1"):
            make_trainer(student_net(), [handler], data=make_data()[:1]).run()

    def test_another_word_is_refused(self):
        with pytest.raises(ValueError, match="`unlabelled` must be a loader or 'mixed', but got 'mixup'"):
            handler_of(DistillationTerm(soften), unlabelled="mixup")

    def test_summary(self):
        assert (
            handler_of(DistillationTerm(soften), unlabelled="mixed").summary().endswith("also on blends of its images")
        )


def _share(blend, one, other):
    """The share of one image in the blend of two, by least squares."""
    return float(((blend - other) * (one - other)).sum() / (one - other).square().sum())


def resumable(epochs, folder, load=None, unlabelled=None):
    torch.manual_seed(epochs)
    student = student_net(dropout=0.3)
    optimizer = adam(student.parameters())
    loader = DataLoader(unlabelled_data(20), batch_size=3, shuffle=True)
    handler = handler_of(DistillationTerm(soften, "auto"), unlabelled=loader if unlabelled is None else unlabelled)
    trainer = make_trainer(student, [], epochs=epochs, optimizer=optimizer)
    saved = {"network": student, "optimizer": optimizer, "trainer": trainer, "distillation": handler}
    reader = [] if load is None else [CheckpointLoader(str(load), saved)]
    saver = CheckpointSaver(str(folder), saved, save_final=True, final_filename=f"{epochs}.pt")
    for each in [handler, EpochSeedHandler(3), *reader, saver]:
        each.attach(trainer)
    trainer.run()
    return student


def test_2_and_2_epochs_are_4(tmp_path):
    whole = resumable(4, tmp_path / "whole")
    resumable(2, tmp_path / "parts")
    assert same(resumable(4, tmp_path / "parts", load=tmp_path / "parts" / "2.pt"), whole)


class TestRefusals:
    def test_iterator(self):
        with pytest.raises(TypeError, match="`unlabelled` must be a loader that can be started in each epoch"):
            handler_of(DistillationTerm(soften), unlabelled=iter(unlabelled_loader()))

    def test_empty(self):
        handler = handler_of(DistillationTerm(soften), unlabelled=[])
        with pytest.raises(ValueError, match="`unlabelled` must give at least one batch"):
            make_trainer(student_net(), [handler]).run()

    def test_other_size(self):
        handler = handler_of(DistillationTerm(soften), unlabelled=[{"image": torch.zeros(2, 1, 8, 8)}])
        with pytest.raises(ValueError, match=r"`image` of `unlabelled` must have.*\(1, 8, 8\) and \(1, 16, 16\)"):
            make_trainer(student_net(), [handler]).run()

    def test_other_keys(self):
        handler = handler_of(DistillationTerm(soften), unlabelled=[{"img": torch.zeros(2, 1, 16, 16)}])
        with pytest.raises(ValueError, match=r"`unlabelled` must hold \['image'\], but got \['img'\]"):
            make_trainer(student_net(), [handler]).run()

    def test_behind_another_handler(self):
        first = handler_of(DistillationTerm(soften, name="first"))
        second = handler_of(DistillationTerm(soften, name="second"), unlabelled=unlabelled_loader())
        with pytest.raises(ValueError, match="must be the first handler that distils"):
            make_trainer(student_net(), [first, second]).run()


def test_batches_of_tensors():
    images = [item["image"] for item in unlabelled_data()]
    first, second = student_net(), student_net()
    for student, loader in ((first, DataLoader(images, batch_size=3)), (second, unlabelled_loader())):
        handler = handler_of(DistillationTerm(soften, 0.5), unlabelled=loader)
        make_trainer(student, [handler]).run()
    assert same(first, second)


def test_several_outputs():
    student = student_net(scales=2)
    handler = DistillationHandler(
        Teacher(teacher_net()), [DistillationTerm(soften, 0.5, outputs="all")], unlabelled=unlabelled_loader()
    )
    loss = lambda pred, label: segmentation_loss(pred[0], label)  # noqa: E731
    before = copy.deepcopy(student)
    make_trainer(student, [handler], loss_function=loss, decollate=False).run()
    assert not same(before, student)
    assert isinstance(student, nn.Module)
