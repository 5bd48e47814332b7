"""The nouns of the model: frozen pytrees of numbers, in SI units, with the unit at the end of each name.

What a chip, a network, a language model, a workload, a layout, an owner's prices, one deployment and its metrics are.
A leaf is one number (or an array that broadcasts with its neighbours); names, sources and prose stay in the catalogue.
A feature that is off is ``None``: another compiled version without it. Nothing is computed here but the look-up of a format's name.
"""

from __future__ import annotations

from dse.types.answer import (
    SLACK_TOLERANCE,
    CostParts,
    MemoryParts,
    SlackParts,
    TimeParts,
)
from dse.types.base import (
    Number,
    pytree,
)
from dse.types.chip import (
    Chip,
    Link,
    Slacks,
    Store,
)
from dse.types.formats import (
    BF16_BYTE,
    Format,
    PerFormat,
    PerKernel,
    named_format,
)
from dse.types.kernels import (
    AllReduce,
    AttentionDecode,
    AttentionPrefill,
    Collective,
    Gemm,
    Kernels,
    Moe,
    System,
)
from dse.types.model import (
    LLM,
    Attention,
    FeedForward,
    LayerGroup,
)
from dse.types.question import (
    Arrivals,
    Deployment,
    Layout,
    Offload,
    Prices,
    Speculation,
    Workload,
)
from dse.types.technology import (
    FamilyConstants,
    LinkTechnology,
    Logic,
    MemoryTechnology,
    Packaging,
    PowerTechnology,
    Process,
    Rom,
    Sram,
    StackedDram,
    Technology,
)

__all__ = [
    "BF16_BYTE",
    "LLM",
    "SLACK_TOLERANCE",
    "AllReduce",
    "Arrivals",
    "Attention",
    "AttentionDecode",
    "AttentionPrefill",
    "Chip",
    "Collective",
    "CostParts",
    "Deployment",
    "FamilyConstants",
    "FeedForward",
    "Format",
    "Gemm",
    "Kernels",
    "LayerGroup",
    "Layout",
    "Link",
    "LinkTechnology",
    "Logic",
    "MemoryParts",
    "MemoryTechnology",
    "Moe",
    "Number",
    "Offload",
    "Packaging",
    "PerFormat",
    "PerKernel",
    "PowerTechnology",
    "Prices",
    "Process",
    "Rom",
    "SlackParts",
    "Slacks",
    "Speculation",
    "Sram",
    "StackedDram",
    "Store",
    "System",
    "Technology",
    "TimeParts",
    "Workload",
    "named_format",
    "pytree",
]
