"""What of a server's own memory may hold cache for one chip? Capacity, link and price, by chip or from the defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dse.catalog.chip import family_defaults
from dse.errors import InputError
from dse.types import Offload, Store

if TYPE_CHECKING:
    from dse.catalog import Catalog


def offload(catalog: Catalog, chip_id: str, share: float) -> Offload:
    """A share of the cache in the memory of the host of a chip.

    What the chip's own file does not say comes from ``chips/_defaults`` and is named by ``dse catalog show`` as filled.

    Raises:
        InputError: a share outside 0 to 1, or a host value that neither the chip nor its defaults give.
    """
    source = family_defaults(catalog.records["chips"][catalog.resolve("chips", chip_id)], catalog.records)
    return _held(catalog, share, source.get("host_memory"), source.get("host_bandwidth"), source.default("link_energy", "host.j_per_byte"))


def plain_offload(catalog: Catalog, share: float) -> Offload:
    """The same beside any chip: memory and link of the plain server in ``chips/_defaults``.

    Raises InputError for a share outside 0 to 1.
    """
    plain = catalog.records["defaults"]["common"].values
    energy = catalog.records["technology"]["link"].values["energy"].value
    return _held(catalog, share, plain["host_memory"].value, plain["host_bandwidth"].value, energy)


def _held(catalog: Catalog, share: float, capacity_byte: float, byte_per_s: float, link_j_per_byte: float) -> Offload:
    if not 0.0 <= share <= 1.0:
        raise InputError(f"--kv-offload — found {share:g}, allowed a share of the cache from 0 to 1")
    memory = catalog.records["memories"]["lpddr5x"].values  # the memory of hosts: energy and price of plain DRAM
    host = Store(
        capacity_byte=capacity_byte,
        s_per_byte=1.0 / byte_per_s,
        j_per_byte=memory["energy"].value + link_j_per_byte,
    )
    return Offload(share=share, host=host, usd_per_byte=memory["price"].value)
