"""ChatGLM 3 and 4, GLM-4: q/k/v fused or apart, gate and up fused."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

CHATGLM = Architecture("chatglm", Graph(fused_qkv=True, mlp="fused"))

ARCHITECTURES = (CHATGLM,)
