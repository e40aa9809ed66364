"""Prompts: what a person points at, and the input channels made of it."""

from .channels import CHANNELS, PromptChannels
from .points import Point

__all__ = ["CHANNELS", "Point", "PromptChannels"]
