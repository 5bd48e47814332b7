"""What does an owner pay? Builds ``dse.types.Prices`` from a price file, its base, its site and its network.

A price file says ``view`` (at-cost, margin, street or rent) and names a site and a network. What it leaves out it takes from the
file named ``base``: one owner's view differs from another in few numbers.
"""

from __future__ import annotations

from typing import Any

from dse import types
from dse.catalog.workloads import build_workload
from dse.errors import InputError, closest
from dse.units import to_si

__all__ = ["FIELDS", "VIEWS", "build_prices", "build_workload", "price_values"]

# view -> (bought at street price, rented, the owner pays the NRE); margin: unit cost times ``cost_multiple``
VIEWS = {"at-cost": (0.0, 0.0, 1.0), "margin": (0.0, 0.0, 1.0), "street": (1.0, 0.0, 0.0), "rent": (1.0, 1.0, 0.0)}
YEARS = {"life_year": "year", "model_life_year": "year", "discount_per_year": "1/year"}  # leaves that stay in years
# leaf of types.Prices -> (kind of record, field of the file)
FIELDS = {
    "cost_multiple": ("prices", "cost_multiple"),
    "vendor_multiple": ("prices", "vendor_multiple"),
    "rent_per_price": ("prices", "rent_per_price"),
    "volume_wafer": ("prices", "volume"),
    "model_volume_wafer": ("prices", "model_volume"),
    "discount_per_year": ("prices", "discount"),
    "life_year": ("prices", "life"),
    "model_life_year": ("prices", "model_life"),
    "utilisation": ("prices", "utilisation"),
    "server_usd": ("networks", "server"),
    "network_usd": ("networks", "network"),
    "storage_usd": ("networks", "storage"),
    "host_w": ("networks", "host_power"),
    "conversion_air": ("sites", "conversion_air"),
    "conversion_liquid": ("sites", "conversion_liquid"),
    "pue_air": ("sites", "pue_air"),
    "pue_liquid": ("sites", "pue_liquid"),
    "energy_usd_per_j": ("sites", "electricity"),
    "facility_usd_per_j": ("sites", "facility"),
}
OPTIONAL = {"cost_multiple", "nre_share"}  # follow from the view where no file states them


def _look_up(kind: str, name: str, record: Any, catalog: Any) -> Any:
    found = catalog.records[kind]
    if name not in found:
        raise InputError(f"{record.file}: {kind} — found {name!r}, allowed {', '.join(found)}{closest(name, found)}")
    return found[name]


def _chain(record: Any, catalog: Any) -> list[Any]:
    """The record and its bases, nearest first."""
    out, name = [record], record.meta.get("base")
    while name:
        following = _look_up("prices", name, out[-1], catalog)
        if any(following is seen for seen in out):
            raise InputError(f"{record.file}: base — found a circle over {name!r}, allowed a file whose bases end")
        out.append(following)
        name = following.meta.get("base")
    return out


def _word(chain: list[Any], name: str) -> str:
    found = next((r.meta[name] for r in chain if name in r.meta), None)
    if found is None:
        raise InputError(f"{chain[0].file}: {name} — missing, allowed an id (or a base file that has it)")
    return str(found)


def price_values(record: Any, catalog: Any) -> dict[str, Any]:
    """Every sourced number of an owner's view by its leaf of ``types.Prices``: the file's own, then its bases', site's, network's.

    Values are ``Quantity`` records in SI (a rate a year is one a second there). Raises InputError with all that is missing.
    """
    chain = _chain(record, catalog)
    places = {"prices": chain} | {
        kind: [record, _look_up(kind, _word(chain, name), record, catalog)] for kind, name in (("sites", "site"), ("networks", "network"))
    }
    out, problems = {}, []
    for leaf, (kind, name) in [*FIELDS.items(), ("nre_share", ("prices", "nre_share"))]:
        found = next((r.values[name] for r in places[kind] if name in r.values), None)
        if found is not None:
            out[leaf] = found
        elif leaf not in OPTIONAL:
            problems.append(f"{record.file}: {name} — missing, allowed a number here, in its base, or in its {kind[:-1]}")
    if problems:
        raise InputError(problems)
    return out


def build_prices(record: Any, catalog: Any) -> types.Prices:
    """The numbers of an owner's view. ``catalog`` needs ``records["prices" | "sites" | "networks"]``: id -> record.

    Money in USD of the files' year; times of ownership in years, as the names say. At cost the multiple is 1; bought at street price
    or rented the NRE is the vendor's (share 0), unless the file says otherwise.
    Raises InputError for an unknown view, site, network or base, and for missing numbers.
    """
    view = _word(_chain(record, catalog), "view")
    if view not in VIEWS:
        raise InputError(f"{record.file}: view — found {view!r}, allowed {', '.join(VIEWS)}{closest(view, VIEWS)}")
    street, rents, nre_share = VIEWS[view]
    numbers = {leaf: q.value for leaf, q in price_values(record, catalog).items()}
    if view == "at-cost":
        numbers["cost_multiple"] = 1.0
    for leaf, unit in YEARS.items():
        numbers[leaf] = numbers[leaf] / to_si(1.0, unit)
    return types.Prices(**{"cost_multiple": 1.0, "nre_share": nre_share} | numbers, buys_at_street=street, rents=rents)
