"""From design variables to a chip: one file a family, a common way from blocks to area, power, cost and limits."""

from __future__ import annotations

from dse.chips import burned_in, compute_in_memory, hbm_gpu, sram, stacked_dram, transformer_asic
from dse.chips.common import Built, Family

__all__ = ["FAMILIES", "Built", "Family"]

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY for module in (hbm_gpu, transformer_asic, sram, compute_in_memory, burned_in, stacked_dram)
}
