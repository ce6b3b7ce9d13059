"""The text part of EXAONE 4.5: EXAONE 4 with blocks that predict further tokens."""

from __future__ import annotations

from quantcli.families import decoder, nextn
from quantcli.families.exaone import EXAONE4

LAYER = tuple(rule for rule in EXAONE4.tensors if rule not in decoder.TOP)

EXAONE4_5 = EXAONE4.derive(
    "exaone4.5",
    hf_architectures=("Exaone4_5_ForConditionalGeneration",),
    model_types=("exaone4_5", "exaone4_5_text"),
    facts={**nextn.FACTS, "nextn_stated": lambda facts: facts.nextn or None},
    metadata=EXAONE4.metadata + nextn.METADATA,
    tensors=decoder.TOP + decoder.only_in("own", LAYER) + nextn.behind(LAYER),
    may_lack="predicts_further",
)

FAMILIES = (EXAONE4_5,)
