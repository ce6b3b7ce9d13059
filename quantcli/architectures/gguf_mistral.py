"""Mistral Small 3.1 and Ministral 3: a Llama; the latter's late queries grow."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

MISTRAL3 = Architecture("mistral3", Graph(), reads=keys.TEMPERATURE + keys.LOG_MULTIPLIER)

ARCHITECTURES = (MISTRAL3,)
