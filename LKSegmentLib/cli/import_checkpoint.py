"""`lksegment import`: somebody's trained weights → a model package that says what it is."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import Any

from LKSegmentLib.cli.arguments import triple
from LKSegmentLib.cli.command import Command
from LKSegmentLib.cli.screen import Screen

_EXAMPLE = (
    "  lksegment import checkpoint_final.pth --labels dataset.json --plans plans.json -o my_organs\n"
    "  lksegment import best.pth --network dnet --labels background,liver,spleen --spacing 1.5,1.5,2 "
    "--window 96,96,96 --intensity ct:-175,250"
)


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help=".pt or .pth (also nnU-Net v2), or .safetensors; no code in it is run")
    add("--network", metavar="NAME", help="the network it must be (default: recognised by its tensors)")
    add("--labels", metavar="NAMES", help="what the outputs are: names with commas between, or a dataset.json")
    add("--regions", action="store_true", help="the outputs may overlap (sigmoid) and are decided one by one")
    add("--plans", metavar="FILE", help="plans.json of nnU-Net v2: spacing, window and intensities of the training")
    add("--configuration", metavar="NAME", help="which configuration of the plans (default: 3d_fullres)")
    add("--spacing", type=triple, metavar="R,A,S", help="voxel size of the training in mm")
    add("--window", type=_window, metavar="K,J,I", help="window of the training in voxels, slices first")
    add("--intensity", metavar="RULE", help="ct:-175,250, percentile:1,99, zscore:nonzero, none, … (docs/import.md)")
    add("--option", action="append", type=_option, metavar="NAME=VALUE", help="a constructor value tensors do not tell")
    add("--entry", metavar="NAME", help="which weights to take where the file holds several sets")
    add("--average-identifiers", action="store_true", help="DALight-3D: defaults become the means over the identifiers")
    add("--licence", metavar="TEXT", help="what may be done with the weights")
    add("--name", metavar="NAME", help="of the model (default: the name of the folder)")
    add("--title", metavar="TEXT", help="of the model, for people")
    add("--overwrite", action="store_true", help="replace a package that is there already")
    add("-o", "--out", metavar="FOLDER", help="where the package goes, or a .zip (default: your model folder)")


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib.packages.descriptions import intensity_named
    from LKSegmentLib.packages.importing import import_checkpoint

    imported = import_checkpoint(
        arguments.checkpoint,
        arguments.labels,
        arguments.out,
        network=arguments.network,
        options=dict(arguments.option or ()),
        plans=arguments.plans,
        configuration=arguments.configuration,
        spacing=arguments.spacing,
        window=arguments.window,
        intensity=None if arguments.intensity is None else intensity_named(arguments.intensity),
        licence=arguments.licence,
        name=arguments.name,
        title=arguments.title,
        regions=arguments.regions,
        entry=arguments.entry,
        average_identifiers=arguments.average_identifiers,
        overwrite=arguments.overwrite,
    )
    manifest = imported.manifest
    screen.say(f"{manifest.network}: in_channels {manifest.in_channels}, out_channels {manifest.out_channels}")
    for option, value in manifest.options.items():
        screen.say(f"  {option}: {value}")
    screen.say(f"Labels: {', '.join(label.name for label in manifest.labels)}")
    for warning in imported.warnings:
        screen.note(f"Note: {warning}")
    screen.say(f"\nThe model package is {imported.folder}; it was read back and every number compared.")
    model = manifest.name if arguments.out is None else imported.folder
    verb = "click IMAGE --point R,A,S" if manifest.kind == "click" else "segment IMAGE"
    screen.say(f"Next: lksegment {verb} --model {shlex.quote(str(model))} -o labels.seg.nrrd")
    return {
        "package": imported.folder,
        "network": manifest.network,
        "in_channels": manifest.in_channels,
        "out_channels": manifest.out_channels,
        "options": dict(manifest.options),
        "assumed": dict(imported.unseen),
        "labels": [label.name for label in manifest.labels],
        "warnings": list(imported.warnings),
    }


def _window(text: str) -> tuple[int, ...]:
    lengths = triple(text)
    if any(length < 1 or length != int(length) for length in lengths):
        raise argparse.ArgumentTypeError(f"'{text}' is not three whole numbers of voxels, such as 96,96,96")
    return tuple(int(length) for length in lengths)


def _option(text: str) -> tuple[str, Any]:
    """NAME=VALUE; the value is JSON (8, true, [3,5,7]) or, where it is not, a word."""
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE, such as selection=per_kernel")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


COMMAND = Command(
    name="import",
    summary="Turn a trained checkpoint into a model package.",
    example=_EXAMPLE,
    configure=configure,
    run=run,
)
