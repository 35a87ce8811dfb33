"""``longscan vision saliency``: which pixels of an image a class depends on, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.cli import Parser
from ...core.command_options import check_output
from ...core.errors import UserError, nearest
from .options import add_model_arguments

if TYPE_CHECKING:
    from ..loading import VisionModel

_METHODS = ("gradient", "integrated", "attention")
_DESCRIPTION = """\
Draw an image beside a map of what speaks for (red) and against (blue) a class, by default the most probable one.

  gradient    gradient of the logit times the input (Shrikumar et al. 2016, arXiv:1605.01713)
  integrated  integrated gradients: the map adds up to the logit minus that of a grey image (Sundararajan et al. 2017,
              arXiv:1703.01365)
  attention   gradient times input with each scan as the linear map of its implicit attention: step sizes, B and C are
              held constant (Ali et al. 2024, arXiv:2403.01590); for Vim and other models of Mamba layers
"""


def saliency(argv: list[str]) -> int:
    """``longscan vision saliency``."""
    arguments = _parser().parse_args(argv)
    output = check_output(arguments.output)
    if output.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"--output {arguments.output}: the ending does not say the format; name it .png, .pdf or .svg")
    values = None if arguments.values is None else check_output(arguments.values, "--values")
    if values is not None and values.suffix.lower() != ".npz":
        raise UserError(f"--values {arguments.values}: name it .npz")
    if arguments.steps < 1:
        raise UserError(f"--steps {arguments.steps}: must be at least 1")
    import numpy as np
    import torch

    from ...core.files import replacing
    from ..loading import load_model
    from ..saliency import by_patch, draw, relevance
    from .inputs import list_inputs

    images = list_inputs([arguments.image])
    if len(images) != 1:
        raise UserError(f"{arguments.image}: {len(images)} images; give one")
    model = load_model(arguments)
    pixels = model.prepare(images.read(0, model.card.channels))
    pixels = torch.as_tensor(np.asarray(pixels))
    batch = model.normalised(pixels.unsqueeze(0))
    names = model.class_names
    logits = model.logits(batch)[0]
    chosen = int(logits.argmax()) if arguments.target is None else _class_index(model, arguments.target)
    method = arguments.method
    found = relevance(model.model, batch, torch.tensor([chosen], device=batch.device), method, steps=arguments.steps)
    side = 1 if arguments.pixels else _side(model)
    shown = by_patch(found, side)[0].float().cpu().numpy()
    picture = pixels.permute(1, 2, 0).numpy()
    probability = float(logits.softmax(0)[chosen])
    title = f"{names[chosen]} ({probability:.1%})"
    draw(output, picture[..., 0] if picture.shape[-1] == 1 else picture, shown, title, note=method, side=side)
    if values is not None:
        with replacing(values) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, relevance=found[0].float().cpu().numpy(), patches=shown, method=method)
    print(f"{images.names[0]}: {title}, by {method} -> {output}")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="longscan vision saliency", description=_DESCRIPTION)
    parser.add_argument("image", metavar="IMAGE", help="image file")
    add_model_arguments(parser)
    parser.add_argument("--target", metavar="CLASS", help="name or number of the class [the most probable one]")
    parser.add_argument("--method", choices=_METHODS, default="gradient", help="see above [%(default)s]")
    parser.add_argument("--steps", type=int, default=32, help="points of integrated gradients [%(default)s]")
    parser.add_argument("--pixels", action="store_true", help="draw every pixel instead of the sums over patches")
    parser.add_argument("--values", metavar="FILE", help="also write the map as .npz: relevance, patches")
    parser.add_argument("--output", required=True, help="picture to write: .png, .pdf or .svg")
    return parser


def _class_index(model: VisionModel, target: str) -> int:
    names = model.class_names
    if target in names:
        return names.index(target)
    if target.isdecimal() and int(target) < len(names):
        return int(target)
    raise UserError(f"--target {target}: the model knows no such class ({nearest(target, names)})")


def _side(model: VisionModel) -> int:
    """Pixels of a patch."""
    config = getattr(model.model, "config", None)
    return int(getattr(config, "patch_size", None) or max(1, min(model.card.img_size) // 16))
