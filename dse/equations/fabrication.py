"""What does one good packaged chip cost to make, and what does designing it cost?

Money is USD of the year of the catalogue's prices. Dies on a wafer are not rounded, so that everything stays differentiable.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from dse.types import Number


def dies_per_wafer(area_mm2: Number, wafer_mm: Number) -> Number:
    r"""Gross dies on a round wafer, without rounding.

    .. math:: n = \pi (d/2)^2 / A - \pi d / \sqrt{2 A}

    Args: die area [mm2], well below the wafer's; wafer diameter [mm].

    References: ttm-cas

    >>> round(float(dies_per_wafer(814.0, 300.0)), 2)
    63.48
    """
    return math.pi * (wafer_mm / 2) ** 2 / area_mm2 - math.pi * wafer_mm / jnp.sqrt(2 * area_mm2)


def critical_defects(area_mm2: Number, defects_per_mm2: Number, repairable: Number) -> Number:
    r"""Expected defects that kill a die: those outside of what can be repaired or switched off.

    .. math:: x = A (1 - r) D_0

    Args: area [mm2]; defect density [1/mm2] (0.10 per cm2 is 0.0010); repairable share of the area [1].

    References: ttm-cas, dse-silicon-fit

    >>> round(float(critical_defects(814.0, 0.001, 0.75)), 4)
    0.2035
    """
    return area_mm2 * (1 - repairable) * defects_per_mm2


def negative_binomial_yield(defects: Number, clustering: Number) -> Number:
    r"""Yield with clustered defects.

    .. math:: Y = (1 + x/\alpha)^{-\alpha}

    Args: expected killing defects x [1]; clustering alpha [1]; to infinity it is Poisson's.

    References: ttm-cas

    >>> round(float(negative_binomial_yield(0.2035, 3.0)), 2), round(float(negative_binomial_yield(0.814, 3.0)), 2)
    (0.82, 0.49)
    """
    return (1 + defects / clustering) ** -clustering


def poisson_yield(defects: Number) -> Number:
    r"""Yield with independent defects.

    .. math:: Y = e^{-x}

    Args: expected killing defects x [1].

    References: murphy-1964

    >>> round(float(poisson_yield(0.8)), 4)
    0.4493
    """
    return jnp.exp(-defects)


def murphy_yield(defects: Number) -> Number:
    r"""Murphy's yield, for a triangular spread of defect densities.

    .. math:: Y = ((1 - e^{-x})/x)^2

    Args: expected killing defects x [1], above 0.

    References: murphy-1964

    >>> round(float(murphy_yield(0.8)), 4)
    0.4738
    """
    return (-jnp.expm1(-defects) / defects) ** 2


def die_yield(defects: Number, clustering: Number, poisson: Number, murphy: Number) -> Number:
    r"""Yield by the chosen model: negative binomial, unless one of the two switches is 1.

    .. math:: Y = (1 - p - m) Y_{nb} + p Y_{P} + m Y_{M}

    Args: expected killing defects [1]; clustering [1]; switches p and m [1].

    References: ttm-cas, murphy-1964

    >>> round(float(die_yield(0.8, 3.0, 0.0, 1.0)), 4)
    0.4738
    """
    clustered = (1 - poisson - murphy) * negative_binomial_yield(defects, clustering)
    return clustered + poisson * poisson_yield(defects) + murphy * murphy_yield(defects)


def die_cost_usd(wafer_usd: Number, gross_dies: Number, good_share: Number) -> Number:
    r"""Cost of one good die.

    .. math:: c = W / (n Y)

    Args: wafer price [USD]; gross dies on it [1]; yield [1].

    References: ttm-cas

    >>> round(float(die_cost_usd(16000.0, 63.48, 0.8205)))
    307
    """
    return wafer_usd / (gross_dies * good_share)


def interposer_package_usd(silicon_mm2: Number, fixed_usd: Number, usd_per_mm2: Number, fill: Number) -> Number:
    r"""Package of the silicon-interposer class.

    .. math:: c = c_0 + c_1 k A

    Args: area of everything placed on it [mm2]; fixed part [USD]; price by area [USD/mm2]; interposer area over that silicon [1].

    References: siliconanalysts-cost-bridge, dse-silicon-fit

    >>> round(float(interposer_package_usd(814.0 + 5 * 130.0, 100.0, 0.35, 1.15)))
    689
    """
    return fixed_usd + usd_per_mm2 * fill * silicon_mm2


def substrate_package_usd(dies: Number, fixed_usd: Number, usd_per_die: Number) -> Number:
    r"""Flip-chip package without interposer.

    .. math:: c = c_0 + n c_1

    Args: number of dies [1]; fixed part, part of each die [USD].

    References: dse-silicon-fit

    >>> substrate_package_usd(1.0, 60.0, 40.0)
    100.0
    """
    return fixed_usd + dies * usd_per_die


def started_per_good(placements: Number, component_yield: Number) -> Number:
    r"""Parts that must be started for one that survives, mean of equal parts placed one after the other and tested each time.

    A failed placement takes with it what was placed before, not what would have followed: part k of n waits for n - k + 1 placements.

    .. math:: \frac{1}{n} \sum_{k=1}^{n} y^{-k} = \frac{y^{-n} - 1}{n (1 - y)}

    Args: placements n, at least 1 (fewer count as 1) [1]; yield y of one, below 1 [1].

    References: siliconanalysts-cost-bridge, dse-silicon-fit

    >>> round(float(started_per_good(2.0, 0.5)), 9)  # (2 + 4) / 2
    3.0
    """
    n = jnp.maximum(placements, 1)
    return (component_yield**-n - 1) / (n * (1 - component_yield))


def assembly_loss_usd(
    package_usd: Number, dies_usd: Number, dies: Number, memory_usd: Number, stacks: Number, component_yield: Number
) -> Number:
    r"""Good parts lost because a placement in the package failed: dies are placed on it first, memory after them.

    .. math:: c = (y^{-(d+m)} - 1) c_P + (y^{-m} g(d) - 1) c_D + (g(m) - 1) c_M

    Args: package, all dies [USD]; number of dies d; all memory [USD]; number of stacks m; yield y of one placement [1].
    g is ``started_per_good``.

    References: siliconanalysts-cost-bridge, dse-silicon-fit

    >>> round(float(assembly_loss_usd(100.0, 0.0, 1.0, 0.0, 1.0, 0.5)), 6)  # a package that must survive two placements: 4 for 1
    300.0
    >>> round(float(assembly_loss_usd(0.0, 100.0, 1.0, 50.0, 1.0, 0.5)), 6)  # the die two, the stack one
    350.0
    """
    memory_first = component_yield**-stacks
    package = (memory_first * component_yield**-dies - 1) * package_usd
    placed = (memory_first * started_per_good(dies, component_yield) - 1) * dies_usd
    return package + placed + (started_per_good(stacks, component_yield) - 1) * memory_usd


def bonded_cost_usd(base_usd: Number, layers: Number, reference_layers: Number, reference_yield: Number) -> Number:
    r"""Cost of a die with bonded layers when the bond fails now and then and takes everything with it.

    .. math:: c = c_{parts}\,y^{-n/n_0}

    Args: dies and layers of one stack [USD]; layers; layers at which the yield y is stated; that yield [1].

    References: dse-silicon-fit

    >>> round(float(bonded_cost_usd(100.0, 4.0, 4.0, 0.9)), 2)
    111.11
    """
    return base_usd * reference_yield ** (-layers / reference_layers)


def design_nre_usd(design_usd: Number, node: Number, mask_set_usd: Number) -> Number:
    r"""Design and full mask set of a chip.

    .. math:: N = k D + M

    Args: design cost at N5 [USD]; cost of the same design at this node relative to that [1]; mask set [USD].

    References: ttm-cas, ibs-design-cost

    >>> design_nre_usd(800e6, 1.0, 18.1e6) / 1e6
    818.1
    """
    return design_usd * node + mask_set_usd


def model_nre_usd(custom_masks: Number, mask_usd: Number, die_kinds: Number, written_share: Number = 0.0) -> Number:
    r"""Masks of the layers that carry one model; layers that an electron beam writes need none.

    .. math:: N = k\,m\,M\,(1 - e)

    Args: customised layers of a die [1]; one mask [USD]; distinct dies k [1]; share e of these layers written without masks [1].

    References: hnlpu-2025, chipfoundry-masks

    >>> model_nre_usd(4.0, 0.2e6, 1.0) / 1e6, model_nre_usd(4.0, 0.2e6, 1.0, 1.0)
    (0.8, 0.0)
    """
    return custom_masks * mask_usd * die_kinds * (1 - written_share)


def written_wafer_usd(layers: Number, written_share: Number, usd_per_hour: Number, wafer_per_hour: Number) -> Number:
    r"""What writing layers of a wafer with an electron beam adds to its price: a scenario.

    .. math:: c = e\,m\,c_h / t

    Args: customised layers m [1]; share e written [1]; an hour of the tool [USD]; wafer layers that it writes in an hour [1/h].

    References: dse-silicon-fit

    >>> written_wafer_usd(2.0, 1.0, 1000.0, 0.5)
    4000.0
    """
    return layers * written_share * usd_per_hour / wafer_per_hour
