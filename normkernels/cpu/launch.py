"""The CPU backend: what a pass calls, with plans and flat arrays."""

from .launch_channels import (
    channel_backward,
    channel_forward,
    channel_normalize,
    channel_standardize,
    channel_statistics,
)
from .launch_local_response import local_response_backward, local_response_forward
from .launch_rows import group_backward, group_forward, row_backward, row_forward
from .layouts import assign, copy, empty, fits, flat, gradient, zeros

__all__ = [
    "channel_backward",
    "channel_forward",
    "channel_normalize",
    "channel_standardize",
    "channel_statistics",
    "copy",
    "assign",
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
