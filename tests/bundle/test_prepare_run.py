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

"""The order in which a run is prepared."""

from __future__ import annotations

import pytest

from monai_kd.bundle.prepare_run import prepare_run


class Writer:
    def __init__(self, said: list) -> None:
        self.said = said

    def attach(self, engine: str) -> None:
        self.said.append(engine)


def test_writers_are_attached_after_the_checks(monkeypatch):
    said: list = []
    monkeypatch.setitem(prepare_run.__globals__, "log_run", lambda *words: said.append(words))
    prepare_run("trainer", "evaluator", ["handler"], "model.pt", [Writer(said)], [Writer(said)])
    assert said == [("trainer", "evaluator", ["handler"], "model.pt"), "trainer", "evaluator"]


def test_a_run_that_is_refused_attaches_nothing(monkeypatch):
    said: list = []

    def refuse(*words: object) -> None:
        raise ValueError("no")

    monkeypatch.setitem(prepare_run.__globals__, "log_run", refuse)
    with pytest.raises(ValueError, match="no"):
        prepare_run("trainer", "evaluator", [], "model.pt", [Writer(said)])
    assert said == []
