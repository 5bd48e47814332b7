"""Which chip does a measured row mean, and with which constants is it predicted?

By catalogue id or alias; else from the folder's ``chip_peaks.csv``: the datasheet numbers of that row with the constants of its
generation, then vendor, then family. Never the numbers of a chip with a similar name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dse.catalog import Catalog, Record
from dse.errors import InputError
from dse.formats import computed_in, named_format, pick
from dse.types import Chip, PerFormat


@dataclass(frozen=True)
class Resolved:
    """A chip as rows are predicted on it. ``by`` says how it was found, ``constants`` is the record of its constants."""

    id: str
    by: str
    chip: Chip
    constants: Record
    cache_byte: float = 0.0  # last-level cache, which holds what a benchmark reads again and again
    peaks: dict[str, float] = field(default_factory=dict, compare=False, hash=False)

    def peak(self, name: str) -> float:
        """Dense rate at which kernels of a format compute on this chip [FLOP/s]."""
        if name not in self.peaks:
            fmt = computed_in(self.chip, named_format(name))
            self.peaks[name] = float(pick(fmt.compute, self.chip.peak_flop_per_s))
        return self.peaks[name]


def _rate(row: Mapping[str, str], column: str, scale: float) -> float | None:
    text = (row.get(column) or "").strip()
    return float(text) * scale if text else None


def _cache(catalog: Catalog, chip: str) -> float:
    known = catalog.records["chips"][chip].values.get("sram_capacity")
    return known.value if known else 0.0


def _donor(row: Mapping[str, str], catalog: Catalog) -> tuple[str, str, str]:
    """Chip and constants that lend what ``chip_peaks.csv`` does not say, and how they were found."""
    family = "sram" if (row.get("memory") or "").strip().lower() == "none" else "hbm_gpu"
    wanted = {"generation": row.get("generation"), "vendor": row.get("vendor"), "family": family}
    for how, word in {"chip": row.get("chip"), **wanted}.items():
        for name, record in catalog.records["constants"].items():
            of_chips = record.meta.get("applies_to_chips", [])
            own = how == "chip" and word in of_chips
            if how == "family" and of_chips:  # the file of one chip does not stand for its family
                continue
            if own or (word and str(record.meta.get(how, "")).lower() == word.lower()):
                chips = [c for c in of_chips if c in catalog.records["chips"]]
                chips += [c for c, r in catalog.records["chips"].items() if str(r.meta.get("family")) == family]
                if chips:
                    return chips[0], name, how
    raise InputError(f"chip_peaks.csv: {row.get('chip')} — found no constants of its generation, vendor or family")


def from_peaks(row: Mapping[str, str], catalog: Catalog) -> Resolved:
    """A chip of ``chip_peaks.csv``: its datasheet numbers over constants of its generation, vendor or family."""
    from dataclasses import replace

    donor_id, name, how = _donor(row, catalog)
    donor = catalog.chips[donor_id]
    bf16 = _rate(row, "peak_bf16_tflops", 1e12)
    if bf16 is None:
        raise InputError(f"chip_peaks.csv: {row.get('chip')} — found no peak_bf16_tflops, allowed a dense rate in TFLOP/s")
    has = {k: _rate(row, c, 1e12) for k, c in (("fp8", "peak_fp8_tflops"), ("fp4", "peak_fp4_tflops"), ("int8", "peak_int8_tops"))}
    fp8 = has["fp8"] or bf16
    peaks = PerFormat(fp32=bf16 / 2, bf16=bf16, fp8=fp8, fp4=has["fp4"] or fp8, int8=has["int8"] or bf16)
    computes = PerFormat(fp32=1.0, bf16=1.0, **{k: float(v is not None) for k, v in has.items()})
    bandwidth, capacity, link = (_rate(row, c, 1e9) for c in ("hbm_gbs", "hbm_gb", "link_gbs_per_dir"))
    store = donor.sram if "none" in (row.get("memory") or "") else donor.memory
    store = replace(store, s_per_byte=1 / bandwidth if bandwidth else 0.0, capacity_byte=capacity or 0.0)
    chip = replace(
        donor,
        peak_flop_per_s=peaks,
        computes=computes,
        exp_per_s=donor.exp_per_s * bf16 / donor.peak_flop_per_s.bf16,
        tdp_w=_rate(row, "tdp_w", 1.0) or donor.tdp_w,
        scale_up=replace(
            donor.scale_up,
            s_per_byte=1 / link if link else donor.scale_up.s_per_byte,
            chips=_rate(row, "scaleup_domain", 1.0) or donor.scale_up.chips,
        ),
        kernels=catalog.constants[name],
        **({"sram": store} if "none" in (row.get("memory") or "") else {"memory": store}),
    )
    return Resolved(str(row["chip"]), f"chip_peaks, {how}", chip, catalog.records["constants"][name], _cache(catalog, donor_id))


class Chips:
    """Chips by the names that measurement files use; each is resolved once. ``known`` names are taken as they are."""

    def __init__(self, catalog: Catalog, peaks: Mapping[str, Mapping[str, str]], known: Mapping[str, Resolved] | None = None):
        self.catalog, self.peaks = catalog, peaks
        self._found: dict[str, Resolved | None] = dict(known or {})

    def find(self, name: str) -> Resolved | None:
        """The chip of that name, or None if nothing is known of it."""
        if name not in self._found:
            self._found[name] = self._resolve(name)
        return self._found[name]

    def _resolve(self, name: str) -> Resolved | None:
        if not name or name.endswith(".toml"):
            return None
        try:
            identity = self.catalog.resolve("chips", name)
        except InputError:
            return self._from_peaks(name)
        constants = self.catalog.constants_of(identity)[0]
        by = "id" if identity == name else "alias"
        own = self.catalog.records["constants"][constants]
        return Resolved(identity, by, self.catalog.chips[identity], own, _cache(self.catalog, identity))

    def _from_peaks(self, name: str) -> Resolved | None:
        row = self.peaks.get(name)
        if row is None:
            return None
        try:
            return from_peaks(row, self.catalog)
        except InputError:
            return None
