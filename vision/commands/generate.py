"""``longscan vision generate``: new images from an autoregressive model, as PNG."""

from __future__ import annotations

from pathlib import Path

from ...core.cli import Parser
from ...core.command_options import add_seed_argument, check_place
from ...core.errors import UserError
from .options import add_model_arguments

_DESCRIPTION = """\
Draw images intensity by intensity from a model that vision fit trained with the task PixelModeling.

--output is a folder for 0001.png, 0002.png …; bits per dimension under the model are printed. What is drawn depends on
--seed and --number.
"""


def generate(argv: list[str]) -> int:
    """``longscan vision generate``."""
    parser = Parser(prog="longscan vision generate", description=_DESCRIPTION)
    add_model_arguments(parser)
    parser.add_argument("--number", type=int, default=4, help="images [%(default)s]")
    parser.add_argument("--temperature", type=float, default=1.0, help="divides the logits [%(default)s]")
    parser.add_argument("--top-k", type=int, help="draw from the k most probable intensities")
    parser.add_argument("--top-p", type=float, help="draw from the fewest intensities with this probability together")
    add_seed_argument(parser, "of the draw")
    parser.add_argument("--output", required=True, help="folder to write")
    arguments = parser.parse_args(argv)
    if arguments.number < 1:
        raise UserError(f"--number {arguments.number}: must be at least 1")
    if not arguments.temperature > 0:
        raise UserError(f"--temperature {arguments.temperature:g}: must be above 0")
    if arguments.top_k is not None and arguments.top_k < 1:
        raise UserError(f"--top-k {arguments.top_k}: must be at least 1")
    if arguments.top_p is not None and not 0 < arguments.top_p <= 1:
        raise UserError(f"--top-p {arguments.top_p:g}: must lie above 0 and be at most 1")
    folder = Path(arguments.output).expanduser()
    if folder.is_file():
        raise UserError(f"--output {folder}: is a file; name a folder")
    check_place(folder)
    from PIL import Image

    from ...core.files import replacing
    from ..data.pixels import LEVELS
    from ..generation import sample_images
    from ..loading import load_model

    model = load_model(arguments, pixels=True)
    if getattr(getattr(model.model, "config", None), "vocab_size", None) != LEVELS + 1:
        raise UserError(f"{arguments.model}: is no model of intensities; train one with the task PixelModeling")
    sampling = {"temperature": arguments.temperature, "top_k": arguments.top_k, "top_p": arguments.top_p}
    images, bits = sample_images(
        model.model,
        arguments.number,
        model.card.img_size,
        model.card.channels,
        seed=arguments.seed,
        device=model.device,
        **sampling,
    )
    for number, (image, value) in enumerate(zip(images, bits.tolist(), strict=True), 1):
        with replacing(folder / f"{number:04d}.png") as temporary:
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(temporary)
        print(f"{folder / f'{number:04d}.png'}  {value:.3f} bits per dimension")
    return 0
