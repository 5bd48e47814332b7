"""Which deployment do the options of ``eval``, ``best`` and ``sweep`` describe? Names become pytrees; all mistakes come at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from dse.errors import InputError, closest

if TYPE_CHECKING:
    from dse.catalog import Catalog
    from dse.types import Arrivals, Deployment, Speculation, Workload

DEGREES = ("tp", "pp", "cp", "dp", "ep")
PREFILL_DEGREES = ("tp", "dp", "ep")
CONSTANTS = ("calibrated", "ideal")
DEFAULT_PRICES = "owner-2026"
SHORT = {name: f"layout.{name}" for name in (*DEGREES, "batch")} | {"isl": "workload.input_tokens", "osl": "workload.output_tokens"}
SERVED = (  # told where given
    *("arrivals load input_cv output_cv prefill_chip prefill_tp prefill_dp prefill_ep prefix uneven_routing".split()),
    *("draft draft_tokens acceptance samples kv_offload redundant_experts quality".split()),
)
ONE_PHASE = ("decode", "prefill")  # kinds of serving in which the number of output tokens does not count


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options as they were typed."""

    chip: str | None = None
    model: str | None = None
    workload: str | None = None
    isl: float | None = None
    osl: float | None = None
    batch: float = 1.0
    tp: float = 1.0
    pp: float = 1.0
    cp: float = 1.0
    dp: float = 1.0
    ep: float = 1.0
    serving: str = "aggregated"
    format: str | None = None
    kv_format: str | None = None
    constants: str = "calibrated"
    prices: str = DEFAULT_PRICES
    arrivals: float | None = None
    load: float | None = None
    input_cv: float | None = None
    output_cv: float | None = None
    prefill_chip: str | None = None
    prefill_tp: float | None = None
    prefill_dp: float | None = None
    prefill_ep: float | None = None
    prefix: float | None = None
    uneven_routing: float | None = None
    draft: str | None = None
    draft_tokens: float | None = None
    acceptance: float | None = None
    samples: float | None = None
    kv_offload: float | None = None
    redundant_experts: float | None = None
    quality: float | None = None


def deployment(asked: Asked, catalog: Catalog) -> tuple[Deployment, dict[str, Any]]:
    """The deployment, and the question in plain words (ids instead of aliases) for the answer. Raises InputError with every mistake."""
    from dse.catalog.host import offload
    from dse.types import Deployment, Layout

    problems: list[str] = []

    def attempt(make: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return make(*arguments)
        except InputError as error:
            problems.extend(error.problems)

    chip = attempt(_entry, catalog, "chips", asked.chip, "--chip")
    model = attempt(_entry, catalog, "models", asked.model, "--model")
    prices = attempt(_entry, catalog, "prices", asked.prices, "--prices")
    workload = attempt(workload_of, asked, catalog)
    arrivals = attempt(arrivals_of, asked, catalog)
    guessed = attempt(speculation_of, asked, catalog)
    other = attempt(_prefill_chip, asked, catalog)
    problems += _choices(asked)
    if workload is not None and asked.prefix is not None and not 0 <= asked.prefix <= workload.input_tokens:
        problems.append(f"--prefix — {_found(asked.prefix)}, allowed 0 to the input of {workload.input_tokens:g} tokens")
    if model is not None and asked.redundant_experts and not any(float(g.ffn.experts or 0.0) for g in catalog.models[model].groups):
        problems.append(f"--redundant-experts — {_found(asked.redundant_experts)}, allowed with a mixture of experts, which {model} is not")
    if problems:
        raise InputError(problems)
    hardware = ideal_or_not(catalog.chips[chip], asked.constants)
    name = _format_name(asked, hardware, catalog.models[model])
    held = None if asked.kv_offload is None else offload(catalog, chip, asked.kv_offload)
    layout = Layout(
        **{key: float(getattr(asked, key)) for key in (*DEGREES, "batch")},
        format=name,
        offload=held,
        redundant_experts=asked.redundant_experts,
    )
    if guessed is not None:
        workload = replace(workload, speculation=guessed)
    if asked.samples is not None:
        workload = replace(workload, samples=float(asked.samples))
    if asked.prefix is not None:
        workload = replace(workload, shared_prefix_tokens=float(asked.prefix))
    if asked.uneven_routing is not None:
        workload = replace(workload, uneven_routing=float(asked.uneven_routing))
    apart = {d: getattr(asked, f"prefill_{d}") for d in PREFILL_DEGREES}
    given: dict[str, Any] = {d: float(x) for d, x in apart.items() if x is not None}
    plan = Layout(**given, format=name) if given else None
    made = Deployment(
        prefill_layout=plan,
        prefill_chip=None if other is None else ideal_or_not(catalog.chips[other], asked.constants),
        chip=hardware,
        model=catalog.models[model],
        workload=workload,
        layout=layout,
        prices=catalog.prices[prices],
        arrivals=arrivals,
        serving=asked.serving,
        quality=asked.quality,
    )
    ids = {"chip": chip, "model": model, "workload": asked.workload and catalog.resolve("workloads", asked.workload), "prices": prices}
    return made, question(asked, ids, workload)


def question(asked: Asked, ids: dict[str, Any], workload: Workload) -> dict[str, Any]:
    """What was asked, with ids and numbers after defaults."""
    given = asdict(asked)
    kept = {key: given[key] for key in ("serving", "constants")} | {key: given[key] for key in SERVED if given[key] is not None}
    return {**ids, "input_tokens": float(workload.input_tokens), "output_tokens": float(workload.output_tokens), **kept}


def ideal_or_not(chip: Any, constants: str) -> Any:
    """The chip with the constants that are asked for."""
    from dse.evaluate import ideal

    return ideal(chip) if constants == "ideal" else chip


def _entry(catalog: Catalog, kind: str, name: str | None, option: str) -> str:
    if name is None:
        raise InputError(f"{option} — found nothing, allowed an id of the catalogue (dse catalog list {kind})")
    identity = catalog.resolve(kind, name)
    getattr(catalog, kind)[identity]  # built now, so that what it lacks is reported with the rest
    return identity


def workload_of(asked: Asked, catalog: Catalog) -> Workload:
    """The workload: one of the catalogue, or of ``--isl`` and ``--osl``. Raises InputError."""
    from dse.types import Workload

    if asked.workload is not None:
        if asked.isl is not None or asked.osl is not None:
            raise InputError("--workload — found --isl or --osl beside it, allowed one or the other")
        return catalog.workloads[_entry(catalog, "workloads", asked.workload, "--workload")]
    osl = 1.0 if asked.osl is None and asked.serving in ONE_PHASE else asked.osl
    numbers = {"--isl": asked.isl, "--osl": osl}
    wrong = [
        f"{name} — {_found(n)}, allowed a number of tokens above 0, or --workload ID" for name, n in numbers.items() if not _above(n, 0)
    ]
    if wrong:
        raise InputError(wrong)
    return Workload(input_tokens=float(asked.isl or 0.0), output_tokens=float(osl or 0.0))


def speculation_of(asked: Asked, catalog: Catalog) -> Speculation | None:
    """Speculative decoding as asked; None without it. Raises InputError: nothing about the draft is assumed."""
    from dse.catalog.workloads import SELF
    from dse.types import Speculation

    given = {"--draft": asked.draft, "--draft-tokens": asked.draft_tokens, "--acceptance": asked.acceptance}
    if all(value is None for value in given.values()):
        return None
    problems = [
        f"{name} — found nothing, allowed a value beside {', '.join(n for n in given if n != name)}"
        for name, x in given.items()
        if x is None
    ]
    if asked.draft_tokens is not None and not _above(asked.draft_tokens, 0):
        problems.append(f"--draft-tokens — {_found(asked.draft_tokens)}, allowed a number of tokens above 0")
    if asked.acceptance is not None and not 0 <= asked.acceptance <= 1:
        problems.append(f"--acceptance — {_found(asked.acceptance)}, allowed 0 to 1")
    if problems:
        raise InputError(problems)
    assert asked.draft is not None and asked.draft_tokens is not None and asked.acceptance is not None
    model = None if asked.draft == SELF else catalog.models[_entry(catalog, "models", asked.draft, "--draft")]
    return Speculation(tokens=float(asked.draft_tokens), acceptance=float(asked.acceptance), draft=model)


def _prefill_chip(asked: Asked, catalog: Catalog) -> str | None:
    """The id of the chip that prefills, where it is another. Raises InputError."""
    degrees = {f"--prefill-{d}": getattr(asked, f"prefill_{d}") for d in PREFILL_DEGREES}
    wrong = [n for n, x in (("--prefill-chip", asked.prefill_chip), *degrees.items()) if x is not None]
    if wrong and asked.serving != "disaggregated":
        raise InputError(f"{wrong[0]} — found with {asked.serving} serving, allowed with disaggregated")
    if problems := [f"{n} — {_found(x)}, allowed a whole number from 1" for n, x in degrees.items() if x is not None and not _whole(x)]:
        raise InputError(problems)
    return None if asked.prefill_chip is None else _entry(catalog, "chips", asked.prefill_chip, "--prefill-chip")


USUAL_SPREAD = "chat"  # workload whose spread of lengths stands in where none is given


def arrivals_of(asked: Asked, catalog: Catalog) -> Arrivals | None:
    """How requests arrive; None for a closed loop. Spreads come from the options, else from the workload. Raises InputError."""
    from dse.catalog.workloads import spreads
    from dse.evaluate import OPEN
    from dse.types import Arrivals

    if asked.arrivals is None and asked.load is None:
        given = [f"--{n.replace('_', '-')}" for n in ("input_cv", "output_cv") if getattr(asked, n) is not None]
        if given:
            raise InputError(f"{given[0]} — found without --arrivals or --load, allowed beside one of them")
        return None
    problems = [] if asked.arrivals is None or asked.load is None else ["--load — found beside --arrivals, allowed one of them"]
    limits = {"--arrivals": (asked.arrivals, "a number of requests a second above 0"), "--load": (asked.load, "a share above 0")}
    problems += [f"{n} — {_found(x)}, allowed {what}" for n, (x, what) in limits.items() if x is not None and not _above(x, 0)]
    cvs = {"--input-cv": asked.input_cv, "--output-cv": asked.output_cv}
    problems += [f"{n} — {_found(x)}, allowed 0 or more" for n, x in cvs.items() if x is not None and not _above(x, -EPSILON)]
    if asked.serving not in OPEN:
        problems.append(f"--arrivals — found with {asked.serving} serving, allowed with {', '.join(OPEN)}")
    if problems:
        raise InputError(problems)
    record = catalog.records["workloads"][catalog.resolve("workloads", asked.workload or USUAL_SPREAD)]
    usual = spreads(record) if None in cvs.values() else {}
    found = {n: usual[n] if getattr(asked, n) is None else float(getattr(asked, n)) for n in ("input_cv", "output_cv")}
    rate, load = (None if x is None else float(x) for x in (asked.arrivals, asked.load))
    return Arrivals(rate_per_s=rate, load=load, **found)


EPSILON = 1e-12  # a number is 0 or more if it is above this, negative


def _found(value: float | None) -> str:
    return "found nothing" if value is None else f"found {value:g}"


def _above(value: float | None, least: float) -> bool:
    return value is not None and math.isfinite(value) and value > least


def _whole(value: float) -> bool:
    return math.isfinite(value) and value >= 1 and value == math.floor(value)


def _choices(asked: Asked) -> list[str]:
    """Wrong numbers of the layout and unknown words."""
    from dse import glossary
    from dse.evaluate import SERVING

    formats = tuple(glossary.load().formats)
    words = (("--serving", asked.serving, SERVING), ("--constants", asked.constants, CONSTANTS))
    words += (("--format", asked.format, formats), ("--kv-format", asked.kv_format, formats))  # type: ignore[assignment]
    problems = [
        f"{option} — found '{given}', allowed {', '.join(allowed)}{closest(given, allowed)}"
        for option, given, allowed in words
        if given is not None and given not in allowed
    ]
    degrees = [(f"--{name}", getattr(asked, name)) for name in DEGREES]
    problems += [f"{name} — {_found(n)}, allowed a whole number from 1" for name, n in degrees if not _whole(n)]
    stage = asked.tp * asked.cp * asked.dp
    if all(_whole(n) for _, n in degrees) and asked.ep < stage and stage % asked.ep:
        problems.append(f"--ep — {_found(asked.ep)}, allowed a divisor of tp x cp x dp = {stage:g}")
    if asked.samples is not None and not _above(asked.samples, 1 - EPSILON):
        problems.append(f"--samples — {_found(asked.samples)}, allowed a number of answers from 1")
    shares = (
        ("--kv-offload", asked.kv_offload, 0.0, "a share of the cache from 0 to 1"),
        ("--uneven-routing", asked.uneven_routing, 0.0, "0 (balanced) to 1 (power law)"),
        ("--quality", asked.quality, EPSILON, "a worth above 0, at most 1"),
    )
    if asked.redundant_experts is not None and not _above(asked.redundant_experts, -EPSILON):
        problems.append(f"--redundant-experts — {_found(asked.redundant_experts)}, allowed 0 or more copies")
    problems += [f"{name} — {_found(x)}, allowed {what}" for name, x, least, what in shares if x is not None and not least <= x <= 1]
    return problems if _above(asked.batch, 0) else [*problems, f"--batch — {_found(asked.batch)}, allowed a number of requests above 0"]


def _format_name(asked: Asked, chip: Any, model: Any) -> str | None:
    """``weights/cache`` as ``Layout`` takes it; None for the format of release."""
    if asked.kv_format is None:
        return asked.format
    from dse.formats import default_format
    from dse.present import format_names

    weights = asked.format or format_names(default_format(chip, model.native))["weights"]
    return f"{weights}/{asked.kv_format}"


# --- axes of a sweep -------------------------------------------------------------------------------------------------------


def axes(over: list[str], base: Deployment) -> dict[str, list[float]]:
    """``["batch=1,8", "tp=1,2"]`` as path in the deployment -> values. Raises InputError with every mistake.

    >>> from types import SimpleNamespace as N
    >>> axes(["batch=1,8,64", "isl=512"], N())
    {'layout.batch': [1.0, 8.0, 64.0], 'workload.input_tokens': [512.0]}
    """
    problems: list[str] = []
    found: dict[str, list[float]] = {}
    for text in over:
        name, equals, values = text.partition("=")
        path = SHORT.get(name.strip(), name.strip())
        try:
            numbers = [float(value) for value in values.split(",")]
        except ValueError:
            numbers = []
        if not equals or not numbers or not all(math.isfinite(number) for number in numbers):
            problems.append(f"--over — found '{text}', allowed NAME=VALUE,VALUE,... such as batch=1,8,64")
        elif path in found:
            problems.append(f"--over — found {name} twice, allowed each name once")
        elif path in SHORT.values() or _is_number(base, path):
            found[path] = numbers
        else:
            known = [*SHORT, *number_paths(base)]
            problems.append(
                f"--over — found '{name}', allowed {', '.join(SHORT)} or a path such as prices.utilisation{closest(name, known)}"
            )
    if problems:
        raise InputError(problems)
    return found


def _is_number(base: Any, path: str) -> bool:
    node = base
    for part in path.split("."):
        if not is_dataclass(node) or not hasattr(node, part):
            return False
        node = getattr(node, part)
    return node is not None and not is_dataclass(node) and not isinstance(node, str | tuple | dict)


def number_paths(record: Any, above: str = "") -> list[str]:
    """Dotted paths of all numbers in a deployment that are not inside lists."""
    paths: list[str] = []
    for f in fields(record) if is_dataclass(record) else ():
        value = getattr(record, f.name)
        if is_dataclass(value):
            paths += number_paths(value, f"{above}{f.name}.")
        elif _is_number(record, f.name):
            paths.append(f"{above}{f.name}")
    return paths
