"""The commands, in the order of `lksegment --help`."""

from __future__ import annotations

from LKSegmentLib.cli import models, networks
from LKSegmentLib.cli.command import Command

COMMANDS: tuple[Command, ...] = (
    networks.COMMAND,
    models.COMMAND,
)
