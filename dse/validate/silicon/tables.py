"""Which tables does the silicon report hold? All of them, from one catalogue."""

from __future__ import annotations

from dse.catalog import Catalog, load_catalog
from dse.validate.silicon import compare, erdil, memory_arrays, money
from dse.validate.silicon.floor import constants
from dse.validate.silicon.table import Table


def tables(catalog: Catalog | None = None) -> list[Table]:
    """Every table of the report, in its order.

    Args:
        catalog: The catalogue; the shipped one by default.
    """
    catalog = catalog or load_catalog()
    k = constants(catalog)
    return [
        compare.real_chips(catalog, k),
        compare.die_fit(catalog, k),
        compare.a100_blocks(catalog, k),
        compare.base_dies(catalog, k),
        compare.bills(catalog, k),
        money.owner_cost(catalog),
        money.all_in_power(catalog),
        money.contrast(catalog),
        erdil.erdil(catalog),
        money.burned_in(catalog, k),
        money.masks(catalog, k),
        money.beam(catalog),
        memory_arrays.compute_in_memory(catalog, k),
        memory_arrays.endurance(catalog),
    ]
