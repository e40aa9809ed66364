"""`lksegment segment`: every structure a whole-volume model knows, on a whole image."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from LKSegmentLib.cli.arguments import add_device, add_image
from LKSegmentLib.cli.command import Command
from LKSegmentLib.cli.outputs import (
    LABEL_SUFFIXES,
    SEGMENTATION_SUFFIX,
    output_file,
    refuse_overwriting,
    suffix_of,
    whole_files,
)
from LKSegmentLib.cli.screen import Screen, table


def configure(parser: argparse.ArgumentParser) -> None:
    add_image(parser)
    parser.add_argument("--model", required=True, metavar="NAME", help="installed model, or path of a model package")
    add_device(parser)
    parser.add_argument(
        "-o", "--out", required=True, metavar="FILE",
        help="segmentation: .seg.nrrd for Slicer, or a label volume .nii.gz, .nrrd, .mha",
    )  # fmt: skip


def run(arguments: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    from LKSegmentLib.cli.click_files import require_slicer, write_label_segmentation
    from LKSegmentLib.cli.worker_jobs import finished
    from LKSegmentLib.engine.client import EngineClient
    from LKSegmentLib.volumes import read_volume, write_volume

    target = output_file(arguments.out, (SEGMENTATION_SUFFIX, *LABEL_SUFFIXES), "segmentation")
    refuse_overwriting(arguments.image, target)
    if suffix_of(target) == SEGMENTATION_SUFFIX:
        require_slicer()
    volume = read_volume(arguments.image, arguments.frame, as_channels=arguments.frame is None)
    begun = time.monotonic()
    with EngineClient() as client:
        job = client.segment(client.open_image(volume), arguments.model, arguments.device)
        result = finished(client, job, screen, "Segmenting")
    seconds = time.monotonic() - begun
    with screen.progress("Writing"), whole_files(target) as (draft,):
        if suffix_of(target) == SEGMENTATION_SUFFIX:
            write_label_segmentation(volume, Path(arguments.image).name, result, draft)
        else:
            write_volume(result.labels, draft)
    counts = np.bincount(result.labels.array.ravel(), minlength=len(result.names) + 1)
    i, j, k = volume.spacing
    found = [
        {"value": value, "name": name, "voxels": int(counts[value]), "millilitres": counts[value] * i * j * k / 1000}
        for value, name in enumerate(result.names, start=1)
    ]
    rows = [[str(row["value"]), str(row["name"]), str(row["voxels"]), f"{row['millilitres']:.1f}"] for row in found]
    screen.say(table(rows, ["value", "name", "voxels", "ml"]))
    screen.say(f"\nDone in {seconds:.1f} s: {target}")
    return {"labels": found, "model": arguments.model, "device": arguments.device, "seconds": seconds, "file": target}


COMMAND = Command(
    name="segment",
    summary="Segment a whole image with a model.",
    example="  lksegment segment ct.nii.gz --model my_organs -o organs.seg.nrrd",
    configure=configure,
    run=run,
)
