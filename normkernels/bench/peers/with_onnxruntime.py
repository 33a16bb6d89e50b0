"""ONNX Runtime on the CPU, by models of one operator."""

from operator import itemgetter
from typing import Any

import onnxruntime

from ..cases import Case
from ..check import Tensors
from ..inputs import Inputs
from ..timing import Contender
from . import onnx_models
from .peer import Peer


class OnnxRuntime(Peer):
    """Forward (training, evaluation) of every norm that ONNX has, float32, channels on the second axis."""

    def __init__(self, threads: int) -> None:
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads

    def has(self, case: Case) -> bool:
        return onnx_models.has(case)

    def contender(self, case: Case, inputs: Inputs, slots: int) -> Contender:
        """Arrays in and out, which nothing copies; `run_with_ort_values` takes 40 µs more."""
        model = onnx_models.model(case, inputs)
        session = onnxruntime.InferenceSession(model, self._options, ["CPUExecutionProvider"])
        xs = [inputs.x.copy() for _ in range(slots)]
        return Contender(session.run, [(["y"], {"x": x}) for x in xs], {}, itemgetter(0), xs)

    def results(self, case: Case, inputs: Inputs, result: Any) -> Tensors:
        return {"y": result[0]}
