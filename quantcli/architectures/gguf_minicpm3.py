"""MiniCPM 3: latent attention that is not absorbed."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

MINICPM3 = Architecture("minicpm3", Graph(rope="neox", latent=True, constant_scales=(12.0, 1.4, 256.0)))

ARCHITECTURES = (MINICPM3,)
