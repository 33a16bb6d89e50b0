"""PyTorch on the same cases, in a process of its own: `python -m normkernels.bench.torch_worker`.

Reads a line of JSON with the set-up, then one line per case; answers each case with one line.
The thread pools of two libraries disturb each other, so PyTorch never shares a process with the kernels
it is compared to. The copy beside it is the same as theirs.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from .cases import Case
from .copy import Copy
from .inputs import Inputs, make_inputs
from .measure import beside
from .results import Baseline, Timing, as_json, case_from
from .timing import Contender, Effort

# OpenMP threads spin for some milliseconds after a parallel region and would slow the copy down.
SPIN_SECONDS = 0.01

EPS = 1e-5
MOMENTUM = 0.1


def tensors(case: Case, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """The same data as tensors, NCHW in PyTorch's own sense."""
    arguments = {k: torch.from_numpy(a) if hasattr(a, "dtype") else a for k, a in inputs.arguments.items()}
    x, dy = (torch.from_numpy(a) for a in (inputs.x, inputs.dy))
    if case.layout == "channels_last":
        x, dy = x.movedim(-1, 1), dy.movedim(-1, 1)
    return x, dy, arguments


def layer_norm(case: Case, inputs: Inputs, slots: int) -> Contender:
    """F.layer_norm, or its backward called directly."""
    x, dy, a = tensors(case, inputs)
    normalized_shape, weight, bias = list(x.shape[-1:]), a["weight"], a["bias"]
    if case.pass_ == "forward":
        call = (normalized_shape, weight, bias, EPS)
        return Contender(torch.nn.functional.layer_norm, [(t, *call) for t in _copies(x, slots)], {})
    arguments = []
    for t, dt in zip(_copies(x, slots), _copies(dy, slots), strict=True):
        _, mean, rstd = torch.native_layer_norm(t, normalized_shape, weight, bias, EPS)
        arguments.append((dt, t, normalized_shape, mean, rstd, weight, bias, [True] * 3))
    return Contender(torch.ops.aten.native_layer_norm_backward, arguments, {})


def batch_norm(case: Case, inputs: Inputs, slots: int) -> Contender:
    """F.batch_norm in training, or its backward called directly."""
    x, dy, a = tensors(case, inputs)
    running, affine = (a["running_mean"], a["running_var"]), (a["weight"], a["bias"])
    if case.pass_ == "forward":
        call = (*running, *affine, True, MOMENTUM, EPS)
        return Contender(torch.nn.functional.batch_norm, [(t, *call) for t in _copies(x, slots)], {})
    arguments = []
    for t, dt in zip(_copies(x, slots), _copies(dy, slots), strict=True):
        _, mean, rstd = torch.native_batch_norm(t, *affine, *running, True, MOMENTUM, EPS)
        arguments.append((dt, t, a["weight"], *running, mean, rstd, True, EPS, [True] * 3))
    return Contender(torch.ops.aten.native_batch_norm_backward, arguments, {})


def rms_norm(case: Case, inputs: Inputs, slots: int) -> Contender:
    """F.rms_norm; on the CPU it is several functions, and its backward what autograd makes of them."""
    x, dy, a = tensors(case, inputs)
    call = (list(x.shape[-1:]), a["weight"], a["eps"])
    if case.pass_ == "forward":
        return Contender(torch.nn.functional.rms_norm, [(t, *call) for t in _copies(x, slots)], {})
    a["weight"].requires_grad_()
    arguments = []
    for t, dt in zip(_copies(x, slots), _copies(dy, slots), strict=True):
        with torch.enable_grad():
            y = torch.nn.functional.rms_norm(t.requires_grad_(), *call)
        arguments.append((y, (t, a["weight"]), dt, True))
    return Contender(torch.autograd.grad, arguments, {})


def group_norm(case: Case, inputs: Inputs, slots: int) -> Contender:
    """F.group_norm, or its backward called directly."""
    x, dy, a = tensors(case, inputs)
    groups, weight, bias = a["num_groups"], a["weight"], a["bias"]
    if case.pass_ == "forward":
        call = (groups, weight, bias, EPS)
        return Contender(torch.nn.functional.group_norm, [(t, *call) for t in _copies(x, slots)], {})
    n, c, inner = x.shape[0], x.shape[1], x[0, 0].numel()
    arguments = []
    for t, dt in zip(_copies(x, slots), _copies(dy, slots), strict=True):
        _, mean, rstd = torch.native_group_norm(t, weight, bias, n, c, inner, groups, EPS)
        arguments.append((dt, t, mean, rstd, weight, n, c, inner, groups, [True] * 3))
    return Contender(torch.ops.aten.native_group_norm_backward, arguments, {})


def instance_norm(case: Case, inputs: Inputs, slots: int) -> Contender:
    """F.instance_norm, which is batch norm of a (1, N * C, ...) view; its backward is that of batch norm."""
    x, dy, a = tensors(case, inputs)
    if case.pass_ == "forward":
        call = (a["running_mean"], a["running_var"], a["weight"], a["bias"], True, MOMENTUM, EPS)
        return Contender(torch.nn.functional.instance_norm, [(t, *call) for t in _copies(x, slots)], {})
    n = x.shape[0]
    shape, running = (1, -1, *x.shape[2:]), (a["running_mean"].repeat(n), a["running_var"].repeat(n))
    weight, bias = a["weight"].repeat(n), a["bias"].repeat(n)
    arguments = []
    for t, dt in zip(_copies(x, slots), _copies(dy, slots), strict=True):
        flat = t.reshape(shape)
        _, mean, rstd = torch.native_batch_norm(flat, weight, bias, *running, True, MOMENTUM, EPS)
        arguments.append((dt.reshape(shape), flat, weight, *running, mean, rstd, True, EPS, [True] * 3))

    def backward(*call: Any) -> tuple[torch.Tensor, ...]:
        dx, *sums = torch.ops.aten.native_batch_norm_backward(*call)
        return dx.reshape(x.shape), *(s.reshape(n, -1).sum(0) for s in sums)

    return Contender(backward, arguments, {})


def weight_norm(case: Case, inputs: Inputs, slots: int) -> Contender:
    """The fused function behind torch.nn.utils.weight_norm, or its backward called directly."""
    v, dw, a = tensors(case, inputs)
    g = a["g"].reshape(-1, *[1] * (v.ndim - 1))
    if case.pass_ == "forward":
        return Contender(torch._weight_norm, [(t, g, 0) for t in _copies(v, slots)], {})
    arguments = []
    for t, dt in zip(_copies(v, slots), _copies(dw, slots), strict=True):
        _, norms = torch.ops.aten._weight_norm_interface(t, g, 0)
        arguments.append((dt, t, g, norms, 0))
    return Contender(torch.ops.aten._weight_norm_interface_backward, arguments, {})


def local_response_norm(case: Case, inputs: Inputs, slots: int) -> Contender:
    """F.local_response_norm, or its backward as autograd puts it together."""
    x, dy, a = tensors(case, inputs)
    if case.pass_ == "forward":
        function = torch.nn.functional.local_response_norm
        return Contender(function, [(t, a["size"]) for t in _copies(x, slots)], {})
    arguments = []
    for t, dt in zip(_copies(x, slots), _copies(dy, slots), strict=True):
        with torch.enable_grad():
            y = torch.nn.functional.local_response_norm(t.requires_grad_(), a["size"])
        arguments.append((y, (t,), dt, True))
    return Contender(torch.autograd.grad, arguments, {})


NORMS: dict[str, Callable[[Case, Inputs, int], Contender]] = {
    "batch_norm": batch_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "local_response_norm": local_response_norm,
    "rms_norm": rms_norm,
    "weight_norm": weight_norm,
}


class PatientCopy(Copy):
    """A copy that first lets the threads of PyTorch come to rest."""

    def plain(self) -> float:
        time.sleep(SPIN_SECONDS)
        return super().plain()

    def streaming(self) -> float:
        time.sleep(SPIN_SECONDS)
        return super().streaming()


def _copies(tensor: torch.Tensor, slots: int) -> list[torch.Tensor]:
    return [tensor, *(tensor.clone() for _ in range(slots - 1))]


def measure(case: Case, copy: Copy, cache_bytes: int, effort: Effort) -> Baseline:
    """Time PyTorch on one case beside the copy."""
    contender = NORMS[case.op](case, make_inputs(case), case.slots(cache_bytes))
    contender.warm_up()
    (fresh,), speed, copy_gbs = beside(copy, [contender.fresh], effort)
    return Baseline("torch", Timing.of(fresh, case.bytes_moved, copy_gbs), speed)


def main() -> None:
    """Serve cases from standard input until it ends."""
    torch.set_grad_enabled(False)
    setup = json.loads(sys.stdin.readline())
    torch.set_num_threads(setup["threads"])
    copy = PatientCopy(setup["copy_bytes"], setup["threads"])
    effort = Effort(**setup["effort"])
    for line in sys.stdin:
        case = case_from(json.loads(line))
        answer = as_json(measure(case, copy, setup["cache_bytes"], effort)) if case.op in NORMS else None
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
