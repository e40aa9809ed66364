"""`lksegment train click`: train the built-in click model on synthetic volumes, stop and resume at will."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from LKSegmentLib.cli.command import Command, Parser, add_json, example
from LKSegmentLib.cli.outputs import coming_folder
from LKSegmentLib.cli.screen import Screen
from LKSegmentLib.errors import InputError

if TYPE_CHECKING:
    from LKSegmentLib.training.click_training import ClickTrainer
    from LKSegmentLib.training.recipe import Recipe

_BATCHES_IN_FLIGHT = 8
_USUAL_BATCH = 4  # windows a step for which the recipe's learning rate was chosen
_EXAMPLE = (
    "  lksegment train click --minutes 90 --out my_model\n"
    "  lksegment train click --resume --minutes 180 --out my_model\n"
    "  lksegment train click --from lk_click --minutes 90 --precision bfloat16 --replicas 2 --out my_model\n"
    "  lksegment train click --minutes 9 --device cuda --preparers 15 --batch 32 --window 64 --precision bfloat16 "
    "--out my_model"
)


def configure(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True, parser_class=Parser)
    summary = "Train the click model on synthetic volumes only; no image of a person is used."
    click = kinds.add_parser("click", help=summary, description=summary, **example(_EXAMPLE))
    click.add_argument("--out", required=True, metavar="FOLDER", help="where the checkpoint and the package go")
    click.add_argument(
        "--minutes", type=_positive, help="training time in all (default: 108, or what it was with --resume)"
    )
    click.add_argument("--stop-after", type=_positive, metavar="MINUTES", help="end this call then; --resume goes on")
    click.add_argument("--seed", type=int, help="of the synthetic volumes (default: 0)")
    click.add_argument("--resume", action="store_true", help="go on from the checkpoint in FOLDER")
    click.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1 or mps (default: cpu)")
    click.add_argument(
        "--replicas", type=_whole(1), metavar="N",
        help="trainers that step together, a processor core each, with N times the windows a step (default: 1, or as "
        "it was); above 4 windows a step the learning rate is multiplied by the root of a quarter of them",
    )  # fmt: skip
    click.add_argument(
        "--preparers", type=_whole(0), metavar="N",
        help="processes that draw volumes and place clicks for the trainer: for one on a GPU, a processor core each; "
        "they do not pay on a CPU (default: 0, or as it was)",
    )  # fmt: skip
    click.add_argument(
        "--batch", type=_whole(1), metavar="N",
        help="windows a step of each trainer (default: 2); above 4 in all the learning rate is multiplied by the root "
        "of a quarter of them",
    )  # fmt: skip
    click.add_argument(
        "--window",
        type=_edge,
        metavar="EDGE",
        help="of all windows, and of the model's (default: they grow from 32 to 64 voxels)",
    )
    click.add_argument(
        "--from",
        dest="start",
        metavar="MODEL",
        help="begin with the weights of this click model, a name or a package; windows then "
        "grow from 48 voxels, and the learning rate is 0.7 of the usual one",
    )
    click.add_argument(
        "--precision", choices=("float32", "bfloat16"),
        help="of the activations; bfloat16 is faster on processors made for it, and on GPUs (default: float32, or as "
        "it was)",
    )  # fmt: skip
    add_json(click)


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    import torch

    from LKSegmentLib.inference.devices import resolve_device
    from LKSegmentLib.training.click_export import export_package
    from LKSegmentLib.training.click_training import ClickTrainer
    from LKSegmentLib.training.recipe import Recipe

    begun = time.monotonic()
    folder = coming_folder(Path(arguments.out).expanduser().absolute(), "trained model")
    device = str(resolve_device(arguments.device))
    if arguments.resume:
        trainer = ClickTrainer.resume(
            folder,
            device,
            minutes=arguments.minutes,
            replicas=arguments.replicas,
            preparers=arguments.preparers,
            precision=arguments.precision,
        )
        _check_settled(arguments, trainer)
    elif (folder / "checkpoint.pt").exists():
        raise InputError(f"There is a checkpoint in {folder} already; go on with --resume, or name another folder.")
    else:
        recipe = Recipe(
            minutes=arguments.minutes or Recipe.minutes,
            seed=arguments.seed or Recipe.seed,
            batch=arguments.batch or Recipe.batch,
            replicas=arguments.replicas or Recipe.replicas,
            preparers=arguments.preparers or Recipe.preparers,
            precision=arguments.precision or Recipe.precision,
        )
        trainer = _begun_with(arguments.start, recipe, arguments.window, folder, device)
    if trainer.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # all windows are of one size; this process does nothing else
    end = begun + 60 * (arguments.stop_after or math.inf)
    if trainer.progress < 1:
        screen.say(f"Training for {trainer.recipe.minutes:g} minutes on {device}; Ctrl+C stops, --resume goes on.")
    else:
        screen.say(f"All {trainer.recipe.minutes:g} minutes are used; name more in all with --minutes to go on.")
    with screen.progress("Training") as progress:
        try:
            trainer.train(stop_after=end - time.monotonic(), stepped=lambda: progress("", trainer.progress))
        except KeyboardInterrupt:
            if trainer.steps:
                trainer.save()
            raise
        finally:
            trainer.close()
    package = export_package(trainer, folder / "lk_click", overwrite=True)
    screen.say(f"{trainer.steps} steps on {trainer.scenes} synthetic volumes; the curve is {folder / 'curve.csv'}.")
    if trainer.progress < 1:
        screen.say(f"{100 * trainer.progress:.0f} % of the training time is used; --resume goes on.")
    screen.say(f"The model package is {package}; use it with: lksegment click IMAGE --model {package} ...")
    return {"package": package, "steps": trainer.steps, "scenes": trainer.scenes, "minutes": trainer.seconds / 60}


def _begun_with(model: str | None, recipe: Recipe, window: int | None, folder: Path, device: str) -> ClickTrainer:
    """A trainer that begins with the weights of this model; None: with random ones."""
    from LKSegmentLib import packages
    from LKSegmentLib.prompts import CHANNELS
    from LKSegmentLib.training.click_training import ClickTrainer
    from LKSegmentLib.training.recipe import GOING_ON

    if model is None:
        return ClickTrainer(_suited(recipe, window), folder, device)
    package = packages.load(model)
    manifest = package.manifest
    if manifest.network != "lk_click":
        raise InputError(f"The model {manifest.name!r} is no click model; --from takes one, such as lk_click.")
    known = tuple(manifest.prompts.get("channels", CHANNELS[: manifest.in_channels]))
    if known != CHANNELS[: len(known)]:
        raise InputError(
            f"The model {manifest.name!r} takes other inputs, or in another order, than the one to be trained; a "
            "training cannot begin with it."
        )
    origin = {
        "weights_sha256": manifest.files["weights.safetensors"].sha256,
        "trained_on": manifest.trained_on,
        "licence": manifest.licence,
    }
    recipe = _suited(replace(recipe, started_from=origin, **GOING_ON), window)
    return ClickTrainer(recipe, folder, device, weights=package.network("cpu").state_dict())


def _check_settled(arguments: argparse.Namespace, trainer: ClickTrainer) -> None:
    """What settled the training when it began may be said again, but not be changed."""
    from LKSegmentLib import packages

    recipe = trainer.recipe
    start = arguments.start and packages.load(arguments.start).manifest.files["weights.safetensors"].sha256
    edge = recipe.windows[0][1] if len(recipe.windows) == 1 else None
    for option, said, settled in (
        ("--from", start, recipe.started_from.get("weights_sha256")),
        ("--seed", arguments.seed, recipe.seed),
        ("--batch", arguments.batch, recipe.batch),
        ("--window", arguments.window, edge),
    ):
        if said is not None and said != settled:
            raise InputError(
                f"{option} was settled when the training in {trainer.folder} began; leave it out, or name another "
                "folder."
            )


def _suited(recipe: Recipe, window: int | None) -> Recipe:
    """With all windows of this edge, and a learning rate and targets in flight that suit the windows a step."""
    recipe = replace(recipe, pool=max(recipe.pool, _BATCHES_IN_FLIGHT * recipe.batch))
    together = recipe.batch * recipe.replicas
    if together > _USUAL_BATCH:
        recipe = replace(recipe, learning_rate=recipe.learning_rate * math.sqrt(together / _USUAL_BATCH))
    return recipe if window is None else replace(recipe, windows=((1.0, window),))


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of minutes above 0")
    return value


def _whole(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number, {least} or more")
        return int(text)

    return whole


def _edge(text: str) -> int:
    from LKSegmentLib import networks

    network = networks.facts("lk_click")
    least, multiple = network.minimum_size, network.size_multiple
    if not text.isdecimal() or int(text) < least or int(text) % multiple:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not an edge of windows: a multiple of {multiple}, {least} or more"
        )
    return int(text)


COMMAND = Command(
    name="train",
    summary="Train a model of our own on synthetic volumes.",
    example=_EXAMPLE,
    configure=configure,
    run=run,
)
