r"""RWKV's vocabulary of words: lines ``id literal length``, where the literal is a text or bytes as Python spells them.

GGUF holds the bytes of a token with everything but printable ASCII escaped (``\xe4``, ``\n``), again as Python does.
Token 0 stands for the end of a text and is not in the file.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from quantcli.errors import BadTokenizer
from quantcli.vocab.token_table import Table, TokenType
from quantcli.vocab.tokenizer_files import Folder

FILE = "rwkv_vocab_v20230424.txt"
IDS: Mapping[str, int] = {"bos": 0, "eos": 0, "eot": 261}  # 261 is an empty line, which ends a turn
_END = "<s>"
_LONGEST_LINE = 4096
_ESCAPED = {ord("t"): 9, ord("n"): 10, ord("r"): 13}
# What a chat looks like to the released models; checkpoints hold no template.
TEMPLATE = """\
{%- if not add_generation_prompt is defined -%}
    {%- set add_generation_prompt = true -%}
{%- endif -%}
{%- set ns = namespace(system_prompt='') -%}
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}
        {%- set ns.system_prompt = message['content'] -%}
    {%- endif -%}
{%- endfor -%}
{{bos_token}}
{%- if ns.system_prompt != '' -%}
{{- 'System: ' + ns.system_prompt + '\\n\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- 'User: ' + message['content']|trim + '\\n\\n' -}}
    {%- endif -%}
    {%- if message['role'] == 'assistant' and message['content'] is  not none -%}
        {%- set content = message['content'] -%}
        {%- if '</think>' in content -%}
            {%- set content = content.split('</think>')[-1] -%}
        {%- endif -%}
        {{- 'Assistant: ' + content|trim + '\\n\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- 'Assistant:' -}}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- ' <think>\\n</think>' }}
    {%- endif %}
    {%- if enable_thinking is defined and enable_thinking is true %}
        {{- ' <think>' }}
    {%- endif %}
{%- endif -%}"""


def load(checkpoint: Folder, size: int | None) -> Table:
    """The table of the file. Raises BadTokenizer for a line that is no such entry."""
    content = checkpoint.text(FILE)
    if content is None:
        raise BadTokenizer("the list of words is not there", where=FILE)
    table = Table(size, FILE)
    table.put(0, _END, 0.0, TokenType.CONTROL)
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            index, data = _entry(line, f"{FILE}, line {number}")
            table.put(index, repr(data)[2:-1], 0.0, TokenType.NORMAL)
    return table


def _entry(line: str, where: str) -> tuple[int, bytes]:
    """The id and the bytes of a line."""
    index, _, rest = line.partition(" ")
    literal, _, length = rest.rstrip("\r").rpartition(" ")
    try:
        value = ast.literal_eval(literal) if len(literal) <= _LONGEST_LINE else None
        data = value.encode("utf-8") if isinstance(value, str) else value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        data = None
    if not isinstance(data, bytes) or not index.isdecimal() or len(index) > 9 or length != str(len(data)):
        raise BadTokenizer("expected an id, a text or bytes in quotes, and its length in bytes", where=where)
    return int(index), data


def bytes_of(text: str) -> bytes:
    """The bytes that a token's text in a GGUF file spells."""
    data, result, position = text.encode("utf-8", "replace"), bytearray(), 0
    while position < len(data):
        if data[position] != ord("\\") or position + 1 == len(data):
            result.append(data[position])
            position += 1
        elif data[position + 1] == ord("x"):
            digits = data[position + 2 : position + 4].decode("ascii", "replace")
            result += bytes.fromhex(digits) if _is_hexadecimal(digits) else b""
            position += 4
        else:
            result.append(_ESCAPED.get(data[position + 1], data[position + 1]))
            position += 2
    return bytes(result)


def _is_hexadecimal(digits: str) -> bool:
    return len(digits) == 2 and all(digit in "0123456789abcdefABCDEF" for digit in digits)
