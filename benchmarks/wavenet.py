"""A WaveNet (van den Oord et al. 2016, arXiv:1609.03499) of the size that SaShiMi was compared with, in plain torch.

Four stacks of ten layers (dilations 1 … 512), 64 channels, 1,024 skip channels, 512 in the head: 4.2 million parameters
(Goel et al. 2022, arXiv:2202.09729, appendix). Generation keeps what each layer will need again in queues (Paine et al.
2016, arXiv:1611.09482), so that a sample costs one product for each layer whatever the receptive field.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WaveNet(nn.Module):
    """Codes (batch, length) to logits (batch, length, codes) of the code after each.

    Args:
        codes: values of a sample.
        stacks: runs through the dilations.
        depth: layers of a stack, with dilations 1, 2, 4 …
        channels: of the residual stream.
        skip: of the sum of all layers.
        head: of the hidden layer behind it.
    """

    def __init__(
        self, codes: int = 256, stacks: int = 4, depth: int = 10, channels: int = 64, skip: int = 1024, head: int = 512
    ) -> None:
        super().__init__()
        self.dilations = [1 << layer for _ in range(stacks) for layer in range(depth)]
        self.embedding = nn.Embedding(codes, channels)
        self.gated = nn.ModuleList(nn.Conv1d(channels, 2 * channels, 2, dilation=d) for d in self.dilations)
        self.residual = nn.ModuleList(nn.Linear(channels, channels) for _ in self.dilations)
        self.skip = nn.ModuleList(nn.Linear(channels, skip) for _ in self.dilations)
        self.hidden = nn.Linear(skip, head)
        self.output = nn.Linear(head, codes)

    def forward(self, ids: Tensor) -> Tensor:
        """All positions at once."""
        x = self.embedding(ids)
        total: Tensor | float = 0.0
        for convolution, residual, skip in zip(self.gated, self.residual, self.skip, strict=True):
            assert isinstance(convolution, nn.Conv1d)
            padded = F.pad(x.transpose(1, 2), (convolution.dilation[0], 0))
            signal, gate = convolution(padded).transpose(1, 2).chunk(2, dim=-1)
            inner = torch.tanh(signal) * torch.sigmoid(gate)
            total = total + skip(inner)
            x = x + residual(inner)
        assert isinstance(total, Tensor)
        return self.output(F.relu(self.hidden(F.relu(total))))


class WaveNetGeneration:
    """Streams of a WaveNet, one sample at a time, with as few and as large operations as torch has for it.

    All queues lie in one buffer. What a layer needs of the past is known before the step: the past halves of all
    convolutions are one batched product, as are all skip connections at the end, and all queues are read and written by
    one operation each. Indices are computed on the device, so that a step can be recorded as a CUDA graph.
    """

    def __init__(self, model: WaveNet, streams: int, first: int = 128) -> None:
        weight = model.embedding.weight.detach()
        device, layers, channels = weight.device, len(model.dilations), weight.shape[1]
        self.embedding = weight
        self.dilations = torch.tensor(model.dilations, device=device)
        self.begin = torch.cumsum(self.dilations, 0) - self.dilations
        self.queues = torch.zeros(sum(model.dilations), streams, channels, device=device)
        self.position = torch.zeros((), dtype=torch.int64, device=device)
        self.codes = torch.full((streams,), first, dtype=torch.int64, device=device)
        gated = torch.stack([layer.weight.detach() for layer in model.gated])  # type: ignore[operator,misc]
        self.past = gated[..., 0].transpose(1, 2).contiguous()  # (layers, channels, 2 channels)
        self.now = gated[..., 1].transpose(1, 2).contiguous()
        self.bias = torch.stack([layer.bias.detach() for layer in model.gated])[:, None]  # type: ignore[operator,misc]
        self.residual = [(layer.weight.detach().T.contiguous(), layer.bias.detach()) for layer in model.residual]  # type: ignore[operator,union-attr]
        skips = torch.stack([layer.weight.detach() for layer in model.skip])  # type: ignore[operator,misc]
        self.skip = skips.permute(0, 2, 1).reshape(layers * channels, -1).contiguous()
        self.skip_bias = torch.stack([layer.bias.detach() for layer in model.skip]).sum(0)  # type: ignore[operator,misc]
        self.head = [(m.weight.detach().T.contiguous(), m.bias.detach()) for m in (model.hidden, model.output)]

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Read the current codes; return logits (streams, codes)."""
        slots = self.begin + self.position % self.dilations
        before = torch.baddbmm(self.bias, self.queues.index_select(0, slots), self.past)
        x = self.embedding.index_select(0, self.codes)
        inputs, inners = [], []
        for layer, (weight, bias) in enumerate(self.residual):
            inputs.append(x)
            signal, gate = torch.addmm(before[layer], x, self.now[layer]).chunk(2, dim=-1)
            inner = torch.tanh(signal) * torch.sigmoid(gate)
            inners.append(inner)
            x = torch.addmm(x + bias, inner, weight)
        self.queues.index_copy_(0, slots, torch.stack(inputs))
        self.position += 1
        y = F.relu(torch.addmm(self.skip_bias, torch.cat(inners, dim=-1), self.skip))
        (hidden, hidden_bias), (output, output_bias) = self.head
        return torch.addmm(output_bias, F.relu(torch.addmm(hidden_bias, y, hidden)), output)

    @torch.no_grad()
    def sample(self) -> Tensor:
        """Draw the next codes (streams,), which are read next."""
        cumulative = self.logits().softmax(-1).cumsum(-1)
        number = torch.rand(len(self.codes), 1, device=self.codes.device)
        drawn = (cumulative <= number * cumulative[:, -1:]).sum(-1)
        self.codes.copy_(drawn.clamp_(max=len(self.embedding) - 1))
        return self.codes
