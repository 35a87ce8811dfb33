"""SS2D, the two-dimensional selective scan of VMamba (Liu et al. 2024, arXiv:2401.10166, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UserError, nearest
from ...core.norms import LayerNorm, float32_at_least
from ...core.ops import selective_scan
from ...core.scan_orders import ScanOrder, scan_order
from .local_mixer import ChannelAttention

#: Named routes: the order of each, and whether it is read backwards, which costs no permutation.
_ROUTES: dict[str, tuple[str, ...]] = {
    "cross": ("raster", "column", "raster_reverse", "column_reverse"),
    "bidirectional": ("raster", "raster", "raster_reverse", "raster_reverse"),
    "unidirectional": ("raster", "raster", "raster", "raster"),
    "rotation": ("raster", "rotation1", "raster_reverse", "rotation1_reverse"),
}


def route_names(routes: str | Sequence[str]) -> tuple[tuple[str, bool], ...]:
    """Return for each route its order and whether it is read backwards.

    Raises:
        UserError: for an unknown name.
    """
    if isinstance(routes, str):
        if routes not in _ROUTES:
            raise UserError(f"routes {routes!r} are unknown; {nearest(routes, _ROUTES)}, or a list of scan orders")
        routes = _ROUTES[routes]
    if not routes:
        raise UserError("routes is empty; give at least one scan order")
    result = []
    for name in routes:
        scan_order(name, 1, 1)  # an unknown name is told now
        full = "raster_reverse" if name == "reverse" else name
        base = full.removesuffix("_reverse").removesuffix("_flip")
        result.append(({"h": "raster", "v": "column"}.get(base, base), base != full))
    return tuple(result)


class SS2D(nn.Module):
    """Several selective scans along routes through the picture, added up; (batch, height, width, dim) to the same.

    With E = ratio · dim and a set of weights for each route k::

        x = silu(conv3×3(in_proj(input)))           [x | z] = in_proj(input) with a gate, z = silu(z)
        y = sum over routes k: undo_k(selective_scan(order_k(x); x_proj_k, dt_k, A_k, D_k))
        out = out_proj(norm(y) · z)

    Parameter names are the published ones: ``x_proj_weight`` (K, R + 2N, E), ``dt_projs_weight`` (K, E, R),
    ``dt_projs_bias`` (K, E), ``A_logs`` (K · E, N), ``Ds`` (K · E).

    With ``channel_attention`` what each route gives is weighted by channel before the sum, as LocalVMamba does.

    Args:
        dim: width of the input and output.
        d_state: N.
        ratio: E / dim.
        dt_rank: R, by default ceil(dim / 16).
        conv: width of the depthwise convolution.
        conv_bias: its bias.
        gate: whether the output is gated.
        gate_activation: whether the gate passes a SiLU.
        out_activation: GELU after the norm.
        routes: ``"cross"``, ``"bidirectional"``, ``"unidirectional"``, ``"rotation"``, or names of scan orders.
        padded: windows that the picture does not fill read zeros, as LocalMamba's do.
        channel_attention: weight the channels of each route (``multi_scan.attn``, shared by the routes).
        norm_epsilon: of the norm.
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 1,
        ratio: float = 1.0,
        dt_rank: int | None = None,
        conv: int = 3,
        conv_bias: bool = False,
        gate: bool = False,
        gate_activation: bool = True,
        out_activation: bool = False,
        routes: str | Sequence[str] = "cross",
        padded: bool = False,
        channel_attention: bool = False,
        norm_epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.inner, self.d_state, self.dt_rank = int(ratio * dim), d_state, dt_rank or math.ceil(dim / 16)
        self.gate, self.gate_activation, self.out_activation = gate, gate_activation, out_activation
        self.routes, self.padded = route_names(routes), padded
        count, inner = len(self.routes), self.inner
        self.in_proj = nn.Linear(dim, inner * (2 if gate else 1), bias=False)
        self.conv2d = nn.Conv2d(inner, inner, conv, padding=(conv - 1) // 2, groups=inner, bias=conv_bias)
        self.x_proj_weight = nn.Parameter(torch.empty(count, self.dt_rank + 2 * d_state, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(count, inner, self.dt_rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(count, inner))
        self.A_logs = nn.Parameter(torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(count * inner, 1))
        self.Ds = nn.Parameter(torch.ones(count * inner))
        self.multi_scan = nn.ModuleDict({"attn": ChannelAttention(inner)} if channel_attention else {})
        self.out_norm = LayerNorm(inner, norm_epsilon)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.reset_scan()

    def reset_scan(self) -> None:
        """Initialise as Mamba: steps log-uniform in [0.001, 0.1], torch's own linear rule for the projections."""
        nn.init.uniform_(self.x_proj_weight, -(self.inner**-0.5), self.inner**-0.5)
        nn.init.uniform_(self.dt_projs_weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        dt = torch.exp(torch.rand_like(self.dt_projs_bias) * math.log(100) + math.log(1e-3)).clamp(min=1e-4)
        with torch.no_grad():
            self.dt_projs_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        for parameter in (self.A_logs, self.Ds, self.dt_projs_bias):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.in_proj(x)
        z = None
        if self.gate:
            x, z = x.chunk(2, dim=-1)
            z = F.silu(z) if self.gate_activation else z
        x = F.silu(self.conv2d(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        y = self.out_norm(self.scan(x).to(x.dtype))
        if self.out_activation:
            y = F.gelu(y)
        return self.out_proj(y if z is None else y * z)

    def scan(self, x: Tensor) -> Tensor:
        """Add up the scans along all routes: (batch, height, width, E) to the same.

        Routes of one direction and one length share a call; a route and its reverse share their permutation.
        """
        batch, height, width, inner = x.shape
        flat = x.flatten(1, 2)
        orders = {name: scan_order(name, height, width, padded=self.padded, device=x.device) for name, _ in self.routes}
        read = {name: flat if name == "raster" else order.scan(flat) for name, order in orders.items()}
        totals: dict[str, Tensor] = {}
        for routes in self._calls(orders):
            names = [self.routes[k][0] for k in routes]
            y = self._scan_routes(torch.cat([read[name] for name in names], dim=-1), routes)
            for name, part in zip(names, y.split(inner, dim=-1), strict=True):
                if self.multi_scan:  # a mean over the cells, so padding has to go first
                    cells = part if name == "raster" else orders[name].unscan(part)
                    name, part = "raster", self.multi_scan["attn"](cells)
                totals[name] = totals[name] + part if name in totals else part
        merged = [y if name == "raster" else orders[name].unscan(y) for name, y in totals.items()]
        return torch.stack(merged).sum(0).view(batch, height, width, inner) if len(merged) > 1 else merged[0].view_as(x)

    def _calls(self, orders: dict[str, ScanOrder]) -> list[list[int]]:
        calls: dict[tuple[bool, int], list[int]] = {}
        for k, (name, reverse) in enumerate(self.routes):
            calls.setdefault((reverse, len(orders[name].index)), []).append(k)
        return list(calls.values())

    def _scan_routes(self, u: Tensor, routes: list[int]) -> Tensor:
        """Scan several routes of one direction: (batch, length, routes · E) to the same."""
        each = u.unflatten(-1, (len(routes), self.inner))
        projected = torch.einsum("blke,kce->blkc", each, self.x_proj_weight[routes].to(u.dtype))
        dt, B, C = projected.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        with torch.autocast(u.device.type, enabled=False):  # the step size decides how fast the state decays
            weight = float32_at_least(self.dt_projs_weight[routes])
            dt = torch.einsum("blkr,ker->blke", float32_at_least(dt), weight).flatten(-2)
        A_log = float32_at_least(self.A_logs).view(-1, self.inner, self.d_state)[routes]
        y = selective_scan(
            u,
            dt,
            -torch.exp(A_log.flatten(0, 1)),
            B.contiguous(),
            C.contiguous(),
            float32_at_least(self.Ds).view(-1, self.inner)[routes].flatten(),
            None,
            float32_at_least(self.dt_projs_bias[routes].flatten()),
            delta_softplus=True,
            reverse=self.routes[routes[0]][1],
        )
        assert isinstance(y, Tensor)  # no state was asked for
        return y
