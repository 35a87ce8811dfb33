"""HiPPO matrices, kernels and layers of S4, S4D and DSS against the outputs of the original implementations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from longscan.core.mixers import create_mixer
from longscan.core.state_spaces import (
    DiagonalKernel,
    DPLRKernel,
    DSSKernel,
    diagonal_plus_low_rank,
    hippo,
    rank_correction,
)
from longscan.core.state_spaces.published import from_minimal_s4d
from longscan.core.state_spaces.recurrence import Recurrence, dense


class Case:
    """One folder of fixtures."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.args: dict[str, Any] = self.config.get("args", {})
        self.inputs = {key: torch.from_numpy(value) for key, value in np.load(folder / "inputs.npz").items()}
        self.outputs = {key: torch.from_numpy(value) for key, value in np.load(folder / "outputs.npz").items()}
        weights = folder / "model.safetensors"
        self.weights = load_file(weights) if weights.exists() else {}

    def check(self, found: Tensor, key: str, dtype: torch.dtype = torch.float64) -> None:
        """Compare with ``outputs[key]`` within the tolerance of the fixture and precision, relative to its maximum."""
        expected = self.outputs[key].double()
        found = torch.view_as_real(found.resolve_conj()) if found.is_complex() else found
        assert found.shape == expected.shape, key
        tolerance = self.config["rtol64" if dtype == torch.float64 else "rtol32"]
        difference = float((found.detach().double() - expected).abs().max() / expected.abs().max())
        assert difference <= tolerance, f"{key}: relative difference {difference:.1e}, allowed {tolerance:.0e}"


@pytest.fixture
def case(request: pytest.FixtureRequest, golden: Path) -> Case:
    return Case(golden / "audio" / request.param)


def cases(*names: str) -> Any:
    return pytest.mark.parametrize("case", [f"{name}_a" for name in names], indirect=True)


precisions = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def as_complex(tensor: Tensor) -> Tensor:
    return torch.view_as_complex(tensor.double().contiguous())


def run_steps(recurrence: Recurrence, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Step over u (batch, dim, length) from ``state``: y (batch, channels, dim, length) and the last state."""
    outputs = []
    for u_t in u.unbind(-1):
        y, state = recurrence.step(state, u_t)
        outputs.append(y)
    return torch.stack(outputs, -1), state


@cases("hippo")
@pytest.mark.parametrize("measure", ["legs", "legt", "fout"])
@pytest.mark.parametrize("size", [8, 16])
def test_hippo(case: Case, measure: str, size: int) -> None:
    rank = 2 if measure == "legt" else 1
    A, B = hippo(measure, size)
    P = rank_correction(measure, size, rank)
    eigenvalues, P_modes, B_modes = diagonal_plus_low_rank(measure, size, rank, clip_B=None)
    clipped = diagonal_plus_low_rank(measure, size, rank)[2]
    found = {
        "A": A,
        "B": B[:, None],
        "P": P,
        "Lambda": torch.view_as_real(eigenvalues),
        "absB": B_modes.abs(),
        "absP": P_modes.abs(),
        "conjP_times_B": torch.view_as_real((P_modes.conj() * B_modes).resolve_conj()),
    }
    # The original builds FouT's correction in float32.
    tolerance = 1e-6 if measure == "fout" else case.config["rtol64"]
    for key, value in found.items():
        expected = case.outputs[f"{measure}_{size}_{key}"]
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=max(case.config["atol"], tolerance / 10))
    assert clipped.imag.abs().max() <= 2
    # One of each pair, put together with its conjugate, is the matrix itself, up to the arbitrary basis.
    full = (
        torch.cat([eigenvalues, eigenvalues.conj()]).diag()
        - (stacked := torch.cat([P_modes, P_modes.conj()], dim=1)).mT @ stacked.conj()
    )
    torch.testing.assert_close(
        torch.linalg.matrix_power(full, 3).diagonal().sum(),
        torch.linalg.matrix_power(A, 3).diagonal().sum().to(full.dtype),
        rtol=1e-9,
        atol=1e-9,
    )


@cases("s4d_kernel_zoh", "s4d_kernel_bilinear", "s4d_kernel_options")
@precisions
def test_s4d_kernel(case: Case, dtype: torch.dtype) -> None:
    args = {key: value for key, value in case.args.items() if key not in ("L", "rates", "verbose")}
    kernel = DiagonalKernel(**args).to(dtype)
    kernel.load_state_dict(case.weights)
    suffix = "" if dtype == torch.float64 else "_float32"
    for rate in case.args["rates"]:
        case.check(kernel(case.args["L"], rate), f"K_rate{rate}{suffix}", dtype)
        case.check(kernel(case.args["L"], rate), f"K_rate{rate}", dtype)


@cases("s4d_kernel_zoh", "s4d_kernel_bilinear", "s4d_kernel_options")
def test_s4d_recurrence(case: Case) -> None:
    args = {key: value for key, value in case.args.items() if key not in ("L", "rates", "verbose")}
    kernel = DiagonalKernel(**args).double()
    kernel.load_state_dict(case.weights)
    recurrence = kernel.recurrence()
    case.check(recurrence.factor, "dA")
    case.check(recurrence.input, "dB")
    case.check(recurrence.output, "dC")
    u, state = case.inputs["u"], as_complex(case.inputs["state0"])
    case.check(kernel.response(state, case.args["L"]), "K_state")
    case.check(kernel.final_state(u.transpose(1, 2), state), "forward_state")
    y, last = run_steps(recurrence, u[..., :40], torch.zeros_like(state))
    case.check(y, "step_y")
    case.check(last, "step_state")


@cases("dss_kernel")
@precisions
def test_dss_kernel(case: Case, dtype: torch.dtype) -> None:
    args = {k: v for k, v in case.args.items() if k not in ("L", "rates", "verbose", "disc", "bandlimit")}
    kernel = DSSKernel(**args).to(dtype)
    kernel.load_state_dict(case.weights)
    for rate in case.args["rates"]:
        # The original rounds its result to float32.
        found = kernel(case.args["L"], rate)
        case.check(found.float(), f"K_rate{rate}", torch.float32)
        difference = (found.double() - case.outputs[f"K_rate{rate}"].double()).abs().max()
        assert difference <= (1e-7 if dtype == torch.float64 else 1e-6) * case.outputs[f"K_rate{rate}"].abs().max()


DPLR = cases("s4_dplr_kernel_pow2", "s4_dplr_kernel_nonpow2", "s4_dplr_kernel_fout", "s4_dplr_kernel_legt_rank2")


def dplr_kernel(case: Case, dtype: torch.dtype = torch.float64) -> DPLRKernel:
    left_out = ("verbose", "l_max", "lengths_called_in_order")
    kernel = DPLRKernel(**{key: value for key, value in case.args.items() if key not in left_out}).to(dtype)
    kernel.load_state_dict(case.weights)
    return kernel


@DPLR
@precisions
def test_dplr_kernel(case: Case, dtype: torch.dtype) -> None:
    kernel = dplr_kernel(case, dtype)
    plain = {"C": case.inputs["C_original"], "l_kernel": torch.tensor(0)}
    kernel.load_state_dict({**case.weights, **plain})
    suffix = "" if dtype == torch.float64 else "_float32"
    for call, length in enumerate(case.args["lengths_called_in_order"]):
        case.check(kernel(length), f"K{call}_L{length}{suffix}", dtype)
        case.check(kernel.C, f"Ctilde_after{call}", dtype)
        assert int(kernel.l_kernel) == int(case.outputs[f"l_kernel_after{call}"])
    for rate in (2.0, 0.5):
        kernel = dplr_kernel(case, dtype)
        case.check(kernel(case.outputs[f"K_rate{rate}"].shape[-1], rate), f"K_rate{rate}", dtype)


@DPLR
def test_dplr_recurrence(case: Case) -> None:
    kernel = dplr_kernel(case)
    recurrence = kernel.recurrence()
    n = recurrence.factor.shape[-1]
    M = dense(recurrence).transition
    rows = [(M[:, :n, :n], M[:, :n, n:]), (M[:, n:, :n], M[:, n:, n:])]
    # The same map on pairs of conjugates.
    own = torch.complex(rows[0][0] + rows[1][1], rows[1][0] - rows[0][1]) / 2
    other = torch.complex(rows[0][0] - rows[1][1], rows[1][0] + rows[0][1]) / 2
    paired = torch.cat([torch.cat([own, other], -1), torch.cat([other.conj(), own.conj()], -1)], -2)
    case.check(paired, "dA")
    case.check(torch.cat([recurrence.input, recurrence.input.conj()], -1), "dB")
    case.check(torch.cat([recurrence.output, recurrence.output.conj()], -1), "dC_recovered")
    u, state = case.inputs["u"], as_complex(case.inputs["state0"])
    length = u.shape[-1]
    case.check(kernel.response(state, length), "K_state")
    case.check(kernel.final_state(u.transpose(1, 2), state), "next_state")
    y, last = run_steps(recurrence, u, torch.zeros_like(state))
    case.check(y, "step_y")
    case.check(torch.cat([last, last.conj()], -1), "step_state_dense")
    from_state, _ = run_steps(recurrence, u, state)
    case.check(from_state, "y_with_state")


LAYERS = cases(
    "s4_layer", "s4_layer_nonpow2", "s4_layer_lmax", "s4_bidirectional",
    "s4d_layer_zoh", "s4d_layer_bilinear", "s4d_bidirectional",
)  # fmt: skip


@LAYERS
@precisions
def test_layer(case: Case, dtype: torch.dtype) -> None:
    args = {key: value for key, value in case.args.items() if key not in ("mode", "transposed", "verbose")}
    mixer = create_mixer("s4" if case.args["mode"] == "dplr" else "s4d", **args).to(dtype).eval()
    mixer.load_state_dict(case.weights)
    assert {key: list(value.shape) for key, value in mixer.state_dict().items()} == case.config["keys"]
    x = case.inputs["u"].to(dtype).transpose(1, 2)
    with torch.no_grad():
        case.check(mixer(x).transpose(1, 2), "y", dtype)
        if dtype == torch.float32:
            case.check(mixer(x).transpose(1, 2), "y_float32", dtype)
        valid = torch.arange(x.shape[1]) < case.inputs["lengths"][:, None]
        case.check(mixer(x * valid[..., None]).transpose(1, 2), "y_lengths", dtype)
        if "y_rate2.0" in case.outputs:
            case.check(mixer(x, rate=2.0).transpose(1, 2), "y_rate2.0", dtype)
            mixer.rate = 2.0
            case.check(mixer(x).transpose(1, 2), "y_rate2.0", dtype)
            mixer.rate = 1.0
        if "step_y" in case.outputs:
            state, outputs = mixer.init_state(len(x)), []
            for t in range(case.outputs["step_y"].shape[-1]):
                y, state = mixer.step(x[:, t], state)
                outputs.append(y)
            case.check(torch.stack(outputs, -1), "step_y", dtype)
        if "chunk_y" in case.outputs:
            cut = int(case.inputs["chunk_cut"])
            first, state = mixer.prefill(x[:, :cut])
            second, last = mixer.prefill(x[:, cut:], state)
            case.check(torch.cat([first, second], 1).transpose(1, 2), "chunk_y", dtype)
            case.check(last.ssm, "chunk_state", dtype)


@cases("s4d_minimal")
@precisions
def test_minimal_s4d(case: Case, dtype: torch.dtype) -> None:
    mixer = create_mixer("s4d", **case.args).to(dtype).eval()
    mixer.load_state_dict(from_minimal_s4d(case.weights))
    x = case.inputs["u"].to(dtype).transpose(1, 2)
    with torch.no_grad():
        case.check(mixer.kernel(x.shape[1])[0], "K", dtype)
        case.check(mixer(x).transpose(1, 2), "y", dtype)
