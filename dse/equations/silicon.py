"""How much die area does a block take, and how much does a die of given area hold?

Areas are mm2, transistor counts are plain numbers, memory is byte. Densities belong to a process; the constants are global
(hw_catalog/technology, hw_catalog/memories) and rebuild the data-centre GPUs of one maker within about 10 %.
"""

from __future__ import annotations

import jax.numpy as jnp

from dse.types import Number

BIT_PER_BYTE = 8  # unit conversion


def logic_area_mm2(transistors: Number, density_transistor_per_mm2: Number, utilisation: Number) -> Number:
    r"""Area of random logic.

    .. math:: A = T / (\rho u)

    Args: transistors [1]; density at its peak [1/mm2]; utilisation of that peak in real layouts [1] (1 where counts were calibrated at it).

    References: llmcompass, dse-silicon-fit

    >>> round(float(logic_area_mm2(128 * 1024 * 0.093e6, 96.3e6, 0.75)), 1)  # tensor cores of an A100
    168.8
    """
    return transistors / (density_transistor_per_mm2 * utilisation)


def sram_density_byte_per_mm2(macro_byte_per_mm2: Number, bank_byte: Number, periphery_byte: Number) -> Number:
    r"""Density of SRAM cut into banks: small banks are mostly periphery.

    .. math:: \rho(b) = \rho_{macro} / (1 + \sqrt{b_0 / b})

    Args: density of a large macro [byte/mm2]; bank size and the size b0 at which half of the area is periphery [byte].

    References: dse-silicon-fit, wikichip-iedm-2022

    >>> round(float(sram_density_byte_per_mm2(31.8e6 / 8, 6200.0, 6200.0)) / 1e6, 3)  # MB/mm2
    1.988
    """
    return macro_byte_per_mm2 / (1 + jnp.sqrt(periphery_byte / bank_byte))


def sram_bandwidth_byte_per_s(capacity_byte: Number, bank_byte: Number, port_byte: Number, clock_hz: Number) -> Number:
    r"""Read bandwidth of banked SRAM: every bank delivers one port width a clock.

    .. math:: BW = (C / b) \, w f

    Args: capacity, bank size, port width [byte]; clock [1/s].

    References: northpole-hpec-2024

    >>> round(float(sram_bandwidth_byte_per_s(192e6, 750e3, 128.0, 0.4e9)) / 1e12, 1)  # NorthPole: 13 TB/s
    13.1
    """
    return capacity_byte / bank_byte * port_byte * clock_hz


def cache_area_mm2(capacity_byte: Number, macro_byte_per_mm2: Number, overhead: Number) -> Number:
    r"""Data arrays of a shared cache with tags, error correction and redundancy.

    .. math:: A = C\,o / \rho_{macro}

    Args: capacity [byte]; density of a large macro [byte/mm2]; overhead o [1].

    References: llmcompass, dse-silicon-fit

    >>> round(float(cache_area_mm2(48e6, 25e6 / 8, 1.35)), 1)
    20.7
    """
    return capacity_byte * overhead / macro_byte_per_mm2


def cache_port_area_mm2(
    port_byte: Number, mm2_per_byte: Number, reference_transistor_per_mm2: Number, density_transistor_per_mm2: Number
) -> Number:
    r"""Slices, tags and crossbar ports of a shared cache, by the bytes it delivers a clock: most of a GPU's cache area.

    .. math:: A = a\,w\,\rho_{ref} / \rho

    Args: port width of all slices [byte per clock]; area a byte [mm2/byte] at the reference node; densities of that node and this [1/mm2].

    References: dse-silicon-fit

    >>> round(float(cache_port_area_mm2(5120.0, 0.019, 96.3e6, 96.3e6)), 1)  # A100
    97.3
    """
    return port_byte * scaled_area_mm2(mm2_per_byte, reference_transistor_per_mm2, density_transistor_per_mm2)


def scaled_area_mm2(area_mm2: Number, reference_transistor_per_mm2: Number, density_transistor_per_mm2: Number) -> Number:
    r"""Area known at a reference node, at another node.

    .. math:: A = A_{ref}\,\rho_{ref} / \rho

    Args: area at the reference node [mm2]; densities of the reference and of this node [1/mm2].

    References: dse-silicon-fit

    >>> round(float(scaled_area_mm2(40.0, 96.3e6, 138.2e6)), 2)
    27.87
    """
    return area_mm2 * reference_transistor_per_mm2 / density_transistor_per_mm2


def phy_area_mm2(sites: Number, phy_mm2: Number, controller_transistor: Number, density_transistor_per_mm2: Number) -> Number:
    r"""Interfaces and controllers: the PHY does not shrink with the node, its controller does.

    .. math:: A = n (A_{phy} + T_{ctrl} / \rho)

    Args: number of sites [1] (or bandwidth [byte/s] with the other two per byte/s); PHY [mm2]; controller transistors [1]; density [1/mm2].

    References: llmcompass

    >>> round(float(phy_area_mm2(6.0, 10.45, 553e6, 96.3e6)), 1)  # HBM of an A100, the disabled site counted
    97.2
    """
    return sites * (phy_mm2 + controller_transistor / density_transistor_per_mm2)


def long_edge_m(area_mm2: Number, aspect: Number) -> Number:
    r"""Long edge of a die.

    .. math:: e = \sqrt{A\,r}

    Args: area [mm2]; aspect: long over short edge [1].

    References: llmcompass

    >>> round(float(long_edge_m(858.0, 33 / 26)), 4)
    0.033
    """
    return jnp.sqrt(area_mm2 * aspect) * 1e-3


def beachfront_m(area_mm2: Number, dies: Number, aspect: Number) -> Number:
    r"""Die edge of a package that off-chip memory can use, without rounding to whole sites.

    .. math:: E = 2 n\,(w\,e_{long} + (1 - w)\,e_{short}), \quad w = \max(0, 2 - n)

    One die puts memory along its two long edges; more dies are joined along them and keep the short ones.

    Args: area of one die [mm2]; number of dies [1]; aspect [1]. Returns m.

    References: dse-silicon-fit

    >>> round(float(beachfront_m(858.0, 1.0, 33 / 26)) / 0.011, 2), round(float(beachfront_m(800.0, 2.0, 33 / 26)) / 0.011, 2)
    (6.0, 9.13)
    """
    single = jnp.maximum(2 - dies, 0)
    long = long_edge_m(area_mm2, aspect)
    return 2 * dies * (single * long + (1 - single) * long / aspect)


def rom_capacity_byte(area_mm2: Number, byte_per_mm2: Number, array_share: Number) -> Number:
    r"""Weights burned into an array of given area, arithmetic and wiring included.

    .. math:: C = A\,\rho_{die} / s

    Args: array area [mm2]; density over a whole die [byte/mm2], of which the array takes the share s [1]. No node scaling is visible.

    References: taalas-hc1-2026, hnlpu-2025

    >>> round(float(rom_capacity_byte(0.8 * 815, 39e6 / 8, 0.8)) / 1e9, 2)  # GB; 8.03e9 weights of 4 bit are 4.02
    3.97
    """
    return area_mm2 * byte_per_mm2 / array_share


def cim_capacity_byte(
    area_mm2: Number, density_byte_per_mm2: Number, macs_per_byte: Number, mac_area_mm2: Number, conversion_area_mm2: Number
) -> Number:
    r"""Capacity of compute-in-memory arrays: every stored byte brings its share of multipliers (or converters).

    .. math:: C = A / (1/\rho + m\,(a_{mac} + a_{adc}))

    Args: array area [mm2]; SRAM density at its bank size [byte/mm2]; 8-bit multipliers m per byte [1/byte]; area of one multiplier and of
    the converters of one [mm2].

    References: dmatrix-hotchips-2025, dse-silicon-fit

    >>> round(float(cim_capacity_byte(300.0, 1.39e6, 0.6e-3, 187e-6, 0.0)) / 1e6)  # MB in a Corsair-like chiplet at N6
    361
    """
    return area_mm2 / (1 / density_byte_per_mm2 + macs_per_byte * (mac_area_mm2 + conversion_area_mm2))


def nvm_density_byte_per_mm2(cell_f2: Number, feature_mm: Number, cells_per_byte: Number, array_share: Number) -> Number:
    r"""Density of non-volatile cells made between the metal layers: they do not shrink with the logic below.

    .. math:: \rho = a / (n\,c\,F^2)

    Args: cell c [F^2]; feature size F of the cell [mm]; cells n that hold a byte [1]; share a of the array that is cells [1].

    References: cimloop, isaac-2016

    >>> round(float(nvm_density_byte_per_mm2(125.7, 22e-6, 4.0, 0.5)) / 1e6, 2)  # MB/mm2
    2.05
    """
    return array_share / (cells_per_byte * cell_f2 * feature_mm**2)


def programming_s(capacity_byte: Number, cells_per_byte: Number, set_s: Number, parallel_cells: Number) -> Number:
    r"""Time to write all cells once: loading a model.

    .. math:: t = C\,n\,t_{set} / p

    Args: capacity [byte]; cells n of a byte [1]; time to set one cell [s]; cells p set at the same time [1].

    References: cimloop

    >>> round(float(programming_s(1e9, 4.0, 8.52e-6, 65536.0)), 2)
    0.52
    """
    return capacity_byte * cells_per_byte * set_s / parallel_cells


def wear_life_s(endurance: Number, held_byte: Number, written_byte_per_s: Number) -> Number:
    r"""Time until every cell has been written as often as it survives, wear spread perfectly.

    .. math:: t = E\,C / w

    Args: writes E that a cell survives [1]; capacity C [byte]; bytes written w [byte/s].

    References: cimloop

    >>> round(wear_life_s(1e6, 10e9, 1000.0 * 327680.0) / (365 * 86400), 2)  # years of a KV cache of Llama-3-70B at 1000 token/s
    0.97
    """
    return endurance * held_byte / written_byte_per_s


def stacked_capacity_byte(area_mm2: Number, layers: Number, byte_per_mm2: Number) -> Number:
    r"""Capacity of DRAM layers bonded on the logic.

    .. math:: C = A\,n\,c

    Args: bonded area [mm2]; layers [1]; capacity of one layer [byte/mm2].

    References: dse-silicon-fit

    >>> stacked_capacity_byte(800.0, 4.0, 20e6) / 1e9
    64.0
    """
    return area_mm2 * layers * byte_per_mm2


def stacked_bandwidth_byte_per_s(area_mm2: Number, drive_share: Number, byte_per_s_mm2: Number) -> Number:
    r"""Bandwidth of the bonded area that is driven.

    .. math:: BW = A\,d\,\beta

    Args: bonded area [mm2]; share d that is driven [1]; bandwidth by area [byte/s/mm2].

    References: dse-silicon-fit

    >>> stacked_bandwidth_byte_per_s(800.0, 1.0, 30e9) / 1e12
    24.0
    """
    return area_mm2 * drive_share * byte_per_s_mm2
