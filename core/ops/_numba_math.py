"""Elementary functions for the compiled CPU kernels. Imports numba, so only kernels import this module.

numba calls the C library for ``exp``, one number at a time, and the loop around it does not vectorise. In float32 the
exponential is therefore a polynomial (relative error below 1.2 units in the last place) made of operations that do;
in float64 it is the C library's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload


def _probe() -> None:
    """Compiled never: see below."""


def _disk_cache() -> bool:
    """Whether compiled code can be kept: numba wants a writable folder beside the source, or one of the user's."""
    try:
        njit(cache=True)(_probe)
    except RuntimeError:
        return False
    return True


#: Contraction to fused multiply-adds and reassociation of sums (for vector reductions): nothing that assumes finite
#: numbers. The order chosen is fixed when the kernel is compiled, so results do not vary from run to run.
FAST: dict[str, Any] = {
    "nogil": True,
    "cache": _disk_cache(),
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz"},
}

#: For code whose order of operations matters, such as rounding by adding a large constant.
EXACT_ORDER: dict[str, Any] = {**FAST, "fastmath": {"contract", "nsz"}}

_OPTIONS: Any = EXACT_ORDER
_ROUND = np.float32(1.5 * 2.0**23)
_LOG2E = np.float32(math.log2(math.e))
_ONE_BITS = np.int32(0x3F800000)
_EXPONENT = np.int32(23)
_LOWEST, _HIGHEST = np.float32(-127.0), np.float32(128.0)
# 2^f - 1 = f * polynomial(f) on [-1/2, 1/2], fitted for the least maximal relative error of 2^f.
_P0, _P1, _P2, _P3, _P4, _P5 = (
    np.float32(value)
    for value in (
        0.6931472028553775,
        0.24022647913583078,
        0.05550332470633067,
        0.009618437360788344,
        0.0013398874569941557,
        0.0001535336144180971,
    )
)
_ONE = np.float32(1.0)


def _bits(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


def _float(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


_bits_of: Any = intrinsic(_bits)
_float_from: Any = intrinsic(_float)


@njit(**EXACT_ORDER)
def _exp2_float32(x: float) -> float:
    """2^x: 0 below -127, infinite above 128, no branches."""
    x = min(max(x, _LOWEST), _HIGHEST)  # type: ignore[assignment]
    # Adding 1.5 * 2^23 rounds x to an integer and leaves it in the low bits; shifted, they are the exponent.
    shifted = x + _ROUND
    f = x - (shifted - _ROUND)
    scale: Any = _float_from(np.int32(_bits_of(shifted) << _EXPONENT) + _ONE_BITS)
    polynomial = ((((_P5 * f + _P4) * f + _P3) * f + _P2) * f + _P1) * f + _P0
    return (polynomial * f + _ONE) * scale


def exponent_scale(dtype: np.dtype) -> float:
    """The factor c for which ``power(c * x)`` is exp(x) in this dtype."""
    return math.log2(math.e) if dtype == np.float32 else 1.0


def power(x: float) -> float:
    """2^x in float32, e^x in float64: the caller scales x by :func:`exponent_scale` where that costs nothing."""
    raise NotImplementedError


def exponential(x: float) -> float:
    """e^x."""
    raise NotImplementedError


@overload(power, jit_options=_OPTIONS)
def _power(x):  # type: ignore[no-untyped-def]  # numba compares the argument lists, annotations included
    if x == types.float32:
        return lambda x: _exp2_float32(x)
    return lambda x: math.exp(x)


@overload(exponential, jit_options=_OPTIONS)
def _exponential(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: _exp2_float32(x * _LOG2E)
    return lambda x: math.exp(x)


@njit(**FAST)
def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), in the type of x."""
    one = type(x)(1)
    return one / (one + exponential(-x))
