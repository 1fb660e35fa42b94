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

"""Writers of a trainer and of its evaluator."""

from __future__ import annotations

from ignite.engine import Engine, Events

from monai_kd.bundle import attach_writers


class Writer:
    def __init__(self, said: list[str], name: str) -> None:
        self.said, self.name = said, name

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda: self.said.append(self.name))


def test_each_writes_for_its_engine():
    said: list[str] = []
    trainer, evaluator = (Engine(lambda engine, batch: None) for _ in range(2))
    writers = {name: [Writer(said, name)] for name in ("train", "validation")}
    attach_writers(trainer, evaluator, **writers)
    evaluator.run([0])
    assert said == ["validation"]
    trainer.run([0])
    assert said == ["validation", "train"]
