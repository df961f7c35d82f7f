"""Samples and held-out images: no class vanishes, and each keeps its share."""

from __future__ import annotations
