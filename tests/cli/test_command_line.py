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

import importlib
import inspect
import subprocess
import sys

import pytest

import monai_kd
from monai_kd import cli
from monai_kd.cli import help_text, verbs


@pytest.fixture
def verb(monkeypatch):
    """A verb that keeps what it is called with."""
    calls = []

    def grow(*folders: str, output: str = "page.html", seed: int = 0, quick: bool = False):
        """
        Grow a tree.

        Args:
            folders: where it
                stands.
            output: its picture.
            seed: what is sown.
        """
        calls.append((folders, output, seed, quick))
        if seed == 1:
            raise ValueError("`seed` must not\nbe odd, but got 1.")
        if seed == 2:
            raise KeyError("a defect")
        if seed == 5:
            raise KeyboardInterrupt
        return "a tree"

    monkeypatch.setattr(verbs, "VERBS", {"grow": ("garden", "grow a tree")})
    monkeypatch.setattr(verbs.importlib, "import_module", lambda name: type("Module", (), {"grow": staticmethod(grow)}))
    return calls


@pytest.mark.parametrize("word", [[], ["-h"], ["--help"], ["help"]])
def test_help_lists_one_line_a_verb(word, capsys):
    assert cli.main(word) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("  ")] == list(cli.VERBS)
    assert next(iter(cli.VERBS)) == "demo"
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_is_there_and_documents_its_arguments(verb, capsys):
    function = getattr(importlib.import_module(cli.VERBS[verb][0]), verb)
    assert cli.main([verb, "--help"]) == 0
    shown = capsys.readouterr().out.splitlines()
    for name in inspect.signature(function).parameters:
        line = next(line for line in shown if line.startswith(f"  {name} "))
        assert len(line.removeprefix(f"  {name}").partition("(default")[0].strip()) > 3, name


def test_help_is_quick():
    code = "import sys; from monai_kd.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("grow", ((), "page.html", 0, False)),
        ("grow a b --seed 3", (("a", "b"), "page.html", 3, False)),
        ("grow --output=x.html a --quick", (("a",), "x.html", 0, True)),
        ("grow --quick off", ((), "page.html", 0, False)),
        ("grow a --noquick", (("a",), "page.html", 0, False)),
        ("grow 2024_01 --output 7", (("2024_01",), "7", 0, False)),  # names that look like numbers stay names
    ],
)
def test_words_become_arguments(words, call, verb, capsys):
    assert cli.main(words.split()) == 0
    assert verb == [call]
    assert capsys.readouterr().out == "a tree\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("grwo", "`verb` must be one of grow, but got 'grwo' (did you mean grow?)"),
        ("grow --sead 3", "`grow` takes --folders, --output, --seed, --quick, but got --sead (did you mean --seed?)"),
        ("grow --hlp", "but got --hlp (did you mean --help?)."),
        ("grow --zzz=3", "but got --zzz."),
        ("grow --nooutput", "but got --nooutput"),
        ("grow --output --seed 3", "`--output` must have a value, but got none"),
        ("grow --seed", "`--seed` must have a value, but got none"),
        ("grow --seed three", "grow: `seed` must be a whole number >= 0, but got 'three'; the default is 0."),
        ("grow --seed 1.5", "grow: `seed` must be a whole number >= 0, but got 1.5; the nearest are 1 and 2."),
        ("grow --quick a", "grow: `quick` must be true or false, but got 'a'; the default is false."),
        ("grow --seed {[]:1}", "grow: "),
        ("grow --seed $1+1", "grow: `seed` must be a value as 0, but got '$1+1'."),
    ],
)
def test_wrong_words_are_refused_before_anything_runs(words, message, verb, capsys):
    assert cli.main(words.split()) == 2
    shown = capsys.readouterr()
    assert verb == []
    assert message in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("words", "message"), [("layers", "required argument: bundle"), ("bundles list a b c", "Could not consume arg: c")]
)
def test_missing_and_surplus_arguments_are_refused(words, message, capsys):
    assert cli.main(words.split()) == 2
    assert message in capsys.readouterr().err


def test_error_of_the_input_is_one_line(verb, capsys):
    assert cli.main(["grow", "--seed=1"]) == 1
    assert capsys.readouterr().err == (
        "error: `seed` must not be odd, but got 1.\n(MONAI_KD_TRACEBACK=1 shows where)\n"
    )


def test_defect_is_one_line_with_its_class(verb, capsys):
    assert cli.main(["grow", "--seed=2"]) == 1
    assert capsys.readouterr().err.startswith("error: KeyError: 'a defect'\n")


def test_traceback_on_demand(verb, monkeypatch):
    monkeypatch.setenv("MONAI_KD_TRACEBACK", "1")
    with pytest.raises(ValueError, match="`seed` must not"):
        cli.main(["grow", "--seed=1"])


def test_interrupt_is_one_line(verb, capsys):
    assert cli.main(["grow", "--seed=5"]) == 130
    assert capsys.readouterr().err == "\nstopped.\n"


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"monai_kd {monai_kd.__version__}\n"


def test_help_is_whole(capsys):
    """fire's reader of docstrings ends an entry at its second colon."""
    assert cli.main(["report", "--help"]) == 0
    shown = capsys.readouterr().out
    assert (
        """entries of the bundle's configuration by id with which the networks were trained:
            "{'teacher_def::backbone': 'tiny'}". (default: None)"""
        in shown
    )
    assert max(map(len, shown.splitlines())) <= help_text.WIDTH


def test_home_is_not_a_folder_called_tilde(verb, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    assert cli.main(["grow", "~/a", "--output=~/x.html"]) == 0
    assert verb == [(("/home/me/a",), "/home/me/x.html", 0, False)]


def test_bundles_are_listed_without_torch():
    code = "import sys; from monai_kd.cli import main; main(['bundles']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
