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

"""
Writes the bundles from their one source, ``bundles_src/``.

``python tools/build_bundles.py [FOLDER]`` writes them to ``bundles/``, or to another folder. A bundle
``<task>_<method>`` is made for each entry of ``bundles`` in a file of ``bundles_src/tasks``. Its values
are those of ``methods/<method>/method.yaml``, the task's over them, and the entry's over both. Its files
are Jinja templates: those of ``common/``, and those of the method.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "bundles_src"
EVERY = ["evaluate.yaml", "inference.json", "metadata.json", "multi_gpu_train.yaml"]
EVERY += ["resume.yaml", "train_student.yaml", "train_teacher.yaml"]
REMEDY = "make bundles"
WIDTH = 120  # of a README; a comment of a configuration has 100


def build_bundles(folder: Path, source: Path = SOURCE) -> list[Path]:
    """
    Write all bundles. Weights and results in a bundle's folder are left alone.

    Args:
        folder: where the bundles go.
        source: folder of the templates.

    Returns:
        the folders of the bundles.
    """
    templates = environment(source)
    written = []
    for name, values in bundle_values(source):
        target = folder / name
        for part in ("configs", "docs"):
            shutil.rmtree(target / part, ignore_errors=True)
            (target / part).mkdir(parents=True)
        for path, text in files(templates, name, values).items():
            (target / path).write_text(text, encoding="utf-8", newline="\n")
        shutil.copyfile(source / "common" / "logging.conf", target / "configs" / "logging.conf")
        shutil.copyfile(ROOT / "LICENSE", target / "LICENSE")
        written.append(target)
    return written


def bundle_values(source: Path = SOURCE) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and values of each bundle."""
    comparators = read(source / "common" / "comparators.yaml")
    for path in sorted((source / "tasks").glob("*.yaml")):
        task = task_values(path)
        for method, own in task.pop("bundles").items():
            folder = source / "methods" / method
            offered = {name: of for name, of in comparators.items() if method in of.get("of", [method])}
            values = {"comparators": offered} | read(folder / "method.yaml") | {"readme": read(folder / "readme.yaml")}
            values = merged(merged(values, task), own) | {"method": method, "task": path.stem}
            yield f"{path.stem}_{method}", values


def task_values(path: Path) -> dict[str, Any]:
    """Values of a task, over those of the one that it is ``like``."""
    task = read(path)
    like = task.pop("like", None)
    return task if like is None else merged(task_values(path.with_name(f"{like}.yaml")), task)


def files(templates: Environment, name: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a bundle by their paths in it."""
    values = dict(values) | {"bundle": name}
    own = f"methods/{values['method']}"
    found = {}
    for config in ["train.yaml", *EVERY, *values["overlays"]]:
        places = [f"{own}/{config}.j2", f"common/{config}.j2"]
        found[f"configs/{config}"] = templates.select_template(places).render(values)
    words = values | values["readme"]
    words["readme_references"] = [*words["first_references"], *references(words["reference"])]
    readme = templates.get_template(f"tasks/readme/{name}.md.j2").render(words)
    found["docs/README.md"] = filled(readme)
    found["docs/data_license.txt"] = values["data_license"]
    return {path: text.rstrip("\n") + "\n" for path, text in found.items()}


def environment(source: Path = SOURCE) -> Environment:
    """The templates. A value that is missing is an error."""
    made = Environment(
        loader=FileSystemLoader(source),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["comment"] = comment
    made.globals["configs"] = configs
    made.globals["numbered"] = lambda names: {str(number): name for number, name in enumerate(names)}
    made.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return made


def comment(text: str) -> str:
    """A text as comments of at most 100 characters a line."""
    return "\n".join(f"# {line}" for line in _wrapped(text, 98))


def filled(markdown: str) -> str:
    """A Markdown page whose paragraphs and items of lists fill its lines; code and tables stay."""
    blocks, fenced = [], False
    for block in markdown.split("\n\n"):
        code = fenced or block.startswith(("#", "|", "    ", "```", "["))
        fenced = fenced != (block.count("```") % 2 == 1)
        text = block.strip("\n")
        if text:
            blocks.append(text if code else _filled(text))
    return "\n\n".join(blocks)


def _filled(block: str) -> str:
    lines = []
    for parts in _items(block.splitlines()):
        item = " ".join(map(str.strip, parts))
        indent = "  " if item.startswith("- ") else ""
        lines += _wrapped(item, WIDTH, indent)
    return "\n".join(lines)


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return wrap(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _items(lines: Sequence[str]) -> list[list[str]]:
    """Lines by items of a list; a paragraph is one."""
    found: list[list[str]] = []
    for line in lines:
        if line.startswith("- ") or not found:
            found.append([])
        found[-1].append(line)
    return found


def configs(overlays: Sequence[str]) -> str:
    """The argument of ``--config_file``: the training, with overlays over it."""
    files = [f"configs/{file}" for file in ("train.yaml", *overlays)]
    names = ",".join(f"'{file}'" for file in files)
    return f'"[{names}]"' if overlays else files[0]


def references(found: str | Sequence[str]) -> list[str]:
    return [found] if isinstance(found, str) else list(found)


def read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text("utf-8")))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees of values, the second over the first."""
    found = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = merged(found[key], value) if both else value
    return found


if __name__ == "__main__":
    for path in build_bundles(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "bundles"):
        print(path)
