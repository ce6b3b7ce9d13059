"""For people who train (extra ``torch``): weights on GGUF grids with gradients, and the tuning of quantized files.

from quantcli.torch import fake_quantize, tune
"""

from __future__ import annotations

from quantcli.errors import MissingPackage

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise MissingPackage(
        "quantcli.torch needs PyTorch", where="quantcli.torch", hint="python -m pip install 'quantcli[torch]'"
    ) from error

from quantcli.torch.grids import GridMatrix, fake_quantize
from quantcli.torch.tuning import Tuned, TuneSettings, tune

__all__ = ["GridMatrix", "TuneSettings", "Tuned", "fake_quantize", "tune"]
