"""Detectors: an image in, defects out."""
