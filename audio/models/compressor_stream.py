"""A compressor's weights, prepared for blocks of samples on a CPU."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .sashimi_compiled import recurrence_constants

if TYPE_CHECKING:
    from .s4_compressor import CompressorBlock, CompressorState, S4Compressor


class CompressorStream:
    """The recurrences and matrices of all blocks, taken once, and one compiled call for each block of samples.

    Norms use their running statistics, as in evaluation mode; together with the controls they become one scale and one
    shift for each feature, which are computed again only when the controls change.

    Args:
        model: any :class:`S4Compressor`; later changes of its weights are not seen.
        dtype: float64 or float32, by default that of the model.
    """

    def __init__(self, model: S4Compressor, dtype: torch.dtype | None = None) -> None:
        wide = (dtype or model.encoder.weight.dtype) == torch.float64
        self.dtype = torch.float64 if wide else torch.float32
        with torch.no_grad():
            # A copy, so that training on does not change a running stream.
            self.model = copy.deepcopy(model).cpu().to(self.dtype).eval()
            blocks = self._blocks()
            self.linear = _stack([block.linear.weight for block in blocks])
            self.linear_bias = _stack([block.linear.bias for block in blocks])
            self.output = _stack([_projection(block).weight for block in blocks])
            self.output_bias = _stack([_projection(block).bias for block in blocks])
            matrices = [recurrence_constants(block.mixer).to(self.dtype) for block in blocks]
            self.matrices = _stack(matrices)
            self.through = _stack([block.mixer.layer.D[0] for block in blocks])
            self.skip = _stack([block.skip for block in blocks])
            slopes = [torch.cat([block.inner_activation.weight, block.outer_activation.weight]) for block in blocks]
            self.slopes = _stack(slopes)
            self.gain = model.config.output == "gain"
            encoder, decoder = self.model.encoder, self.model.decoder
            self.ends = tuple(_stack([p])[0] for p in (encoder.weight, encoder.bias, decoder.weight, decoder.bias))
        self._controls: Tensor | None = None
        self._film: tuple[np.ndarray, np.ndarray] | None = None

    def _blocks(self) -> list[CompressorBlock]:
        return list(self.model.blocks)  # type: ignore[arg-type]

    def empty(self, batch_size: int) -> CompressorState:
        """The state before the first sample."""
        from .s4_compressor import CompressorState

        layers, _, modes, width = self.matrices.shape
        return CompressorState(torch.zeros(batch_size, layers, 2, modes, width, dtype=self.dtype), self)

    def process(self, x: Tensor, data: Tensor, controls: Tensor | None) -> Tensor:
        """Samples (batch, length, channels) to the same shape; ``data`` is overwritten."""
        from .compressor_kernels import process
        from .s4_compressor import LARGEST_LOG_GAIN, LEVEL_FLOOR

        scale, shift = self._conditions(controls, len(x))
        samples = np.ascontiguousarray(x.detach().to("cpu", self.dtype).numpy())
        y = torch.empty(x.shape, dtype=self.dtype)
        if samples.size:
            process(
                samples, data.numpy(), self.ends, self.linear, self.linear_bias, self.matrices, self.through,
                self.output, self.output_bias, scale, shift, self.skip, self.slopes,
                self.gain, LEVEL_FLOOR, LARGEST_LOG_GAIN, y.numpy(),
            )  # fmt: skip
        return y.to(x.device, x.dtype)

    def _conditions(self, controls: Tensor | None, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift (batch, layers, d_model) of norm and FiLM together."""
        unchanged = self._film is not None and len(self._film[0]) == batch
        if unchanged and self._film is not None:
            if controls is None and self._controls is None:
                return self._film
            if controls is not None and self._controls is not None and torch.equal(controls, self._controls):
                return self._film
        features = self.model.condition(None if controls is None else controls.cpu(), batch)
        scales, shifts = [], []
        for block in self._blocks():
            norm = block.norm
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = torch.rsqrt(norm.running_var + norm.eps).expand(batch, -1)
            shift = -norm.running_mean * scale
            if features is not None and block.film is not None:
                gain, offset = block.film(features).chunk(2, dim=-1)
                scale, shift = gain * scale, gain * shift + offset
            scales.append(scale)
            shifts.append(shift)
        self._controls = None if controls is None else controls.clone()
        self._film = tuple(torch.stack(parts, dim=1).contiguous().numpy() for parts in (scales, shifts))  # type: ignore[assignment]
        assert self._film is not None
        return self._film


def _projection(block: CompressorBlock) -> nn.Linear:
    return block.mixer.output_linear[0]  # type: ignore[return-value]


def _stack(tensors: list[Tensor]) -> np.ndarray:
    return torch.stack([tensor.detach() for tensor in tensors]).contiguous().numpy()
