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

"""Workers of a DataLoader that leave Ctrl-C to the process that started them."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any


def quiet_workers(loader: Any) -> None:
    """
    Let spawned workers of a DataLoader, as on macOS and Windows, ignore Ctrl-C. It reaches them too, and each would
    end with a traceback of its own. They end with the process that started them. Forked workers have its handler.

    Args:
        loader: a torch DataLoader; one without workers, or with forked ones, stays as it is.

    Example::

        >>> from torch.utils.data import DataLoader
        >>> loader = DataLoader([1, 2, 3], num_workers=1, multiprocessing_context="spawn")
        >>> quiet_workers(loader)
        >>> type(loader.multiprocessing_context).__name__
        'QuietSpawn'
    """
    if getattr(loader, "num_workers", 0) < 1:
        return
    context = loader.multiprocessing_context or multiprocessing.get_context()
    if context.get_start_method() == "spawn":
        loader.multiprocessing_context = QuietSpawn()


class QuietProcess(SpawnProcess):
    """A spawned process that ignores Ctrl-C from its start, while it imports its modules too."""

    def start(self) -> None:
        """Starts it. An ignored signal is inherited (POSIX)."""
        if threading.current_thread() is not threading.main_thread():
            super().start()
            return
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            super().start()
        finally:
            signal.signal(signal.SIGINT, before)

    def run(self) -> None:
        """Runs its target in the new process, where Windows has inherited nothing."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().run()


class QuietSpawn(SpawnContext):
    """Spawns such processes."""

    Process = QuietProcess
