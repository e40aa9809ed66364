"""The errors every room raises. Each message is a sentence for a person: what is wrong, where, what to do."""

from __future__ import annotations


class LKSegmentError(Exception):
    """Base of all errors that LKSegment raises on purpose."""


class InputError(LKSegmentError, ValueError):
    """The input or an argument is wrong and the person can mend it. The command line exits with 2."""


class RunError(LKSegmentError, RuntimeError):
    """Something failed while running although the input was right. The command line exits with 1."""


class Cancelled(LKSegmentError):
    """The person stopped the job."""
