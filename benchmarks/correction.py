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

"""What the search for the most similar right pixel costs, beside the matrix of all pairs.

    python benchmarks/correction.py                          # 256 and 512 pixels a side, 1, 5 and 20% false pixels
    python benchmarks/correction.py --sizes=64,128 --shares=0.05 --candidates=1024

All in one run on one drawn image, an ellipse on a background, of colours with noise, of which a share is false:

- naive: the whole matrix false x right pixels of each class, and its largest entry in each row; where it would not fit
  into `--limit_mb`, its computed size stands instead;
- blocks: `SimilarityCorrection()`;
- drawn: `SimilarityCorrection(max_candidates=...)`.

"lost cosine" is what the found pixels lack of the cosine of those that naive finds (drawn: that blocks finds), on
average in double precision; below 0 they are more alike. "|dp|" is the mean difference of the foreground's probability
at the false pixels: here probabilities are drawn without regard to the colour, so that any other pixel that is found,
were it of the very same colour, differs by 0.16 on average.

Time is the median of the rounds (CPU: the processor's, of all threads), taken in turns. Peak memory is what torch
allocates above the inputs: by the allocator on a GPU, by the profiler's record on a CPU.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

import fire
import torch
import torch.nn.functional as F

from monai_kd.corrections import SimilarityCorrection, false_pixels

Correction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def naive(soft_label: torch.Tensor, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The paper's search with the whole matrix, for one image in which each class has a right pixel."""
    corrected = soft_label.clone()
    flat, vectors = corrected[0].flatten(1), F.normalize(image[0].flatten(1), dim=0)
    wrong, classes = false_pixels(soft_label, label).flatten(), label.flatten()
    for number in (0, 1):
        pixels, right = (((mask & (classes == number)).nonzero()[:, 0]) for mask in (wrong, ~wrong))
        matrix = vectors[:, pixels].T @ vectors[:, right]
        flat[:, pixels] = flat[:, right[matrix.argmax(1)]]
    return corrected


def naive_bytes(soft_label: torch.Tensor, label: torch.Tensor) -> int:
    """The size of the larger of the two matrices."""
    wrong = false_pixels(soft_label, label)
    classes = [label == number for number in (0, 1)]
    return max(4 * int((wrong & members).sum()) * int((~wrong & members).sum()) for members in classes)


def draw(size: int, share: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One image: soft label with a share of false pixels, image, label. All probabilities are different."""
    generator = torch.Generator().manual_seed(0)
    line = torch.linspace(-1, 1, size)
    radius = (line[:, None] / 0.7) ** 2 + (line / 0.5) ** 2
    label = (radius < 1)[None, None].long()
    skin, lesion = torch.tensor([0.8, 0.6, 0.5]), torch.tensor([0.5, 0.3, 0.25])
    image = torch.where(label > 0, lesion.view(1, 3, 1, 1), skin.view(1, 3, 1, 1)) * (1.1 - 0.2 * radius.clamp(max=1))
    image = (image + 0.05 * torch.randn(1, 3, size, size, generator=generator)).clamp(0.01, 1)
    wrong = torch.rand(1, 1, size, size, generator=generator) < share
    order = torch.randperm(size * size, generator=generator).view(1, 1, size, size)
    confidence = 0.51 + 0.48 * order / order.numel()
    foreground = torch.where((label > 0) ^ wrong, confidence, 1 - confidence)
    return torch.cat([1 - foreground, foreground], 1).to(device), image.to(device), label.to(device)


def seconds(correction: Correction, case: tuple[torch.Tensor, ...]) -> float:
    """The time of one correction."""
    if case[0].device.type == "cpu":
        start = time.process_time()
        correction(*case)
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    correction(*case)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(correction: Correction, case: tuple[torch.Tensor, ...]) -> int:
    """The most that torch holds at once during one correction, above its inputs."""
    if case[0].device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        correction(*case)
        return torch.cuda.max_memory_allocated() - base
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        correction(*case)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def found_cosine(corrected: torch.Tensor, case: tuple[torch.Tensor, ...]) -> float:
    """The mean cosine of the false pixels and those that they were given, known by their probability."""
    soft_label, image, label = case
    wrong = false_pixels(soft_label, label).flatten()
    before, after = soft_label[0, 1].flatten(), corrected[0, 1].flatten()
    order = before[~wrong].sort()
    source = (~wrong).nonzero()[:, 0][order.indices[torch.searchsorted(order.values, after[wrong])]]
    vectors = image[0].flatten(1).double()
    return F.cosine_similarity(vectors[:, wrong], vectors[:, source], dim=0).mean().item()


def main(
    sizes: tuple[int, ...] | int = (256, 512),
    shares: tuple[float, ...] | float = (0.01, 0.05, 0.2),
    memory_mb: float = 16.0,
    candidates: int = 4096,
    limit_mb: float = 4096.0,
    rounds: int = 3,
) -> None:
    """Print time and peak memory, and the ratios naive / blocks and naive / drawn."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_cpu = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    where = torch.cuda.get_device_name() if device.type == "cuda" else on_cpu
    print(f"{where}, torch {torch.__version__}, blocks of {memory_mb:g} MiB, {candidates} candidates drawn")
    print("size  false   kind     time ms  naive/it   peak MiB  naive/it  lost cosine  |dp|")
    for size in sizes if isinstance(sizes, (tuple, list)) else (sizes,):
        for share in shares if isinstance(shares, (tuple, list)) else (shares,):
            kinds: dict[str, Correction] = {
                "naive": naive,
                "blocks": SimilarityCorrection(memory_mb),
                "drawn": SimilarityCorrection(memory_mb, candidates),
            }
            case = draw(size, share, device)
            head = f"{size:4d}  {share:5.0%}   "
            matrix_mb = naive_bytes(case[0], case[2]) / 2**20
            if matrix_mb > limit_mb:
                del kinds["naive"]
                print(f"{head}naive    skipped: the matrix alone takes {matrix_mb:.0f} MiB")
            results = {kind: correction(*case) for kind, correction in kinds.items()}  # a warm-up, too
            times: dict[str, list[float]] = {kind: [] for kind in kinds}
            for number in range(rounds):
                for kind in kinds if number % 2 else reversed(kinds):
                    times[kind].append(seconds(kinds[kind], case))
            milliseconds = {kind: 1e3 * statistics.median(values) for kind, values in times.items()}
            peaks = {kind: peak_bytes(correction, case) / 2**20 for kind, correction in kinds.items()}
            wrong = false_pixels(case[0], case[2])[:, 0]
            cosines = {kind: found_cosine(result, case) for kind, result in results.items()}
            for kind, result in results.items():
                reference = "blocks" if kind == "drawn" or "naive" not in results else "naive"
                lost = cosines[reference] - cosines[kind]
                difference = (result - results[reference])[:, 1][wrong].abs().mean().item()
                faster = f"{milliseconds['naive'] / milliseconds[kind]:.1f}x" if "naive" in kinds else "-"
                leaner = (peaks["naive"] if "naive" in kinds else matrix_mb) / peaks[kind]
                print(
                    f"{head}{kind:<7}{milliseconds[kind]:9.1f} {faster:>9} {peaks[kind]:10.1f} {leaner:8.1f}x "
                    f"{lost:12.1e}  {difference:.4f}"
                )


if __name__ == "__main__":
    fire.Fire(main)
