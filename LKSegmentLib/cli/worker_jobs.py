"""Waiting for a job of the worker, with its stages on the screen."""

from __future__ import annotations

import time
from typing import Any

from LKSegmentLib.cli.screen import Screen
from LKSegmentLib.engine.client import EngineClient
from LKSegmentLib.engine.jobs import Job

_PAUSE = 0.02  # seconds between two looks


def finished(client: EngineClient, job: Job, screen: Screen, title: str) -> Any:
    """The result of the job. Raises InputError, RunError or Cancelled with the job's sentence."""
    with screen.progress(title) as progress:
        while not job.is_over:
            for event in client.poll():
                if event.job is job and event.kind == "progress":
                    progress(job.stage, job.progress)
            time.sleep(_PAUSE)
    for sentence in job.warnings:
        screen.note(f"Note: {sentence}")
    return client.wait(job)
