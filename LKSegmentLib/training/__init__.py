"""Synthetic volumes and the trainer of the built-in click model."""
