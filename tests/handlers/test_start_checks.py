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

"""What is refused before the first step: arguments, engines, weights, names and networks that do not fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.engines import AdversarialTrainer, GanTrainer, SupervisedEvaluator, SupervisedTrainer
from torch import nn
from torch.utils.data import DataLoader

from monai_kd.handlers import DistillationHandler, DistillationTerm
from monai_kd.handlers._start_checks import check_ranks, check_unused_parameters
from monai_kd.networks import Teacher, TeacherTeam
from tests.handlers.engine_case import Net, hint, make_data, same, soften, student_net
from tests.handlers.training import adam, distil, handler_of, make_trainer


def cnn() -> nn.Module:
    return nn.Conv2d(1, 2, 1)


@pytest.fixture
def handler() -> DistillationHandler:
    return handler_of(DistillationTerm(soften))


class TestArguments:
    def test_teacher_of_another_type(self):
        with pytest.raises(TypeError, match="`teacher` must be a Teacher or TeacherTeam, but got Conv2d; pass"):
            DistillationHandler(cnn(), [DistillationTerm(soften)])

    def test_term_of_another_type(self):
        with pytest.raises(TypeError, match="`terms` must hold DistillationTerm, but got function"):
            handler_of(soften)

    def test_unknown_member_of_a_team(self):
        team = TeacherTeam({"big": Teacher(cnn()), "wide": Teacher(cnn())})
        with pytest.raises(ValueError, match=r"of term `soften` must be one of \['big', 'wide'\], but got `deep`"):
            DistillationHandler(team, [DistillationTerm(soften, teacher="deep")])

    def test_one_term_needs_no_list_and_names_are_numbered(self):
        assert list(DistillationHandler(Teacher(cnn()), DistillationTerm(soften)).terms) == ["soften"]
        terms = [DistillationTerm(soften), DistillationTerm(soften), DistillationTerm(soften, name="soften_2")]
        assert list(handler_of(*terms).terms) == ["soften", "soften_2", "soften_2_2"]

    @pytest.mark.parametrize("name", ["supervised", "kd_weighted"])
    def test_name_that_the_log_uses(self, name):
        with pytest.raises(ValueError, match=f"must not be one that the log uses, but got `{name}`"):
            handler_of(DistillationTerm(soften, name=name))


class TestEngines:
    def test_iteration_update(self, handler):
        with pytest.raises(ValueError, match="must fire MONAI's .* with `iteration_update`, which replaces the step"):
            make_trainer(cnn(), [handler], iteration_update=lambda engine, batch: {"loss": 0.0})

    def test_plain_ignite_engine(self, handler):
        with pytest.raises(ValueError, match="but got Engine which is no MONAI trainer; the terms could not reach"):
            handler.attach(Engine(lambda engine, batch: None))

    def test_evaluator(self, handler):
        with pytest.raises(ValueError, match="but got SupervisedEvaluator which does not fire them"):
            SupervisedEvaluator(torch.device("cpu"), make_data(), cnn(), val_handlers=[handler])

    def test_gan_trainer(self, handler):
        parts = [cnn(), adam(cnn().parameters()), hint] * 2
        with pytest.raises(ValueError, match="but got GanTrainer which does not fire them"):
            GanTrainer(
                torch.device("cpu"),
                1,
                DataLoader(make_data()),
                *parts,
                train_handlers=[handler],
            )

    def test_adversarial_trainer(self, handler):
        generator, discriminator = [[cnn(), adam(cnn().parameters()), hint] for _ in range(2)]
        with pytest.raises(ValueError, match="but got AdversarialTrainer which does not fire them"):
            AdversarialTrainer(
                torch.device("cpu"),
                1,
                make_data(),
                *generator,
                hint,
                *discriminator,
                train_handlers=[handler],
            )

    def test_trainer_that_keeps_its_events_to_itself(self, handler):
        class Silent(SupervisedTrainer):
            def _iteration(self, engine: Any, batchdata: Any) -> dict:
                engine.state.output = {"pred": None, "loss": 0.0}
                return engine.state.output

        student = cnn()
        trainer = Silent(
            "cpu",
            1,
            make_data(),
            student,
            adam(student.parameters()),
            hint,
            train_handlers=[handler],
        )
        with pytest.raises(ValueError, match="but got Silent which does not fire them"):
            trainer.run()


class TestWeights:
    def test_shared_weights(self):
        network = Net()
        handler = DistillationHandler(Teacher(network), [DistillationTerm(soften)])
        with pytest.raises(ValueError, match="`teacher` must not share weights or buffers with the student, but got a"):
            make_trainer(network, [handler]).run()

    def test_one_shared_layer(self):
        student, network = Net(), Net()
        student.head.weight = network.head.weight
        with pytest.raises(ValueError, match="`teacher` must not share weights"):
            distil(student, [DistillationTerm(soften)], network)

    @pytest.mark.parametrize("team", [False, True])
    @pytest.mark.parametrize("what", ["assigned", "statistics", "view", "data"])
    def test_shared_memory(self, what, team):
        student, network = Net(), Net()
        if what == "assigned":
            student.load_state_dict(network.state_dict(), assign=True)
            student.requires_grad_(True)
        elif what == "statistics":
            student.norm.running_var = network.norm.running_var
        elif what == "view":
            flat = torch.zeros(6)
            student.norm.bias.data, network.norm.bias.data = flat[:4], flat[2:]
        else:
            student.head.weight.data = network.head.weight.data
        teacher = TeacherTeam({"a": Teacher(Net()), "b": Teacher(network)}) if team else network
        before = {name: value.clone() for name, value in network.state_dict().items()}
        who = "`b." if team else "`"
        with pytest.raises(ValueError, match=f"not share weights or buffers .*: {who}.*` of the teacher is `.*deep"):
            distil(student, [DistillationTerm(soften)], teacher)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    def test_weights_that_the_teacher_ties_within_itself(self):
        network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
        network[1].weight = network[0].weight
        distil(nn.Conv2d(1, 2, 1), [DistillationTerm(soften)], nn.Sequential(network, cnn()), epochs=1)

    def test_optimizer_with_the_memory_of_the_teacher(self):
        student, network = Net(), Net()
        optimizer = adam([*student.parameters(), nn.Parameter(network.head.weight.data)])
        with pytest.raises(ValueError, match="hold the teacher's weights, but got `head.weight`; give it"):
            distil(student, [DistillationTerm(soften)], network, optimizer=optimizer)

    def test_teacher_in_the_optimizer(self):
        student, network = Net(), Net()
        optimizer = adam([*student.parameters(), *network.parameters()])
        with pytest.raises(ValueError, match="hold the teacher's weights, but got `.*`; give it `student.parameters"):
            distil(student, [DistillationTerm(soften)], network, optimizer=optimizer)


class TestNames:
    def test_that_two_handlers_of_a_trainer_share(self):
        student, other = student_net(), handler_of(DistillationTerm(soften), DistillationTerm(hint))
        with pytest.raises(
            ValueError, match=r"but got \['hint'\] in both \['hint', 'kd'\] and \['soften', 'hint'\]; give .* another"
        ):
            distil(student, [DistillationTerm(hint), DistillationTerm(soften, name="kd")], handlers=[other])
        assert same(student, student_net())

    def test_that_handlers_of_two_trainers_share(self):
        for student in (student_net(), student_net()):
            _, trainer = distil(student, [DistillationTerm(soften, 0.1)], epochs=1)
            assert "loss_soften" in trainer.state.output[0]


def test_one_process_waits_for_no_other():
    check_ranks(["kd"], timeout=None)


@pytest.mark.parametrize(("network", "refused"), [(True, True), (False, False), (None, False)])
def test_unused_parameters(network, refused):
    network = cnn() if network is None else SimpleNamespace(find_unused_parameters=network)
    if refused:
        with pytest.raises(ValueError, match="`find_unused_parameters` must be False where a term listens to a layer"):
            check_unused_parameters(network)
    else:
        check_unused_parameters(network)
