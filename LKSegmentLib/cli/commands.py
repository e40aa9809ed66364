"""The commands, in the order of `lksegment --help`."""

from __future__ import annotations

from LKSegmentLib.cli import (
    bench,
    click,
    demo,
    doctor,
    evaluate,
    import_checkpoint,
    inspect,
    models,
    networks,
    segment,
    train,
)
from LKSegmentLib.cli.command import Command

COMMANDS: tuple[Command, ...] = (
    demo.COMMAND,
    doctor.COMMAND,
    networks.COMMAND,
    models.COMMAND,
    segment.COMMAND,
    click.COMMAND,
    inspect.COMMAND,
    import_checkpoint.COMMAND,
    train.COMMAND,
    evaluate.COMMAND,
    bench.COMMAND,
)
