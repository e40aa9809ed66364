"""The commands, in the order of `lksegment --help`."""

from __future__ import annotations

from LKSegmentLib.cli import doctor, evaluate, models, networks, train
from LKSegmentLib.cli.command import Command

COMMANDS: tuple[Command, ...] = (
    doctor.COMMAND,
    networks.COMMAND,
    models.COMMAND,
    train.COMMAND,
    evaluate.COMMAND,
)
