"""Scores: how well masks agree, and how a click model does click after click."""
