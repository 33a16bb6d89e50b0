"""Launching: arguments to a compiled variant, on the device and the stream of an array."""

from functools import lru_cache
from typing import Any

import numpy as np

from .arrays import DeviceArray
from .devices import making_current, stream
from .form import Form
from .jit import SIMULATED, Kernel

if SIMULATED:
    from .emulated import Pointer
else:
    from cuda.core import LaunchConfig
    from cuda.core import launch as _launch
    from numba.cuda import types

    from .vectors import FormType

