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

"""How fast a student is beside its teacher, in the ways in which either can be run.

    python benchmarks/latency.py          # XP-Net's teacher and student at 512 x 512, one image at a time and eight
    python benchmarks/latency.py --networks "polyp_endoscopy_kdas:teacher_def,polyp_endoscopy_kdas" --size 352
    python benchmarks/latency.py --networks "monai_kd.networks.nets.RAUNet,path/to/bundle" --channels 1
    python benchmarks/latency.py --networks "[{'_target_': 'monai.networks.nets.UNet', 'spatial_dims': 2, ...}, ...]"
    python benchmarks/latency.py --size 128 --batch 1 --variants eager,onnx --rounds 5

Variants: eager, channels_last, compiled (`torch.compile`), half (float16 on a GPU, bfloat16 on a CPU), cuda_graph, onnx
(onnxruntime) and openvino; those that the machine does not have are left out, and the reason is told. Compiling takes
minutes on a CPU. On a GPU the time of onnx holds the copies of image and logits between the memories of GPU and CPU, as
a program sees it that has its images on the CPU; the other ways find the image on the GPU and leave the logits there.

The networks run in turns, pass by pass, so that what else the machine does disturbs them alike. `of teacher` is the
median over the rounds of a network's time divided by that of the first network in the same round, variant and batch.
`difference` is the largest one to the eager network's output, relative to its largest value where that is above 1: a
fast answer should be the same answer. Weights are random, on which the time does not depend.
"""

from __future__ import annotations

import copy
import functools
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from monai_kd.bundle import bundle_network
from monai_kd.bundle.export_formats import onnx_session, openvino_model, to_onnx, to_openvino, why_not
from monai_kd.data import replace_file
from monai_kd.report import NetworkCost, Table, network_cost

SCRATCH = tempfile.TemporaryDirectory()  # of the ONNX files; removed at the end
XPNET = ("monai_kd.networks.nets.EPSAUNet", "monai_kd.networks.nets.SeparableEPSAUNet")
Run = Callable[[Tensor], Any]


def build(network: str | Mapping[str, Any]) -> nn.Module:
    """A network by the dotted path of its class, a definition with `_target_`, or BUNDLE or BUNDLE:ID."""
    if isinstance(network, Mapping):
        return ConfigParser({"network": dict(network)}).get_parsed_content("network")
    bundle, _, identifier = network.partition(":")
    if "." in network and not identifier and not Path(network).is_dir():
        return ConfigParser({"network": {"_target_": network}}).get_parsed_content("network")
    return bundle_network(bundle, identifier or "network_def")


def eager(network: nn.Module, image: Tensor) -> Run:
    return network


def channels_last(network: nn.Module, image: Tensor) -> Run:
    moved = copy.deepcopy(network).to(memory_format=torch.channels_last)
    return lambda image: moved(image.to(memory_format=torch.channels_last))


def compiled(network: nn.Module, image: Tensor) -> Run:
    torch.compiler.reset()
    return torch.compile(copy.deepcopy(network), dynamic=False)


def half(network: nn.Module, image: Tensor) -> Run:
    dtype = torch.float16 if image.is_cuda else torch.bfloat16
    small = copy.deepcopy(network).to(dtype)
    return lambda image: small(image.to(dtype))


def cuda_graph(network: nn.Module, image: Tensor) -> Run:
    if not image.is_cuda:
        raise RuntimeError("needs a CUDA device")
    held, stream = image.clone(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # kernels and workspaces are chosen outside the graph
        for _ in range(3):
            network(held)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = network(held)

    def replay(image: Tensor) -> Tensor:
        held.copy_(image)
        graph.replay()
        return logits

    return replay


@functools.cache
def _onnx_file(network: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, Path]:
    """The network on the CPU and its ONNX file, made once for batches of any size."""
    _need("onnx")
    path = Path(tempfile.mkdtemp(dir=SCRATCH.name)) / "network.onnx"
    on_cpu = copy.deepcopy(network).cpu()
    to_onnx(on_cpu, shape, path, {})
    return on_cpu, path


def onnx(network: nn.Module, image: Tensor) -> Run:
    import onnxruntime

    provider = "CUDAExecutionProvider" if image.is_cuda else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"onnxruntime has no {provider}; pip install onnxruntime-gpu")
    session = onnx_session(_onnx_file(network, tuple(image.shape[1:]))[1], [provider])
    return lambda image: session(image.cpu())


def openvino(network: nn.Module, image: Tensor) -> Run:
    if image.is_cuda:
        raise RuntimeError("it runs on the CPU")
    _need("openvino")
    on_cpu, path = _onnx_file(network, tuple(image.shape[1:]))
    to_openvino(on_cpu, path, tuple(image.shape[1:]), path.with_suffix(".xml"), {})
    return openvino_model(path.with_suffix(".xml"))


def _need(name: str) -> None:
    if why_not(name):
        raise RuntimeError(why_not(name))


VARIANTS = {f.__name__: f for f in (eager, channels_last, compiled, half, cuda_graph, onnx, openvino)}


def measure(runs: Sequence[Run], image: Tensor, rounds: int, warm_up: int) -> np.ndarray:
    """Milliseconds, (rounds, networks): the networks in turns, from the first to the last and back."""
    wait = torch.cuda.synchronize if image.is_cuda else lambda: None
    times = np.zeros((warm_up + rounds, len(runs)))
    for number in range(warm_up + rounds):
        order = range(len(runs)) if number % 2 else reversed(range(len(runs)))
        for index in order:
            wait()
            start = time.perf_counter()
            runs[index](image)
            wait()
            times[number, index] = 1e3 * (time.perf_counter() - start)
    return times[warm_up:]


def compare(networks: dict[str, nn.Module], image: Tensor, variant: str, rounds: int, warm_up: int) -> list[list[Any]]:
    """Rows of one variant and batch: network, p50, p95, images a second, ratio to the first network, difference."""
    runs, differences = [], []
    for network in networks.values():
        run, expected = VARIANTS[variant](network, image), network(image).float()
        runs.append(run)
        worst = (run(image).float().to(expected.device) - expected).abs().max() / expected.abs().max().clamp(min=1)
        differences.append(worst.item())
    times = measure(runs, image, rounds, warm_up)
    ratios = np.median(times / times[:, :1], axis=0)
    p50, p95 = np.percentile(times, 50, axis=0), np.percentile(times, 95, axis=0)
    return [
        [name, float(p50[i]), float(p95[i]), float(1e3 * len(image) / p50[i]), float(ratios[i]), differences[i]]
        for i, name in enumerate(networks)
    ]


def check_numbers(name: str, numbers: Sequence[Any], least: int) -> None:
    if not numbers or not all(isinstance(number, int) and number >= least for number in numbers):
        got = ", ".join(map(repr, numbers)) or "none"
        raise ValueError(f"`{name}` must be whole numbers of at least {least}, but got {got}.")


def check_output(output: str) -> None:
    path = Path(output).absolute()
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"`output` must be a file in a folder that is there, but got {output}, not to be written.")


def build_all(specs: Sequence[Any], device: torch.device) -> dict[str, nn.Module]:
    """The networks by the names of the tables, the first of them the teacher."""
    built: dict[str, nn.Module] = {}
    for spec in specs:
        try:
            network = build(spec).to(device).eval()
        except Exception as error:  # whatever a constructor raises
            raise ValueError(f"`networks` must be classes, definitions or bundles, but got {spec}: {error}") from error
        name = f"{'student' if built else 'teacher'} {type(network).__name__}"
        built[name if name not in built else f"{name} {len(built)}"] = network
    if not built:
        raise ValueError("`networks` must be one or several, but got none.")
    return built


def cost_of(name: str, network: nn.Module, shape: tuple[int, ...]) -> NetworkCost:
    try:
        return network_cost(network, shape, runs=1, warm_up=0)
    except Exception as error:  # whatever a network says of a size that it does not take
        raise ValueError(f"`size` and `channels` must suit {name}, but got {shape}: {error}") from error


def networks_table(costs: dict[str, NetworkCost], title: str) -> Table:
    """Parameters, FLOPs of one image and size, each also as its share of the first network's."""
    first = next(iter(costs.values()))
    rows = [
        [name, c.parameters, c.parameters / first.parameters, c.flops / 1e9, c.flops / first.flops, c.size,
         c.size / first.size] for name, c in costs.items()
    ]  # fmt: skip
    columns = {
        "network": "",
        "parameters": ",",
        "share of parameters": ".3f",
        "GFLOPs": ".2f",
        "share of GFLOPs": ".3f",
    }
    note = "FLOPs (2 x multiply-accumulate) of one image, MB of the weights, shares of the teacher's."
    return Table(title, {**columns, "MB": ".2f", "share of MB": ".3f"}, rows, note)


def latency(
    networks: str | Sequence[Any] = XPNET,
    size: int = 512,
    channels: int = 3,
    batch: int | Sequence[int] = (1, 8),
    variants: str | Sequence[str] = tuple(VARIANTS),
    rounds: int = 30,
    warm_up: int = 3,
    threads: int = 0,
    output: str = "",
) -> None:
    """
    Print the cost and the latency of networks, the first of them the teacher.

    Args:
        networks: with commas between them, or a list: dotted paths of classes, definitions with `_target_`, BUNDLE:ID.
        size: height and width of the image.
        channels: of the image.
        batch: images at a time, one number or several.
        variants: ways of running them, with commas between them. On a GPU onnx is timed with its copies from the GPU
            to the CPU and back, the others without.
        rounds: passes of each network that are timed.
        warm_up: passes before them.
        threads: of the CPU; 0 leaves it to torch.
        output: a CSV file for the second table, in a folder that is there.

    Raises:
        ValueError: before anything is measured, when an argument is out of range or of an unknown name, a network
            cannot be built or does not take the image, or `output` cannot be written.
    """
    batches = [batch] if isinstance(batch, (int, str)) else list(batch)
    check_numbers("batch", batches, 1)
    for name, number in {"size": size, "channels": channels, "rounds": rounds}.items():
        check_numbers(name, [number], 1)
    for name, number in {"warm_up": warm_up, "threads": threads}.items():
        check_numbers(name, [number], 0)
    if output:
        check_output(output)
    chosen = variants.split(",") if isinstance(variants, str) else list(variants)
    unknown = [variant for variant in chosen if variant not in VARIANTS]
    if unknown:
        raise ValueError(f"`variants` must be of {', '.join(VARIANTS)}, but got {', '.join(map(str, unknown))}.")
    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_cpu = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    where = torch.cuda.get_device_name() if device.type == "cuda" else on_cpu
    specs = networks.split(",") if isinstance(networks, str) else list(networks)
    built = build_all(specs, device)
    costs = {name: cost_of(name, network, (1, channels, size, size)) for name, network in built.items()}
    print(networks_table(costs, f"{channels} x {size} x {size}, {where}, torch {torch.__version__}").to_text(), "\n")
    columns = {"variant": "", "batch": "d", "network": "", "ms p50": ".1f", "ms p95": ".1f", "images/s": ".1f"}
    table = Table("Latency", {**columns, "of teacher": ".3f", "difference": ".1e"}, [])
    left_out = {}
    for number in batches:
        image = torch.rand(number, channels, size, size, device=device)
        rows: list[list[Any]] = []
        for variant in chosen:
            try:
                with torch.no_grad():
                    found = compare(built, image, variant, rounds, warm_up)
            except Exception as error:  # each backend fails in its own way, and none of them ends the run
                left_out[variant] = (str(error).splitlines() or [type(error).__name__])[0]
                continue
            rows += [[variant, number, *row] for row in found]
        print(replace(table, title=f"Latency, batches of {number}", rows=rows).to_text(), "\n", flush=True)
        table.rows = [*table.rows, *rows]
    for variant, reason in left_out.items():
        print(f"left out: {variant}, {reason}")
    if output:
        replace_file(output, table.to_csv())


if __name__ == "__main__":
    try:
        fire.Fire(latency)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {' '.join(str(error).split())[:500]}")
