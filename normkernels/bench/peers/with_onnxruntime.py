"""ONNX Runtime on the CPU, by models of one operator."""

from typing import Any

import onnxruntime

from ..cases import Case
from ..check import Tensors
from ..inputs import Inputs
from ..timing import Contender
from . import onnx_models
from .peer import Peer, memory_at


class OnnxRuntime(Peer):
    """Forward (training, evaluation) of every norm that ONNX has, float32, channels on the second axis."""

    def __init__(self, threads: int) -> None:
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads

    def has(self, case: Case) -> bool:
        return onnx_models.has(case)

    def contender(self, case: Case, inputs: Inputs, slots: int) -> Contender:
        """Values of the runtime in and out: nothing is copied between it and NumPy."""
        model = onnx_models.model(case, inputs)
        session = onnxruntime.InferenceSession(model, self._options, ["CPUExecutionProvider"])
        xs = [onnxruntime.OrtValue.ortvalue_from_numpy(inputs.x.copy()) for _ in range(slots)]

        def memory(value: Any) -> Any:
            return memory_at(value.data_ptr(), case.shape, case.dtype)

        calls = [(["y"], {"x": x}) for x in xs]
        made = Contender(session.run_with_ort_values, calls, {}, lambda result: memory(result[0]))
        made.reads = [memory(x) for x in xs]
        return made

    def results(self, case: Case, inputs: Inputs, result: Any) -> Tensors:
        return {"y": result[0].numpy()}
