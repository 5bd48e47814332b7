"""What does a unit string mean? The only border between people's units and the SI numbers inside.

Files say ``value = 3.35, unit = "TB/s"``; everything inside is SI (byte, s, W, J, USD, FLOP, m; areas stay mm2).
pint is imported here and nowhere else, at the first unknown string; each distinct string is read once.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

from dse.errors import InputError, closest

# The whole vocabulary: base units, then what is made of them. Things that are counted (chip, wafer, mask ...) are pure numbers.
DEFINITIONS = """
tera- = 1e12 = T-
giga- = 1e9 = G-
mega- = 1e6 = M-
kilo- = 1e3 = k-
centi- = 1e-2 = c-
milli- = 1e-3 = m-
micro- = 1e-6 = u- = µ-
nano- = 1e-9 = n-
pico- = 1e-12 = p-
femto- = 1e-15 = f-
atto- = 1e-18 = a-
peta- = 1e15 = P-
exa- = 1e18 = E-
kibi- = 1024 = Ki-
mebi- = 1048576 = Mi-
gibi- = 1073741824 = Gi-
tebi- = 1099511627776 = Ti-
meter = [length] = m
second = [time] = s
joule = [energy] = J
volt = [voltage] = V
byte = [information] = B
FLOP = [operation] = _ = OP
token = [token] = _ = tokens
USD = [currency]
transistor = [transistor] = Tr
percent = 0.01
bit = byte / 8 = b
minute = 60 * second = min
hour = 3600 * second = h
day = 24 * hour
year = 365 * day
hertz = 1 / second = Hz
watt = joule / second = W
watthour = 3600 * joule = Wh
"""
COUNTS = "chip die wafer stack mask defect layer core slot request user lane cycle weight hop link".split()

# Base units in the order in which a name spells them, with pint's name of the dimension.
_BASES = {
    "USD": "[currency]",
    "FLOP": "[operation]",
    "token": "[token]",
    "byte": "[information]",
    "J": "[energy]",
    "W": "power",
    "transistor": "[transistor]",
    "V": "[voltage]",
    "m": "[length]",
    "s": "[time]",
}
_YEAR = re.compile(r"USD_(\d{4})\b")
_AREA = re.compile(r"\b([cmuµn]?m)([23])\b")
_SHAPE = re.compile(r"(?!.*(//|\s|\*\*))(1\Z|1/|[^\d*/]).*\Z")  # names joined by * and /, also in brackets
_KNOWN = (
    "byte GB GiB TB/s GB/s Gbit/s s ms us ns W kW J pJ pJ/bit pJ/FLOP TFLOP/s TOP/s FLOP mm2 W/mm2 Mbit/mm2 MTr/mm2 1/cm2 USD USD_2026 "
    "USD_2026/hour USD_2026/wafer USD/kWh MUSD token token/s GHz V 1 percent"
).split()
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"))


@cache
def _registry() -> Any:
    import pint  # slow to import; only where a unit string is new

    counts = "\n".join(f"{name} = []" for name in COUNTS[:1]) + "\n" + "\n".join(f"{name} = {COUNTS[0]}" for name in COUNTS[1:])
    registry: Any = pint.UnitRegistry(None, on_redefinition="ignore")
    registry.load_definitions([line for line in (DEFINITIONS + counts).splitlines() if line.strip()])
    return registry


def currency_year(unit: str) -> int | None:
    """Year of the dollars in ``unit``, or None.

    >>> currency_year("USD_2026/hour"), currency_year("USD")
    (2026, None)
    """
    match = _YEAR.search(unit)
    return int(match.group(1)) if match else None


@cache
def _parse(unit: str) -> tuple[float, str]:
    """Factor to SI and the SI unit of a unit string; InputError names the nearest known unit."""
    text = _AREA.sub(r"\1**\2", _YEAR.sub("USD", unit.strip())).replace("%", "percent").replace("·", "*")
    if text in ("", "1"):
        return 1.0, "1"
    try:
        if not _SHAPE.match(unit.strip()):
            raise ValueError("not names joined by * and /")
        quantity = _registry().Quantity(1.0, _registry().parse_units(text.removeprefix("1/"))) if text.startswith("1/") else None
        quantity = 1.0 / quantity if quantity is not None else _registry().Quantity(1.0, _registry().parse_units(text))
        base = quantity.to_base_units()
    except Exception as error:  # pint raises many kinds, all meaning: not a unit
        raise InputError(f"unit — found '{unit}', allowed units such as {', '.join(_KNOWN[:9])}{closest(unit, _KNOWN)}") from error
    powers = {name: float(power) for name, power in base.dimensionality.items()}
    length = powers.get("[length]", 0.0)
    factor = float(base.magnitude) * (1e3**length if length % 2 == 0 else 1.0)  # areas stay mm2, lengths are m
    return factor, _spell(powers)


def _spell(powers: dict[str, float]) -> str:
    """The SI name of a product of base dimensions: ``{[information]: 1, [time]: -1}`` is ``byte/s``."""
    left = dict(powers)
    energy, time = left.get("[energy]", 0.0), left.get("[time]", 0.0)
    if energy and energy * time < 0:
        watt = math.copysign(min(abs(energy), abs(time)), energy)
        left["power"], left["[energy]"], left["[time]"] = watt, energy - watt, time + watt
    names = [("mm" if base == "m" and left.get(dim, 0.0) % 2 == 0 else base, left.get(dim, 0.0)) for base, dim in _BASES.items()]
    top = [_power(name, power) for name, power in names if power > 0]
    bottom = [_power(name, -power) for name, power in names if power < 0]
    return "/".join(["*".join(top) or "1", *bottom]) if top or bottom else "1"


def _power(name: str, power: float) -> str:
    return name if power == 1 else f"{name}{power:g}"


def to_si(value: float, unit: str) -> float:
    """``value`` in ``unit`` as an SI number (areas in mm2). Raises InputError for an unknown unit.

    >>> to_si(3.35, "TB/s"), to_si(1, "GiB"), to_si(5, "pJ/bit"), to_si(2, "cm2")
    (3350000000000.0, 1073741824.0, 4e-11, 200.0)
    """
    factor, _ = _parse(unit)
    return float(f"{value * factor:.15g}") if factor != 1.0 else float(value)


def dimension(unit: str) -> str:
    """The SI unit that stands for the dimension of ``unit``. Raises InputError for an unknown unit.

    >>> dimension("TB/s"), dimension("GB/ms"), dimension("USD_2026/kWh"), dimension("Mbit/mm2"), dimension("%")
    ('byte/s', 'byte/s', 'USD/J', 'byte/mm2', '1')
    """
    return _parse(unit)[1]


def format_si(value: float, unit: str) -> str:
    """A number in an SI unit, for people: four figures, with a prefix where that is usual.

    >>> format_si(3.35e12, "byte/s"), format_si(80e9, "byte"), format_si(0.0123, "s"), format_si(27500, "USD"), format_si(814, "mm2")
    ('3.35 TB/s', '80 GB', '12.3 ms', '27,500 USD', '814 mm2')
    """
    head, slash, rest = unit.partition("/")
    if not math.isfinite(value):
        return f"{value} {unit}"
    if head in ("byte", "FLOP", "s", "W", "J", "V", "1") and unit != "1" and value != 0:
        table = _SMALL if abs(value) < 1 else _PREFIXES if head != "s" else _PREFIXES[-1:]
        scale, prefix = next((pair for pair in table if abs(value) >= pair[0]), table[-1])
        name = {"byte": "B", "1": ""}.get(head, head)
        return f"{value / scale:.4g} {prefix}{name}{slash}{rest}"
    text = f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return text if unit == "1" else f"{text} {unit}"
