"""
Makes weights to go on training with (.pt) of an int8 network that train.py made: for where only what ships is left.

    python scripts/float_again.py --data DIR/deeppcb --model station/assets/pcb-pair.onnx --pair --out start.pt

The weights are those of the file, times their scales. Its convolutions have the batch norm within them, so that is made
anew: with the mean and the spread that each layer shows on boards of the training part, and what undoes both, so that
the network answers as the file does. Needs the ``train`` packages, as train.py does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import deeppcb
import numpy as np
import onnx
import torch
import train
from numpy.typing import NDArray
from onnx import numpy_helper
from torchvision_stand_in import allow_missing_torchvision

Array = NDArray[np.float32]

WRONG_FILE = "was it trained by this version of train.py, and as a --pair or not?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the DeepPCB folder")
    parser.add_argument("--model", type=Path, required=True, help="the int8 network (.onnx)")
    parser.add_argument("--pair", action="store_true", help="it sees the board and its template")
    parser.add_argument("--out", type=Path, required=True, help="the weights (.pt)")
    options = parser.parse_args()
    allow_missing_torchvision()
    from ultralytics import YOLO

    model = YOLO(train.layers(pairs=options.pair)).model.eval()
    model.names = dict(enumerate(deeppcb.CLASSES))
    layers = dict(model.named_modules())
    stored_layers = convolutions(options.model)
    own = {path for path, layer in layers.items() if isinstance(layer, torch.nn.Conv2d)}
    if strange := own.symmetric_difference(stored_layers):
        raise SystemExit(f"{options.model} has other layers ({', '.join(sorted(strange)[:3])}): {WRONG_FILE}")
    for path, (stored, stored_bias) in stored_layers.items():
        convolution = layers[path]
        outputs, inputs = convolution.weight.shape[:2]  # quantising may have widened it, with zeros
        weights, bias = stored[:outputs, :inputs], stored_bias[:outputs]
        if convolution.weight.shape != weights.shape or np.count_nonzero(weights) != np.count_nonzero(stored):
            raise SystemExit(f"{options.model} has another layer {path}: {WRONG_FILE}")
        convolution.weight.data = torch.from_numpy(weights)
        if convolution.bias is not None:
            convolution.bias.data = torch.from_numpy(bias)
        else:
            convolution.register_forward_hook(_measuring(layers[path.rpartition(".")[0] + ".bn"], bias))
    with torch.no_grad():
        model(boards(options.data, pairs=options.pair))
    for layer in layers.values():
        layer._forward_hooks.clear()  # noqa: SLF001  # else they would be saved with it
    torch.save({"model": model, "train_args": {}}, options.out)
    print(f"made {options.out}")


def convolutions(model: Path) -> dict[str, tuple[Array, Array]]:
    """Weights and bias of each, in float, by the name that the layer has in torch."""
    graph = onnx.load(model).graph
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    made = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}

    def number(name: str) -> Array:
        if name in stored:
            return np.array(stored[name], np.float32)
        steps, scale, zero = (stored[one].astype(np.float32) for one in made[name].input)
        if scale.ndim:  # one a channel
            shape = (-1, *([1] * (steps.ndim - 1)))
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        return np.asarray((steps - zero) * scale, np.float32)

    return {
        _in_torch(node.name): (number(node.input[1]), number(node.input[2]))
        for node in graph.node
        if node.op_type == "Conv"
    }


def boards(root: Path, *, pairs: bool) -> torch.Tensor:
    """Some of the training part, as the network takes them."""
    names = train.typical(deeppcb.names(root, "train"))
    return torch.from_numpy(np.stack([deeppcb.given(root, name, pairs=pairs) for name in names])).float() / 255


def _in_torch(name: str) -> str:
    """/model.4/m.0/cv1/conv/Conv is model.4.m.0.cv1.conv; what a part repeats of the one before it is said once."""
    parts = name.strip("/").split("/")[:-1]
    kept = [one for one, following in zip(parts, [*parts[1:], ""], strict=True) if not following.startswith(f"{one}.")]
    return ".".join(kept)


def _measuring(norm: Any, bias: Array) -> Any:
    """A hook that gives *norm* the mean and the spread of what it is given, and has it undo them, but for *bias*."""

    def measure(_layer: Any, _given: Any, answer: torch.Tensor) -> None:
        mean, variance = answer.mean((0, 2, 3)), answer.var((0, 2, 3), unbiased=False)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.data = torch.sqrt(variance + norm.eps)
        norm.bias.data = mean + torch.from_numpy(bias)

    return measure


if __name__ == "__main__":
    main()
