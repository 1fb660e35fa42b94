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

"""Values of a command line are of the type of what they replace."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_kd.bundle.override_value import SWITCHES, override_value

CPU = torch.device("cpu")


@pytest.mark.parametrize("default", [True, False])
@pytest.mark.parametrize("word", [*SWITCHES, "False", "TRUE", " no ", 0, 1, True, False])
def test_text_of_a_boolean_is_the_boolean(word, default):
    """fire hands over the text "false", which is true."""
    expected = str(word).strip().lower() in ("true", "yes", "on", "1")
    assert override_value("distil", word, default) is expected


@pytest.mark.parametrize(
    ("key", "value", "default", "expected"),
    [
        ("batch_size", "16", 8, 16),
        ("max_epochs", 1e2, 60, 100),
        ("learning_rate", "1e-3", 0.1, 0.001),
        ("learning_rate", 1, 0.1, 1),
        ("pmd_weight", 0, 0.1, 0),
        ("pmd_weight", "auto", 0.1, "auto"),
        ("pmd_weight", "0.2", "auto", 0.2),
        ("num_workers", 0, 2, 0),
        ("fold", "3", 0, 3),
        ("optimizer::weight_decay", -1, 0.1, -1),  # a component checks its arguments itself
        ("resize::spatial_size", [8, 8], 8, [8, 8]),
        ("train::trainer::epoch_length", None, 1, None),
        ("patch_size", ("64", 64.0), [384, 384], [64, 64]),
        ("classes", ("liver", 1), ["tumor"], ["liver", "1"]),
        ("window", "liver", [40, 400], "liver"),
        ("window", [40, 400], "liver", [40, 400]),
        ("student_layer", ["a", "b"], "reduce", ["a", "b"]),
        ("dataset_dir", 20240131, "/data", "20240131"),
        ("dataset_dir", Path("a"), "/data", "a"),
        ("ckpt_name", True, "model", "True"),
        ("teacher_imagenet", 3, None, 3),
        ("device", "cpu", CPU, "$torch.device('cpu')"),
        ("device", CPU, CPU, CPU),
        ("max_epochs", "$2 * 3", 60, "$2 * 3"),
        ("pmd_weight", {"_target_": "LinearSchedule"}, 0.1, {"_target_": "LinearSchedule"}),
    ],
)
def test_value_is_brought_to_the_type(key, value, default, expected):
    found = override_value(key, value, default)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        (202401, "2024_01", "2024_01"),
        (1.1, "1.10", "1.10"),
        (("a", "b"), "a,b", "a,b"),
        (["x"], "[x]", "[x]"),
        ("quoted", "'quoted'", "quoted"),
        ("None", "'None'", "None"),
    ],
)
def test_name_is_what_was_written(value, text, expected):
    assert override_value("ckpt_name", value, "model", text) == expected


@pytest.mark.parametrize(
    ("key", "value", "default", "message"),
    [
        ("distil", "fasle", True, "`distil` must be true or false, but got 'fasle'; did you mean false?"),
        ("distil", 2, True, "`distil` must be true or false, but got 2; the default is true."),
        ("amp", None, False, "`amp` must be true or false, but got None; the default is false."),
        ("max_epochs", 1.5, 60, "a whole number >= 1, but got 1.5; the nearest are 1 and 2."),
        ("max_epochs", 0.5, 60, "a whole number >= 1, but got 0.5; the default is 60."),
        ("batch_size", 0, 8, "`batch_size` must be a whole number >= 1, but got 0; the default is 8."),
        ("batch_size", True, 8, "a whole number >= 1, but got True"),
        ("batch_size", "a few", 8, "a whole number >= 1, but got 'a few'"),
        ("num_workers", -1, 2, "`num_workers` must be a whole number >= 0, but got -1"),
        ("seed", -1, 0, "`seed` must be a whole number >= 0, but got -1"),
        ("train::trainer::epoch_length", -1, 1, "a whole number >= 1, but got -1"),
        ("learning_rate", 0, 0.001, "`learning_rate` must be a number > 0, but got 0; the default is 0.001."),
        ("learning_rate", math.nan, 0.001, "a number > 0, but got nan"),
        ("learning_rate", "inf", 0.001, "a number > 0, but got 'inf'"),
        ("pmd_weight", -0.1, 0.1, "`pmd_weight` must be a number >= 0, but got -0.1"),
        ("temperature", "auto", 4.0, "`temperature` must be a number > 0, but got 'auto'"),
        ("threshold", 1.2, 0.5, "`threshold` must be a number from 0 to 1, but got 1.2"),
        ("patch_size", 96, [384, 384], "`patch_size` must be a list, but got 96; give [96, 96] or another one."),
        ("patch_size", [0, 96], [384, 384], "`patch_size` must be a whole number >= 1, but got 0"),
        ("patch_size::1", 0, 384, "`patch_size` must be a whole number >= 1, but got 0"),
        ("classes", "liver", ["tumor"], "`classes` must be a list, but got 'liver'; give ['liver'] or another one."),
        ("classes", [], ["tumor"], "`classes` must not be empty, but got []; the default is ['tumor']."),
        ("student_def", "UNet", {"_target_": "ENet"}, "`student_def` must be a component, as {'_target_': ...}"),
        ("labels", 3, {0: 0}, "`labels` must be a dictionary, or refer to one with @ or $, but got 3."),
        ("teacher_ckpt", None, "t.pt", "`teacher_ckpt` must be a text, but got None; the default is 't.pt'."),
        ("dataset_dir", {"a": 1}, "/data", "`dataset_dir` must be a text, but got {'a': 1}"),
        ("dataset_dir", " ", "/data", "`dataset_dir` must not be empty, but got ' '; the default is '/data'."),
        ("dataset_dir", "a#b", "/data", "`dataset_dir` must not hold #, which MONAI reads as `::`, but got 'a#b'."),
        ("device", "gpu", CPU, "`device` must be a device of torch, as cpu or cuda:1, but got 'gpu'."),
        ("device", "cuda:99", CPU, "`device` must be a device that torch sees, but got 'cuda:99' and torch sees"),
    ],
)
def test_value_of_another_type_is_refused(key, value, default, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        override_value(key, value, default)
    assert message in str(error.value)


def test_none_is_no_name():
    """It would be written to a folder called None."""
    with pytest.raises(ValueError, match="`output_dir` must be a text, but got None; the default is 'eval'"):
        override_value("output_dir", None, "eval", "None")


@pytest.mark.parametrize("name", ["a/b", "..", "../a", ".a", "a\\b", "a.pt", "a:b", "a*", "\0", "a\n", "", "a" * 101])
def test_name_that_is_no_name_of_a_file_is_refused(name):
    """Before the first epoch, and not as its weights are saved."""
    with pytest.raises(ValueError, match="`ckpt_name` must (be the name of a file without folder|not be empty)"):
        override_value("ckpt_name", name, "model")


@pytest.mark.parametrize("default", ["/data", None, ["/data"], {"a": "/data"}])
def test_home_is_expanded(monkeypatch, default):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    given: Any = "~/masks"
    expected: Any = "/home/me/masks"
    if isinstance(default, list):
        given, expected = ["~/masks"], ["/home/me/masks"]
    if isinstance(default, dict):
        given, expected = {"a": "~/masks"}, {"a": "/home/me/masks"}
    assert override_value("output_dir", given, default) == expected


DEFAULTS = st.sampled_from([True, 8, 0, 0.001, "auto", "model", CPU, [64, 64], ["tumor"], {"a": 1}, None])
KEYS = st.sampled_from(["distil", "pmd_weight", "ckpt_name", "dataset_dir", "patch_size", "threshold", "device"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)


@settings(max_examples=200)
@given(KEYS, VALUES, DEFAULTS, st.none() | st.text(max_size=8))
def test_any_value_is_taken_or_refused_in_one_line(key, value, default, text):
    try:
        found = override_value(key, value, default, text)
    except ValueError as error:
        said = str(error)
        found = None
    else:
        said = f"`{key}` must be right, but got it"
    assert f"`{key}` must" in said
    assert "but got" in said
    assert len(said.splitlines()) == 1
    if found is None:
        return
    if isinstance(default, bool) and not isinstance(value, str):
        assert found in (True, False)
    if isinstance(default, (int, float)) and not isinstance(value, str):
        assert math.isfinite(found)


@pytest.mark.parametrize("value", ["paper", "auto", "fixed"])
def test_choice_whose_default_is_auto_is_no_number(value):
    assert override_value("weights", value, "auto") == value
    assert override_value("kd_weight", 0.5, "auto") == 0.5
