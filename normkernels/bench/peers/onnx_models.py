"""A model of one ONNX operator for each norm, forward only, which every runtime of such models takes.

ONNX has no weight norm and no batch renorm, and every operator has the channels on the second axis.
GroupNormalization and RMSNormalization may be expanded into simpler operators: that is what a runtime makes
of the one it is given.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from ...norms import NORMS
from ..cases import Case
from ..inputs import Inputs

OPSET = 23  # the first with RMSNormalization
EPS = 1e-5
AFFINE = ("weight", "bias")

# norm -> operator, the arguments that are its tensors after x, its attributes
OPERATORS: dict[str, Callable[[dict[str, Any]], tuple[str, tuple[str, ...], dict[str, Any]]]] = {
    "layer_norm": lambda a: ("LayerNormalization", AFFINE, {"axis": -1, "epsilon": EPS}),
    "rms_norm": lambda a: ("RMSNormalization", ("weight",), {"axis": -1, "epsilon": a["eps"]}),
    "group_norm": lambda a: ("GroupNormalization", AFFINE, {"num_groups": a["num_groups"], "epsilon": EPS}),
    "instance_norm": lambda a: ("InstanceNormalization", AFFINE, {"epsilon": EPS}),
    "local_response_norm": lambda a: (
        "LRN",
        (),
        {"size": a["size"], "alpha": 1e-4, "beta": 0.75, "bias": 1.0},
    ),
    "batch_norm": lambda a: (
        "BatchNormalization",
        (*AFFINE, "running_mean", "running_var"),
        {"epsilon": EPS, "momentum": 0.9, "training_mode": int(a["training"])},
    ),
}


def has(case: Case) -> bool:
    """Whether there is a model of a case: those of float32, whatever else a runtime may take."""
    plain = case.pass_ == "forward" and case.layout == "contiguous" and not case.fuse
    last = NORMS[case.op].family != "rows" or case.channel_axis == len(case.shape) - 1
    return plain and last and case.op in OPERATORS and case.dtype == "float32"


def model(case: Case, inputs: Inputs) -> bytes:
    """The model from x to y, with the parameters of a case as constants.

    Its running variance is that of the population, not of the sample: it is computed, and y alone compared.
    """
    operator, names, attributes = OPERATORS[case.op](inputs.arguments)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(case.dtype))
    running = [name for name in names if name.startswith("running") and not case.evaluation]
    node = helper.make_node(
        operator, ["x", *names], ["y", *(f"new_{name}" for name in running)], **attributes
    )
    outputs = [helper.make_tensor_value_info("y", element, case.shape)]
    graph = helper.make_graph(
        [node],
        case.op,
        [helper.make_tensor_value_info("x", element, case.shape)],
        outputs,
        [numpy_helper.from_array(inputs.arguments[name], name) for name in names],
    )
    imports = [helper.make_opsetid("", OPSET)]
    ir_version = helper.find_min_ir_version_for(imports)
    made: bytes = helper.make_model(graph, opset_imports=imports, ir_version=ir_version).SerializeToString()
    return made
