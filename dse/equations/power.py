"""How fast may a design be clocked, what does an operation cost in energy, and where does heat stop it?"""

from __future__ import annotations

import jax.numpy as jnp

from dse.types import Number


def speed_at(voltage_v: Number, threshold_v: Number, exponent: Number) -> Number:
    r"""Alpha-power law: clock of a circuit at a supply voltage, up to a constant.

    .. math:: s(V) = (V - V_t)^a / V

    Args: supply and threshold [V]; exponent a [1]. Zero at and below the threshold. Returns a number that only ratios give meaning.

    References: sakurai-newton-1990

    >>> round(float(speed_at(0.95, 0.30, 1.3) / speed_at(0.75, 0.30, 1.3)), 3)
    1.273
    """
    return jnp.maximum(voltage_v - threshold_v, 0) ** exponent / voltage_v


def clock_hz(reference_hz: Number, speed: Number, voltage_v: Number, nominal_v: Number, threshold_v: Number, exponent: Number) -> Number:
    r"""Clock of a design at a node and a voltage.

    .. math:: f = f_0\, k\, s(V) / s(V_0)

    Args: clock at the reference node and nominal voltage [1/s]; speed of the node relative to it [1]; voltages [V]; exponent [1].

    References: sakurai-newton-1990, dse-silicon-fit

    >>> round(float(clock_hz(1.5e9, 1.15, 0.75, 0.75, 0.30, 1.3)) / 1e9, 3)
    1.725
    """
    return reference_hz * speed * speed_at(voltage_v, threshold_v, exponent) / speed_at(nominal_v, threshold_v, exponent)


def dynamic_energy_j(nominal_j: Number, node: Number, voltage_v: Number, nominal_v: Number) -> Number:
    r"""Energy of one operation: switched capacitance of the node times the square of the voltage.

    .. math:: E = E_0\, k\, (V / V_0)^2

    Args: energy at N7 and nominal voltage [J]; factor of the node [1]; voltages [V].

    References: dse-silicon-fit

    >>> round(float(dynamic_energy_j(0.70e-12, 0.70, 0.75, 0.75)) * 1e12, 3)
    0.49
    """
    return nominal_j * node * (voltage_v / nominal_v) ** 2


def sram_energy_j_per_byte(reference_j_per_byte: Number, bank_byte: Number, reference_bank_byte: Number, exponent: Number) -> Number:
    r"""Read energy of SRAM by the size of its banks.

    .. math:: E = E_0\, (b / b_0)^x

    Args: energy at the reference bank [J/byte]; bank sizes [byte]; exponent [1].

    References: tpuv4i-2021

    >>> round(float(sram_energy_j_per_byte(0.96e-12, 1048576.0, 8192.0, 0.125)) / 8 * 1e12, 2)  # pJ/bit at 1 MB
    0.22
    """
    return reference_j_per_byte * (bank_byte / reference_bank_byte) ** exponent


def leakage_w(area_mm2: Number, w_per_mm2: Number, voltage_v: Number, nominal_v: Number, exponent_per_v: Number) -> Number:
    r"""Static power of the logic dies: the supply times a current that a higher supply lets through (lowered barrier).

    .. math:: P = A\,l\,\frac{V}{V_0}\,e^{k (V - V_0)}

    Args: area [mm2]; leakage at nominal voltage [W/mm2]; voltages [V]; exponent k [1/V].

    References: dse-silicon-fit

    >>> round(float(leakage_w(814.0, 0.08, 0.75, 0.75, 1.5)), 2), round(float(leakage_w(100.0, 0.1, 1.0, 0.5, 2.0)), 3)
    (65.12, 54.366)
    """
    return area_mm2 * w_per_mm2 * voltage_v / nominal_v * jnp.exp(exponent_per_v * (voltage_v - nominal_v))


def rate_power_w(rate_per_s: Number, energy_j: Number) -> Number:
    r"""Power of anything done at a rate: FLOP, bytes of a store, bytes over a link.

    .. math:: P = r\,E

    Args: rate [1/s]; energy of one [J].

    References: dse-silicon-fit

    >>> round(float(rate_power_w(989e12, 0.49e-12)), 1)
    484.6
    """
    return rate_per_s * energy_j


def heat_limited_rate(limit_w: Number, other_w: Number, energy_j: Number, rate_per_s: Number) -> Number:
    r"""Rate that a heat limit leaves to one consumer, at most what its hardware could do.

    .. math:: r' = \min(r, \max(P_{max} - P_{other}, P_{max}/2)\,/\,E)

    Half of the limit is left to it at least, so that the rate stays positive; the heat slack tells when that is too much.

    Args: limit and power of everything else [W]; energy of one operation [J]; rate without the limit [1/s].

    References: dse-silicon-fit

    >>> round(float(heat_limited_rate(815.0, 100.0, 0.63e-12, 9e15)) / 1e15, 3)
    1.135
    """
    return jnp.minimum(rate_per_s, jnp.maximum(limit_w - other_w, limit_w / 2) / energy_j)


def slack(value: Number, limit: Number) -> Number:
    r"""Distance to a limit, relative to it: 0 or more is feasible.

    .. math:: s = (L - v) / L

    Args: value and limit, in the same unit.

    References: dse-silicon-fit

    >>> round(float(slack(814.0, 858.0)), 4)
    0.0513
    """
    return (limit - value) / limit


def throttle(energy_j: Number, time_s: Number, chips: Number, tdp_w: Number, static_w: Number) -> Number:
    r"""Factor by which chips slow down so that they stay within their thermal design power, at least 1.

    .. math:: \max\left(1,\ \frac{E}{t\, n\, (P_{TDP} - P_{static})}\right)

    Args:
        energy_j: Dynamic energy of a step on all chips [J]. time_s: Time that the step would take [s]. chips: n [1].
        tdp_w, static_w: Thermal design power and static power of one chip [W].

    References: inferencex-app

    >>> float(throttle(20.0, 0.01, 2.0, 800.0, 100.0)), float(throttle(1.0, 0.01, 2.0, 800.0, 100.0))
    (1.4285714285714286, 1.0)
    """
    return jnp.maximum(energy_j / (time_s * chips * jnp.maximum(tdp_w - static_w, 1.0)), 1.0)
