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

"""The files that a student is exported to, each with a block of metadata that can be read from the file itself."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data.torchscript_utils import save_net_with_metadata
from monai.networks import convert_to_onnx, convert_to_torchscript
from torch import Tensor, nn

logger = logging.getLogger(__name__)
KEY = "monai_kd"  # of the block in metadata.json (TorchScript), metadata_props (ONNX) and rt_info (OpenVINO)
TOLERANCE = 1e-4  # between the network and what was exported from it, in float32
# of the values; rounding may decide between two maxima of a pooling window that are equal but for 1e-7, and unpooling,
# ENet's, then puts the value at another place: 2 of 10,000 values were seen to differ
SHARE = 0.999
BATCHES = (1, 3)  # that are compared; the network is traced with 2
FP32 = {"INFERENCE_PRECISION_HINT": "f32"}  # OpenVINO computes in bfloat16 by itself where the processor has it


class Format(NamedTuple):
    """A kind of file: the ending of its name, the modules that writing it needs, and what installs them."""

    suffix: str
    needs: tuple[str, ...] = ()
    remedy: str = ""


ONNX = ("onnx", "onnxscript")
FORMATS = {
    "torchscript": Format(".ts"),
    "onnx": Format(".onnx", ONNX, "pip install 'monai-kd[export]'"),
    "openvino": Format(".xml", ("openvino", *ONNX), "pip install 'monai-kd[openvino]'"),
    "openvino_int8": Format("_int8.xml", ("openvino", "nncf", *ONNX), "pip install 'monai-kd[openvino]'"),
    "tensorrt": Format("_trt.ts", ("torch_tensorrt",), "pip install torch-tensorrt"),
    "tensorrt_fp16": Format("_trt_fp16.ts", ("torch_tensorrt",), "pip install torch-tensorrt"),
}


def why_not(name: str) -> str:
    """
    Tell why a format cannot be written here.

    Args:
        name: one of ``FORMATS``.

    Returns:
        the reason with its remedy, nothing when it can.

    Example::

        >>> why_not("torchscript")
        ''
    """
    missing = [module for module in FORMATS[name].needs if find_spec(module) is None]
    if missing:
        return f"needs {' and '.join(missing)}, not installed here; {FORMATS[name].remedy}"
    if name.startswith("tensorrt") and not torch.cuda.is_available():
        return "needs a CUDA device, and torch sees none"
    return ""


def to_torchscript(
    network: nn.Module, shape: Sequence[int], path: Path, meta: dict[str, Any], config: dict[str, Any] | None = None
) -> float:
    r"""
    Write a network as TorchScript: scripted, or traced when it does not compile. The metadata is ``metadata.json`` in
    the file, as MONAI's ``ckpt_export`` writes and :py:func:`monai.data.load_net_with_metadata` reads it.

    Args:
        network: the network in eval mode, on the CPU.
        shape: of one image, (C, \*spatial).
        path: the file.
        meta: the bundle's metadata, with the block under "monai_kd".
        config: the bundle's configuration for inference, ``inference.json`` in the file.

    Returns:
        the largest difference to the network's own output but for one value in 1000, relative to its largest value
        where that is above 1.

    Raises:
        ValueError: when the difference is above 1e-4.
    """
    with _quiet("torch"):
        module = convert_to_torchscript(network, inputs=[_images(shape, 2)], use_trace=not scripts(network))
    files = {"inference.json": json.dumps(config, default=str).encode()} if config else {}
    stream = io.BytesIO()  # to a file, torch ends the process where the disk is full
    save_net_with_metadata(module, stream, include_config_vals=False, meta_values=meta, more_extra_files=files)
    path.write_bytes(stream.getbuffer())
    return _difference(network, torch.jit.load(str(path)).eval(), shape, "TorchScript")


def scripts(network: nn.Module) -> bool:
    """
    Tell whether a network compiles in TorchScript, or has to be traced.

    Args:
        network: the network.

    Example::

        >>> scripts(nn.Conv2d(1, 1, 3))
        True
    """
    try:
        torch.jit.script(network)
    except Exception as error:  # a compiler fails in a dozen ways
        logger.debug(f"{type(network).__name__} is traced, since it does not compile: {error}")
        return False
    return True


def to_onnx(network: nn.Module, shape: Sequence[int], path: Path, block: dict[str, Any]) -> float:
    r"""
    Write a network as ONNX, input "image" and output "pred", for batches of any size. The block is the entry
    "monai_kd" of ``metadata_props``.

    Args:
        network: the network in eval mode, on the CPU.
        shape: of one image, (C, \*spatial), which the file keeps to.
        path: the file.
        block: the metadata.

    Returns:
        the largest difference between onnxruntime and the network but for one value in 1000, relative to its largest
        value where that is above 1;
        NaN where onnxruntime is not installed.

    Raises:
        ValueError: when the difference is above 1e-4.
    """
    import onnx

    with _quiet("torch.onnx"):
        model = convert_to_onnx(
            network,
            [_images(shape, 2)],  # two of them: torch.export would take a batch of one for a constant
            filename=str(path),
            input_names=["image"],
            output_names=["pred"],
            dynamic_axes={"image": {0: "batch"}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    onnx.helper.set_model_props(model, {KEY: json.dumps(block)})
    onnx.save(model, str(path))
    if find_spec("onnxruntime") is None:
        return float("nan")
    return _difference(network, onnx_session(path), shape, "ONNX")


def onnx_session(path: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> Callable[[Tensor], Tensor]:
    """
    Load an ONNX file into onnxruntime, which uses as many threads as torch.

    Args:
        path: the file.
        providers: of onnxruntime, the first that is there.

    Returns:
        a function from a batch of images to a batch of logits.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # it would take all cores
    session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    return lambda image: torch.from_numpy(session.run(["pred"], {"image": image.numpy()})[0])


def to_openvino(network: nn.Module, onnx_file: Path, shape: Sequence[int], path: Path, block: dict[str, Any]) -> float:
    r"""
    Write an ONNX file in the format of OpenVINO, weights in float32: ``.xml`` and beside it ``.bin``. The block is the
    entry "monai_kd" of ``rt_info``.

    Args:
        network: the network in eval mode, on the CPU.
        onnx_file: what :py:func:`to_onnx` wrote of it.
        shape: of one image, (C, \*spatial).
        path: the file.
        block: the metadata.

    Returns:
        the largest difference between OpenVINO in float32 and the network but for one value in 1000, relative to its
        largest value where that is above 1.

    Raises:
        ValueError: when the difference is above 1e-4.
    """
    import openvino

    model = openvino.Core().read_model(str(onnx_file))
    model.set_rt_info(json.dumps(block), KEY)
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return _difference(network, openvino_model(path), shape, "OpenVINO")


def openvino_model(path: Path, options: dict[str, str] | None = None) -> Callable[[Tensor], Tensor]:
    """
    Load a file of OpenVINO on the CPU, with as many threads as torch.

    Args:
        path: the ``.xml``.
        options: of the device; float32 by default.

    Returns:
        a function from a batch of images to a batch of logits.
    """
    import openvino

    chosen = {"INFERENCE_NUM_THREADS": str(torch.get_num_threads())} | (FP32 if options is None else options)
    model = openvino.Core().compile_model(str(path), "CPU", chosen)
    return lambda image: torch.from_numpy(model(image.numpy())[0])


def to_openvino_int8(
    network: nn.Module, onnx_file: Path, inputs: Sequence[Tensor], path: Path, block: dict[str, Any]
) -> float:
    r"""
    Write an ONNX file in the format of OpenVINO with weights and activations of 8 bits, their ranges found by NNCF's
    post-training quantization.

    Args:
        network: the network in eval mode, on the CPU.
        onnx_file: what :py:func:`to_onnx` wrote of it.
        inputs: what the network sees of real images, each (1, C, \*spatial).
        path: the file.
        block: the metadata.

    Returns:
        the share of voxels of `inputs` that keep their class.
    """
    import nncf
    import openvino

    model = openvino.Core().read_model(str(onnx_file))
    with _quiet("nncf"):
        quantized = nncf.quantize(model, nncf.Dataset([i.numpy() for i in inputs]), subset_size=len(inputs))
    quantized.set_rt_info(json.dumps(block | {"precision": "int8"}), KEY)
    openvino.save_model(quantized, str(path), compress_to_fp16=False)
    run = openvino_model(path, {})
    with torch.no_grad():
        kept = [(_classes(network(i), block) == _classes(run(i), block)).float().mean() for i in inputs]
    return float(torch.stack(kept).mean())


def to_tensorrt(
    network: nn.Module, shape: Sequence[int], path: Path, meta: dict[str, Any], config_file: Sequence[str], fp16: bool
) -> None:
    r"""
    Write a network as TorchScript around an engine of TensorRT, for batches of 1 to 8, by MONAI's ``trt_export``. The
    engine runs on GPUs of this kind alone, with this version of TensorRT. MONAI compares the outputs.

    Args:
        network: the network with its weights.
        shape: of one image, (C, \*spatial).
        path: the file.
        meta: the bundle's metadata, with the block under "monai_kd".
        config_file: the bundle's configuration for inference, kept in the file.
        fp16: whether in half precision.
    """
    from monai.bundle import trt_export

    weights = path.with_suffix(".pt")
    torch.save(network.state_dict(), weights)
    try:
        trt_export(
            net_id=KEY,
            filepath=str(path),
            ckpt_file=str(weights),
            config_file=list(config_file),
            precision="fp16" if fp16 else "fp32",
            input_shape=[1, *shape],
            use_trace=not scripts(network),
            dynamic_batchsize=[1, 1, 8],
            converter_kwargs={"verify": True, "atol": 5e-2 if fp16 else 1e-2},
            **{KEY: network, "_meta_": meta},
        )
    finally:
        weights.unlink()


def _images(shape: Sequence[int], batch: int) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch))


def _difference(network: nn.Module, run: Callable[[Tensor], Tensor], shape: Sequence[int], name: str) -> float:
    """Compare on noise, in batches of other sizes than that of the trace; the largest but for one value in 1000."""
    found = []
    with torch.no_grad():
        for batch in BATCHES:
            expected, got = network(_images(shape, batch)), run(_images(shape, batch))
            scale = expected.abs().max().clamp(min=1)
            found.append(np.quantile(((got - expected).abs() / scale).numpy(), SHARE, method="higher"))
    worst = float(np.max(found))
    if not worst <= TOLERANCE:  # NaN is none either
        raise ValueError(
            f"{name} must give what {type(network).__name__} gives within {TOLERANCE}, but got a difference of "
            f"{worst:.2g}; nothing was written."
        )
    return worst


def _classes(logits: Tensor, block: dict[str, Any]) -> Tensor:
    """The class of each voxel, or whether it is of each of those that do not exclude one another."""
    if logits.shape[1] == 1 or block.get("activation") == "sigmoid":
        return logits.sigmoid() >= (block.get("threshold") or 0.5)
    return logits.argmax(1)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """What a library says of its own inside, progress bars too, is kept from the terminal."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
