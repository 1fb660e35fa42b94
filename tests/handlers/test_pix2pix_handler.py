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
import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import AdversarialTrainer
from monai.handlers import StatsHandler
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from torch.nn import functional as F
from torch.utils.data import DataLoader

from monai_kd.handlers import Pix2PixHandler, loss_terms
from tests.handlers.engine_case import make_batches, make_data, same, seeded, student_net
from tests.handlers.training import adam, make_trainer, segmentation_loss


def patch_net(classes: int = 2) -> Any:
    return seeded(lambda: PatchDiscriminator(2, 4, 1 + classes, num_layers_d=1, norm="instance"), 5)


def binary_loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, label)


def train(classes: int = 2, epochs: int = 2, handlers: Any = (), data: Any = None) -> SimpleNamespace:
    """MONAI's trainer on the case with the handler and LSGAN, of which a tenth counts."""
    generator, discriminator, log = student_net(classes=classes), patch_net(classes), []
    lsgan = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
    trainer = AdversarialTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(make_data() if data is None else data, batch_size=2),
        g_network=generator,
        g_optimizer=adam(generator.parameters()),
        g_loss_function=lambda maps: 0.1 * lsgan(maps[-1], True, False),
        recon_loss_function=binary_loss if classes == 1 else segmentation_loss,
        d_network=discriminator,
        d_optimizer=adam(discriminator.parameters()),
        d_loss_function=lambda real, fake: (lsgan(real[-1], True, True) + lsgan(fake[-1], False, True)) / 2,
        train_handlers=[Pix2PixHandler(), *handlers],
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: log.append(loss_terms(engine.state.output)))
    trainer.run()
    return SimpleNamespace(generator=generator, discriminator=discriminator, trainer=trainer, log=log)


def by_hand(classes: int) -> SimpleNamespace:
    """Pix2pix as one would write it out."""
    generator, discriminator, log = student_net(classes=classes), patch_net(classes), []
    optimizers = adam(generator.parameters()), adam(discriminator.parameters())
    for batch in make_batches() * 2:
        image, label = batch["image"], batch["label"]
        logits = generator.train()(image)
        probability = logits.sigmoid() if classes == 1 else logits.softmax(1)
        truth = label if classes == 1 else torch.cat([1 - label, label], 1)
        frozen = copy.deepcopy(discriminator).requires_grad_(False)
        fooled = frozen(torch.cat([image, probability], 1))[-1]
        supervised = (binary_loss if classes == 1 else segmentation_loss)(logits, label)
        adversarial = 0.1 * F.mse_loss(fooled, torch.ones_like(fooled))
        optimizers[0].zero_grad()
        (supervised + adversarial).backward()
        optimizers[0].step()
        real = discriminator(torch.cat([image, truth], 1))[-1]
        fake = discriminator(torch.cat([image, probability.detach()], 1))[-1]
        own = (F.mse_loss(real, torch.ones_like(real)) + F.mse_loss(fake, torch.zeros_like(fake))) / 2
        optimizers[1].zero_grad()
        own.backward()
        optimizers[1].step()
        values = (supervised + adversarial).item(), supervised.item(), adversarial.item(), own.item()
        log.append(dict(zip(("loss", "loss_supervised", "loss_adversarial", "loss_discriminator"), values)))
    return SimpleNamespace(generator=generator, discriminator=discriminator, log=log)


@pytest.mark.parametrize("classes", [1, 2])
def test_equals_the_loop_by_hand(classes):
    trained, expected = train(classes), by_hand(classes)
    assert same(trained.generator, expected.generator)
    assert same(trained.discriminator, expected.discriminator)
    assert not same(trained.discriminator, patch_net(classes))
    for own, values in zip(trained.log, expected.log, strict=True):
        assert own == pytest.approx(values, rel=1e-6)


def test_meta_tensors_and_one_hot_labels():
    data = [{key: MetaTensor(value) for key, value in item.items()} for item in make_data()]
    one_hot = [item | {"label": torch.cat([1 - item["label"], item["label"]])} for item in make_data()]
    plain = train(epochs=1)
    assert same(train(epochs=1, data=data).generator, plain.generator)
    handler, engine = Pix2PixHandler(), plain.trainer
    engine.state.output = {
        "pred": torch.zeros(1, 2, 16, 16),
        "image": one_hot[0]["image"][None],
        "label": one_hot[0]["label"][None],
    }
    handler._show_pairs(engine)
    assert torch.equal(engine.state.output["reals"][:, 1:], one_hot[0]["label"][None])
    assert torch.equal(engine.state.output["fakes"][:, 1:], torch.full((1, 2, 16, 16), 0.5))


def test_checkpoint_holds_no_pickled_network():
    trained, file = train(epochs=1), io.BytesIO()
    torch.save(trained.trainer.state_dict(), file)
    file.seek(0)
    assert set(torch.load(file, weights_only=True)) == {"epoch_length", "iteration", "max_epochs"}


def test_second_run_goes_on():
    """Its first epochs are those of a run of one."""
    trained = train(epochs=1)
    trained.trainer.state.max_epochs = 2
    trained.trainer.run()
    assert same(trained.generator, train(epochs=2).generator)


def test_losses_are_logged(capsys):
    train(epochs=1, handlers=[StatsHandler(name="pix2pix_stats", output_transform=loss_terms)])
    lines = [line for line in capsys.readouterr().out.splitlines() if "Iter:" in line]
    assert len(lines) == 4
    assert all(f"{name}: " in lines[-1] for name in ("loss_supervised", "loss_adversarial", "loss_discriminator"))


def test_attached_twice_is_attached_once():
    handler = Pix2PixHandler()
    assert same(train(epochs=1, handlers=[handler, handler]).generator, train(epochs=1).generator)


def test_other_trainers_are_refused():
    with pytest.raises(ValueError, match="`engine` must be MONAI's AdversarialTrainer, but got SupervisedTrainer"):
        make_trainer(student_net(), [Pix2PixHandler()])
