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

import multiprocessing
import signal
from multiprocessing.context import SpawnProcess

import pytest
from torch.utils.data import DataLoader

from monai_kd.data.quiet_workers import QuietProcess, QuietSpawn, quiet_workers


def context_of(method, num_workers=1):
    loader = DataLoader([1, 2], num_workers=num_workers, multiprocessing_context=method)
    quiet_workers(loader)
    return loader.multiprocessing_context


def test_spawned_workers_alone_get_the_context(monkeypatch):
    assert isinstance(context_of("spawn"), QuietSpawn)
    assert not isinstance(context_of("fork"), QuietSpawn)
    assert context_of(None, num_workers=0) is None
    monkeypatch.setattr(multiprocessing, "get_context", lambda: QuietSpawn())  # where spawning is the default
    assert isinstance(context_of(None), QuietSpawn)


def test_ctrl_c_is_ignored_while_a_worker_starts_and_not_behind(monkeypatch):
    seen = []
    monkeypatch.setattr(SpawnProcess, "start", lambda self: seen.append(signal.getsignal(signal.SIGINT)))
    before = signal.getsignal(signal.SIGINT)
    QuietSpawn().Process(target=print).start()
    assert seen == [signal.SIG_IGN]
    assert signal.getsignal(signal.SIGINT) is before


def test_handler_comes_back_where_a_worker_does_not_start(monkeypatch):
    def fail(self):
        raise OSError("no memory")

    monkeypatch.setattr(SpawnProcess, "start", fail)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError, match="no memory"):
        QuietProcess(target=print).start()
    assert signal.getsignal(signal.SIGINT) is before


def test_worker_ignores_ctrl_c():
    before = signal.getsignal(signal.SIGINT)
    try:
        QuietProcess(target=signal.raise_signal, args=(signal.SIGINT,)).run()  # or KeyboardInterrupt
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
