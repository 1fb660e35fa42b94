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

"""Two epochs, a checkpoint and two more epochs are four epochs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.handlers import CheckpointLoader, CheckpointSaver, LrScheduleHandler
from torch.utils.data import DataLoader

from monai_kd.handlers import DistillationTerm, EpochSeedHandler, LinearSchedule
from monai_kd.networks import ChannelAdapter
from tests.handlers.engine_case import hint, make_data, same, soften, student_net
from tests.handlers.training import adam, handler_of, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")


class Cooling:
    """A loss whose temperature a schedule sets."""

    def __init__(self) -> None:
        self.temperature = 1.0

    def __call__(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return soften(student / self.temperature, teacher / self.temperature, label)


def run(epochs: int, folder: Path, load: Path | None = None, load_first: bool = False) -> SimpleNamespace:
    """One process of training, all that a checkpoint needs in it; weight and temperature change over four epochs."""
    torch.manual_seed(17 + epochs)  # a resumed process starts from another random state
    student = student_net(dropout=0.3)
    optimizer = adam(student.parameters())
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.7)
    adapter = ChannelAdapter(4, 6)
    if load is None:
        torch.nn.init.ones_(adapter.projection.weight)
    terms = [
        DistillationTerm(Cooling(), LinearSchedule(0.0, 1.0, 4), temperature=LinearSchedule(4.0, 1.0, 3)),
        DistillationTerm(hint, LinearSchedule(1.0, 0.5, 2, begin=1), "middle", "middle", adapter),
    ]
    handler = handler_of(*terms)
    trainer = make_trainer(student, [EpochSeedHandler(3)], epochs=epochs, optimizer=optimizer)
    trainer.data_loader = DataLoader(make_data(), batch_size=2, shuffle=True)
    saved = {"network": student, "optimizer": optimizer, "lr": scheduler, "trainer": trainer, "distillation": handler}
    loader = [] if load is None else [CheckpointLoader(str(load), saved)]
    schedule = LrScheduleHandler(scheduler, print_lr=False)
    saver = CheckpointSaver(str(folder), saved, save_final=True, final_filename=f"{epochs}.pt")
    for each in [*loader, handler, schedule, saver] if load_first else [handler, *loader, schedule, saver]:
        each.attach(trainer)
    trainer.run()
    return SimpleNamespace(student=student, adapter=adapter, optimizer=optimizer, trainer=trainer, loss=terms[0].loss)


def test_2_and_2_epochs_are_4(tmp_path):
    whole = run(4, tmp_path / "whole")
    first = run(2, tmp_path / "parts")
    second = run(4, tmp_path / "parts", load=tmp_path / "parts" / "2.pt")
    assert same(second.student, whole.student)
    assert same(second.adapter, whole.adapter)
    assert not same(first.adapter, whole.adapter)
    states = second.optimizer.state_dict(), whole.optimizer.state_dict()
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert second.trainer.state.iteration == whole.trainer.state.iteration == 16
    assert second.loss.temperature == whole.loss.temperature == 1.0


def test_loading_before_the_adapters_have_joined_is_refused(tmp_path):
    run(2, tmp_path)
    with pytest.raises(ValueError, match="`CheckpointLoader` must be attached after `DistillationHandler`, whose"):
        run(4, tmp_path, load=tmp_path / "2.pt", load_first=True)


@pytest.mark.parametrize("joined", [True, False])
def test_loader_may_come_first_where_no_adapter_is_to_join(joined):
    """Adapters that are in the optimizer already, and weights alone."""
    student, adapter = student_net(), ChannelAdapter(4, 6)
    optimizer = adam([*student.parameters(), *(adapter.parameters() if joined else ())])
    loader = CheckpointLoader("nowhere.pt", {"network": student} | ({"optimizer": optimizer} if joined else {}))
    handler = handler_of(DistillationTerm(hint, 1.0, "middle", "middle", adapter))
    trainer = make_trainer(student, [loader, handler], optimizer=optimizer)
    assert trainer.has_event_handler(handler._start)
