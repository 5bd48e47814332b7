"""What does a second of serving cost its owner? Chip price by view, annuity, NRE, server, energy and site."""

from __future__ import annotations

import jax.numpy as jnp

from dse.equations.smooth import TINY
from dse.types import Chip, CostParts, Number, Prices

S_PER_YEAR = 365.0 * 24.0 * 3600.0


def annuity(discount_per_year: Number, life_year: Number) -> Number:
    r"""Yearly payment for one unit of capital: :math:`r / (1 - (1+r)^{-n})`, written so that r near 0 is exact.

    Args:
        discount_per_year: r > 0 [1/year]. life_year: n [year].

    References: pypsa-costs

    >>> round(float(annuity(0.10, 4.0)), 4), round(float(annuity(0.08, 20.0)), 4)
    (0.3155, 0.1019)
    """
    return discount_per_year / -jnp.expm1(-life_year * jnp.log1p(discount_per_year))


def street_price(chip: Chip, prices: Prices) -> Number:
    """Street price: the market's where there is one, else the unit cost times the vendor's multiple [USD]."""
    return chip.has_street * chip.street_usd + (1.0 - chip.has_street) * chip.unit_cost_usd * prices.vendor_multiple


def chip_price(chip: Chip, prices: Prices) -> Number:
    """What the owner pays for one package: fabricated (cost times a multiple) or bought at street price [USD]."""
    made = chip.unit_cost_usd * prices.cost_multiple
    return (1.0 - prices.buys_at_street) * made + prices.buys_at_street * street_price(chip, prices)


def nre_per_chip(chip: Chip, prices: Prices, distinct_dies: Number) -> Number:
    r"""Design and masks carried by one package.

    General design spreads over all wafers of the design; the masks of burned-in weights spread over the wafers of one model, once for each
    distinct die of a copy.

    .. math:: \frac{N}{V / w} + \frac{N_m\, n_{dies}}{V_m / w}

    >>> from types import SimpleNamespace as N
    >>> chip = N(nre_usd=300e6, nre_model_usd=0.0, wafers=1 / 50.0)
    >>> nre_per_chip(chip, N(nre_share=1.0, volume_wafer=1e4, model_volume_wafer=1e3), 1.0)
    600.0
    """
    general = chip.nre_usd * chip.wafers / prices.volume_wafer
    model = chip.nre_model_usd * distinct_dies * chip.wafers / prices.model_volume_wafer
    return prices.nre_share * (general + model)


def provisioned_w(chip: Chip, prices: Prices, chip_w: Number) -> Number:
    r"""Power at the meter of one chip drawing ``chip_w``: :math:`PUE\,(P(1 + f) + P_{host})` [W].

    References: inferencex-app

    >>> from types import SimpleNamespace as N
    >>> prices = N(conversion_air=0.25, conversion_liquid=0.12, pue_air=1.25, pue_liquid=1.15, host_w=500.0)
    >>> round(float(provisioned_w(N(liquid_cooled=0.0, host_share=1.0), prices, 700.0)))
    1719
    """
    wet = chip.liquid_cooled
    conversion = wet * prices.conversion_liquid + (1.0 - wet) * prices.conversion_air
    pue = wet * prices.pue_liquid + (1.0 - wet) * prices.pue_air
    return pue * (chip_w * (1.0 + conversion) + prices.host_w * chip.host_share)


def cost_parts(
    chip: Chip, prices: Prices, chips: Number, distinct_dies: Number, mean_w: Number, beside_usd: Number | None = None
) -> CostParts:
    """USD per second of serving of an instance, by part.

    Capital and NRE of chips that die with their model are written off over the model's life, everything else over the server's.
    Energy is paid for what is drawn, the site for what is provisioned. What the fleet costs while it is idle is the part ``idle``;
    rent covers everything.

    Args:
        chip, prices: As in the deployment. chips: Of the instance [1].
        distinct_dies: Different burned-in dies in one copy [1]. mean_w: Mean power of one chip while serving [W].
        beside_usd: Further capital of one slot, such as host memory that holds cache, paid by the owner even where chips are rented [USD].

    Returns: ``CostParts`` [USD/s].

    References: inferencex-app
    """
    life = chip.model_bound * jnp.minimum(prices.model_life_year, prices.life_year) + (1.0 - chip.model_bound) * prices.life_year
    chip_rate = annuity(prices.discount_per_year, life) / S_PER_YEAR
    server_rate = annuity(prices.discount_per_year, prices.life_year) / S_PER_YEAR
    own = chips * (1.0 - prices.rents)
    inside_price = prices.buys_at_street * chip.has_street  # the market's price of a whole system already holds its cooling and power
    slot = (prices.server_usd + prices.network_usd + prices.storage_usd) * chip.host_share + (1.0 - inside_price) * chip.system_usd
    capital = own * chip_price(chip, prices) * chip_rate
    system = own * slot * server_rate
    if beside_usd is not None:
        system = system + chips * beside_usd * server_rate
    nre = own * nre_per_chip(chip, prices, distinct_dies) * chip_rate
    energy = own * provisioned_w(chip, prices, mean_w) * prices.energy_usd_per_j
    site = own * provisioned_w(chip, prices, chip.tdp_w) * prices.facility_usd_per_j
    known = chip.has_rent * chip.rent_usd_per_s + (1.0 - chip.has_rent) * prices.rent_per_price * street_price(chip, prices)
    rent = chips * prices.rents * known
    waiting = (1.0 - prices.utilisation) / jnp.maximum(prices.utilisation, TINY)
    return CostParts(
        capital=capital + rent, system=system, nre=nre, energy=energy, site=site, idle=(capital + rent + system + nre + site) * waiting
    )
