"""PLM: latent attention that is not absorbed, squared ReLU."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

PLM = Architecture("plm", Graph(latent=True, mlp="plain", activation="relu2"), head="none")

ARCHITECTURES = (PLM,)
