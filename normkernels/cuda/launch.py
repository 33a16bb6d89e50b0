"""The CUDA backend: what a pass calls, with plans and flat arrays; the names are those of the CPU's."""

from .launch_channels import (
    channel_backward,
    channel_forward,
    channel_moments,
    channel_normalize,
)
from .launch_groups import group_backward, group_forward
from .launch_local_response import local_response_backward, local_response_forward
from .launch_rows import row_backward, row_forward
from .layouts import assign, copy, empty, fits, flat, gradient, zeros

__all__ = [
    "assign",
    "channel_backward",
    "channel_forward",
    "channel_moments",
    "channel_normalize",
    "copy",
    "empty",
    "fits",
    "flat",
    "gradient",
    "group_backward",
    "group_forward",
    "local_response_backward",
    "local_response_forward",
    "row_backward",
    "row_forward",
    "zeros",
]
