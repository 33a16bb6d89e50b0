"""OpenVINO on the CPU, by the same models of one operator as ONNX Runtime."""

from typing import Any

import numpy as np
import openvino

from ..cases import Case
from ..check import Tensors
from ..inputs import Inputs
from ..timing import Contender
from . import onnx_models
from .peer import Peer


class OpenVino(Peer):
    """Forward (training, evaluation) of every norm that ONNX has, float32, channels on the second axis.

    A request writes into the array that it has written before: it never allocates.
    """

    def __init__(self, threads: int) -> None:
        self._core = openvino.Core()
        self._options = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }

    def has(self, case: Case) -> bool:
        return onnx_models.has(case)

    def contender(self, case: Case, inputs: Inputs, slots: int) -> Contender:
        compiled = self._core.compile_model(
            self._core.read_model(onnx_models.model(case, inputs)), "CPU", self._options
        )
        xs, requests = [inputs.x.copy() for _ in range(slots)], []
        for x in xs:
            requests.append(compiled.create_infer_request())
            requests[-1].set_input_tensor(openvino.Tensor(x, shared_memory=True))

        def infer(request: Any) -> Any:
            request.infer(share_outputs=True)
            return request

        made = Contender(infer, [(request,) for request in requests], {}, _output)
        made.reads = xs
        return made

    def results(self, case: Case, inputs: Inputs, result: Any) -> Tensors:
        return {"y": _output(result)}


def _output(request: Any) -> Any:
    return np.asarray(request.get_output_tensor(0).data)
