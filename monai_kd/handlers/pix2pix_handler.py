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

"""A segmentation network as the generator of pix2pix."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import AdversarialTrainer
from monai.networks import one_hot
from monai.utils.enums import AdversarialIterationEvents, AdversarialKeys

from monai_kd.handlers.distillation_term import single
from monai_kd.losses._channels import probabilities
from monai_kd.networks.teacher import plain


class Pix2PixHandler:
    """
    Lets MONAI's ``AdversarialTrainer`` train a segmentation network as pix2pix trains its generator (Isola et al., CVPR
    2017), as XP-Net does its second teacher (EndoCV 2022, 2.1): the discriminator D sees pairs of image x and
    segmentation, real with the label y, fake with the network's probabilities p,

    .. math::
        L_G &= L_{supervised}(p, y) + GAN[D(x, p)] \\\\
        L_D &= GAN[D(x, y), D(x, p)]

    By itself the trainer shows D the image as the real one, and the network's output without the image as the fake. It
    also pickles both networks into its state, so that a resumed one would go on with copies of them; here they are
    left out, to be saved beside it: ``CheckpointSaver(save_dict={"trainer": ..., "network": ..., "discriminator":
    ..., and both optimizers})``.

    The supervised loss gets the network's output and the label, as in any trainer. Of one channel the probability is
    the sigmoid, of several the softmax, and the label then one-hot. With ``PatchAdversarialLoss`` and least squares,
    ``no_activation_leastsq=True`` makes it the loss of LSGAN.

    Each iteration puts ``loss``, ``loss_supervised``, ``loss_adversarial`` and ``loss_discriminator`` into
    ``engine.state.output``, for :py:func:`~monai_kd.handlers.loss_terms`.

    Raises:
        ValueError: when the engine is no ``AdversarialTrainer``.

    Example, in a bundle::

        train_handlers: [{_target_: monai_kd.handlers.Pix2PixHandler}, ...]
    """

    def attach(self, engine: Engine) -> None:
        """Register with a trainer. Attaching twice changes nothing."""
        if not isinstance(engine, AdversarialTrainer):
            raise ValueError(f"`engine` must be MONAI's AdversarialTrainer, but got {type(engine).__name__}.")
        if not engine.has_event_handler(self._start):
            engine.add_event_handler(Events.STARTED, self._start)  # the trainer is not made yet where it attaches

    def _start(self, engine: Any) -> None:
        keys = engine.state_dict_user_keys
        keys[:] = [key for key in keys if not key.startswith(("g_", "d_", "recon_"))]
        if engine.has_event_handler(self._show_pairs):
            return
        events = AdversarialIterationEvents
        engine.add_event_handler(events.GENERATOR_FORWARD_COMPLETED, self._show_pairs)
        engine.add_event_handler(events.GENERATOR_DISCRIMINATOR_FORWARD_COMPLETED, self._show_prediction)
        engine.add_event_handler(events.GENERATOR_LOSS_COMPLETED, self._name_losses)
        engine.add_event_handler(events.GENERATOR_MODEL_COMPLETED, self._show_pairs)
        engine.add_event_handler(events.DISCRIMINATOR_LOSS_COMPLETED, self._name_discriminators_loss)

    @staticmethod
    def _show_pairs(engine: Any) -> None:
        """For the discriminator."""
        output = engine.state.output
        logits, image, label = single(output["pred"]), plain(output["image"]), plain(output["label"])
        if logits.shape[1] > 1 and label.shape[1] == 1:
            label = one_hot(label, logits.shape[1])
        output[AdversarialKeys.FAKES] = torch.cat([image, probabilities(logits)], dim=1)
        output[AdversarialKeys.REALS] = torch.cat([image, label.to(image.dtype)], dim=1)

    @staticmethod
    def _show_prediction(engine: Any) -> None:
        """For the supervised loss."""
        engine.state.output[AdversarialKeys.FAKES] = engine.state.output["pred"]

    @staticmethod
    def _name_losses(engine: Any) -> None:
        output = engine.state.output
        supervised, adversarial = output[AdversarialKeys.RECONSTRUCTION_LOSS], output[AdversarialKeys.GENERATOR_LOSS]
        output["loss_supervised"], output["loss_adversarial"] = supervised.detach(), adversarial.detach()
        output["loss"] = output["loss_supervised"] + output["loss_adversarial"]  # the trainer has it with AMP alone

    @staticmethod
    def _name_discriminators_loss(engine: Any) -> None:
        output = engine.state.output
        output["loss"] = output["loss"].detach()
        output["loss_discriminator"] = output[AdversarialKeys.DISCRIMINATOR_LOSS].detach()
