"""PaddleOCR-VL's text part: ERNIE 4.5, rotating halves."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

ARCHITECTURES = (Architecture("paddleocr", Graph(rope="neox")),)
