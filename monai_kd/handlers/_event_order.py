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

"""The order of the handlers of an event, as ignite lists them."""

from __future__ import annotations

from typing import Any

from ignite.engine import Events

from monai_kd._private_attributes import handlers_of, unfiltered


def owners(engine: Any, event: Any) -> list[Any]:
    """
    What the handlers of an event belong to, in the order of their calls: the object of a bound method, an object that
    can be called itself, or a function.
    """
    handlers = [unfiltered(entry[0]) for entry in handlers_of(engine, event)]
    return [getattr(handler, "__self__", handler) for handler in handlers]


def call_first(engine: Any, event: Events, handler: Any) -> None:
    """Call an attached handler before all others of the event: one of them may raise, and end the calls."""
    _move(engine, event, handler, lambda entries, entry: entries.insert(0, entry))


def call_last(engine: Any, event: Events, handler: Any) -> None:
    """Call an attached handler after all others of the event."""
    _move(engine, event, handler, lambda entries, entry: entries.append(entry))


def _move(engine: Any, event: Events, handler: Any, put: Any) -> None:
    entries = handlers_of(engine, event)
    entry = next(entry for entry in entries if entry[0] == handler)
    entries.remove(entry)
    put(entries, entry)
