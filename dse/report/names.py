"""What is an assumption called on the page? ``families stacked_dram: fp4_rate`` as words; the id stays in the data beside the figure."""

from __future__ import annotations

from dse import glossary

WORDS = {
    "mac": "transistors of a multiply-add",
    "flop": "energy of a FLOP",
    "fp4_rate": "4-bit rate over 8-bit rate",
    "layer": "fixed time of a layer",
    "layer_token": "time of a layer by token",
    "design": "design cost",
    "system.factor": "whole step over the sum of its parts",
    "system.sequence_s": "host time of a sequence",
    "system.step_s": "host time of a step",
    "system.interference": "slowing of decoding by prefill",
    "system.reserve_share": "memory kept free",
    "system.dense_kernels": "kernels of a layer",
    "enabled_share": "share of units that work",
    "overhead_share": "share of the die that is overhead",
    "vector_per_mac": "vector units for each multiplier",
    "bond_yield": "yield of bonding",
    "interposer_fill": "share of the interposer that is filled",
    "interposer_max": "largest interposer",
    "component_yield": "yield of placing a component",
    "clock_exponent": "exponent of clock over voltage",
    "threshold": "threshold voltage",
    "nominal": "nominal voltage",
    "heat_stacked": "heat limit under stacked DRAM",
    "heat_liquid": "heat limit, liquid",
    "package_liquid": "power limit of a package, liquid",
    "pue_liquid": "power usage effectiveness, liquid",
    "die_area": "area of link circuits",
    "die_edge": "die edge of link circuits",
    "rate_share": "share of the datasheet rate",
    "alu": "transistors of a vector unit",
    "sram_model_share": "share of the SRAM for weights or cache",
    "serial_s_per_k": "serial time by depth of a product",
    "floor_s": "least time of a kernel",
    "head_s": "time of an attention head",
    "latency_s": "latency of a kernel",
    "fill_k": "filling of the array",
    "tail_output": "waste of the last tile",
    "quantise_pass": "passes to quantise",
    "blend": "hiding of the shorter time behind the longer",
    "overlap": "hiding of communication",
    "in_switch": "reduction in the switch",
    "volume": "wafers of a design",
    "life": "service life",
    "defects": "defect density",
    "wafer": "wafer price",
}
KERNELS = {
    "gemm": "matrix products",
    "moe": "experts",
    "decode": "attention, decoding",
    "decode_fp8": "attention, decoding (fp8 cache)",
    "mla_decode": "latent attention, decoding",
    "prefill": "attention, prefill",
    "prefill_fp8": "attention, prefill (fp8 cache)",
    "mla_prefill": "latent attention, prefill",
}
OWNERS = {"stacked-dram": "bonded DRAM", "rom": "ROM", "nvm-pcm": "phase-change memory", "nvm-rram": "resistive memory"}
SHARED = ("technology", "memories", "processes", "sites", "networks", "prices", "defaults", "chips")


def assumption(name: str) -> str:
    """An assumption's id for people; a lever with a name of its own stays as it is.

    >>> assumption("families stacked_dram: fp4_rate"), assumption("HBM price")
    ('Stacked DRAM: 4-bit rate over 8-bit rate', 'HBM price')
    >>> assumption("constants sram: gemm.*.compute_efficiency")
    'SRAM machine, matrix products: compute efficiency'
    >>> assumption("technology power: threshold"), assumption("processes n3: leakage")
    ('power: threshold voltage', 'N3: leakage')
    >>> assumption("constants nvidia-b200: system.factor"), assumption("prices owner-2026: volume")
    ('B200: whole step over the sum of its parts', 'owner 2026: wafers of a design')
    """
    head, colon, value = name.partition(": ")
    kind, _, whose = head.partition(" ")
    if not colon or kind not in ("families", "constants", *SHARED):
        return name
    owner = _owner(kind, whose)
    kernel, dot, leaf = value.partition(".")
    if value not in WORDS and dot and kernel in KERNELS:
        owner, value = f"{owner}, {KERNELS[kernel]}", leaf.removeprefix("*.")
    return f"{owner}: {said(value)}"


def _owner(kind: str, whose: str) -> str:
    """Whose number it is: a family, a chip without its maker, a memory, a process, a price list."""
    if kind in ("families", "constants", "chips") and "-" in whose:
        return whose.partition("-")[2].upper().replace("-", " ")
    if kind in ("families", "constants"):
        return glossary.label(whose)
    if kind in ("memories", "processes"):
        return OWNERS.get(whose, whose.upper().replace("-", " "))
    return whose.replace("-", " ")


def said(value: str) -> str:
    """The field itself in words: what has none loses its dots, underscores and unit."""
    if value in WORDS:
        return WORDS[value]
    last = value.removeprefix("special.").removeprefix("system.")
    return WORDS[last] if last in WORDS else last.removesuffix("_s").replace("_", " ").replace(".", " ")
