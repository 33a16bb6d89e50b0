"""ONNX Runtime on the CPU: a model of one operator for each norm, forward only.

It has no weight norm and no batch renorm. InstanceNormalization keeps no running statistics;
BatchNormalization in training does, but a running variance of the population, not of the sample:
y alone is compared. GroupNormalization and RMSNormalization may be expanded into simpler operators;
that is what the runtime makes of the one operator it was given.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import onnxruntime
from onnx import helper, numpy_helper

from normkernels.bench.cases import Case
from normkernels.bench.check import compare
from normkernels.bench.inputs import Inputs
from normkernels.bench.timing import Contender

OPSET = 23  # the first with RMSNormalization
EPS = 1e-5

AFFINE = ("weight", "bias")

# norm -> operator, the arguments that are its tensors after x, its attributes
OPERATORS: dict[str, Callable[[dict[str, Any]], tuple[str, tuple[str, ...], dict[str, Any]]]] = {
    "layer_norm": lambda a: ("LayerNormalization", AFFINE, {"axis": -1, "epsilon": EPS}),
    "rms_norm": lambda a: ("RMSNormalization", ("weight",), {"axis": -1, "epsilon": a["eps"]}),
    "group_norm": lambda a: (
        "GroupNormalization",
        AFFINE,
        {"num_groups": a["num_groups"], "epsilon": EPS},
    ),
    "instance_norm": lambda a: ("InstanceNormalization", AFFINE, {"epsilon": EPS}),
    "local_response_norm": lambda a: (
        "LRN",
        (),
        {"size": a["size"], "alpha": 1e-4, "beta": 0.75, "bias": 1.0},
    ),
    "batch_norm": lambda a: (
        "BatchNormalization",
        (*AFFINE, "running_mean", "running_var"),
        {"epsilon": EPS, "momentum": 0.9, "training_mode": 1},
    ),
}


def has(case: Case) -> bool:
    return case.op in OPERATORS and case.pass_ == "forward"


def contender(case: Case, inputs: Inputs, slots: int) -> Contender:
    """Values of the runtime in and out: nothing is copied between it and NumPy."""
    session = _session(case, inputs)
    xs = [onnxruntime.OrtValue.ortvalue_from_numpy(inputs.x.copy()) for _ in range(slots)]
    return Contender(session.run_with_ort_values, [(["y"], {"x": x}) for x in xs], {})


def verify(case: Case, inputs: Inputs) -> float:
    (y,) = contender(case, inputs, slots=1).once()
    return compare(case, inputs, {"y": y.numpy()}, {})


def _session(case: Case, inputs: Inputs) -> onnxruntime.InferenceSession:
    operator, names, attributes = OPERATORS[case.op](inputs.arguments)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(case.dtype))
    running = [f"new_{name}" for name in names if name.startswith("running")]
    node = helper.make_node(operator, ["x", *names], ["y", *running], **attributes)
    graph = helper.make_graph(
        [node],
        case.op,
        [helper.make_tensor_value_info("x", element, case.shape)],
        [helper.make_tensor_value_info("y", element, case.shape)],
        [numpy_helper.from_array(inputs.arguments[name], name) for name in names],
    )
    imports = [helper.make_opsetid("", OPSET)]
    ir_version = helper.find_min_ir_version_for(imports)
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = numba.get_num_threads()
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
