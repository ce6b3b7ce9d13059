"""One family is found by its names without importing the others, and it is the one that the whole table would give."""

from __future__ import annotations

import subprocess
import sys

from quantcli import families
from quantcli.families import catalogue, index


def test_every_name_leads_to_its_file() -> None:
    for family in families.registry().values():
        for name in (*family.hf_architectures, *family.model_types, family.name):
            assert family in index.holding(name), f"{name!r} does not stand in quotes in the file of {family.name}"


def test_names_mean_what_the_whole_table_says() -> None:
    table = list(families.registry().values())
    for family in table:
        for name in family.hf_architectures:
            assert catalogue.by_class(name) is next(one for one in table if name in one.hf_architectures)
        assert catalogue.named(family.name.upper()) is family
    for arch in {family.gguf_arch for family in table}:
        assert catalogue.named(arch).gguf_arch == arch or catalogue.named(arch).name == arch


def test_other_classes_of_a_model() -> None:
    assert catalogue.by_class("Qwen3Model") is catalogue.by_class("Qwen3ForCausalLM")
    assert catalogue.by_class("NobodysForCausalLM") is None and catalogue.by_class(None) is None


def test_a_conversion_imports_few_families() -> None:
    code = (
        "import sys; from quantcli.families import catalogue;"
        "catalogue.choose({'architectures': ['LlamaForCausalLM']}, None);"
        "print(sum(hasattr(module, 'FAMILIES') for name, module in sys.modules.items()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < len({family.gguf_arch for family in families.registry().values()}) / 4
