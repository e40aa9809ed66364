"""The commands, in the order of `lksegment --help`."""

from __future__ import annotations

from LKSegmentLib.cli import bench, click, doctor, evaluate, models, networks, segment, train
from LKSegmentLib.cli.command import Command

COMMANDS: tuple[Command, ...] = (
    doctor.COMMAND,
    networks.COMMAND,
    models.COMMAND,
    segment.COMMAND,
    click.COMMAND,
    train.COMMAND,
    evaluate.COMMAND,
    bench.COMMAND,
)
