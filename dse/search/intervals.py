"""What can a function return on a whole box of inputs? An interpreter of its jaxpr on intervals.

The function itself is traced, on scalars; every operation is then done on pairs (low, high) of arrays of any shapes that broadcast.
Each result is widened outwards by ``WIDEN``, thousands of times more than double precision rounds, so that enclosures stay sound.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dse.equations.smooth import MONOTONE
from dse.types import Number

WIDEN = 1e-12  # relative, of every operation on intervals
CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat", "checkpoint")
SAME = ("convert_element_type", "stop_gradient", "copy", "copy_p", "reshape", "squeeze", "broadcast_in_dim")  # of a scalar
RISING = {name: getattr(jnp, name) for name in ("exp", "log", "log1p", "expm1", "sqrt", "floor", "ceil", "sign", "tanh")}


class Interval(NamedTuple):
    """All numbers from ``low`` to ``high``; a point where both are the same object."""

    low: Any
    high: Any

    @property
    def is_point(self) -> bool:
        return self.low is self.high


class Product(Interval):
    """A product that remembers its factors, so that ``x y - x`` can be taken as ``x (y - 1)``."""

    factors: tuple[Interval, ...] = ()


class Quotient(Interval):
    """A quotient that remembers its parts, so that ``(x / y) y`` can be taken as ``x``."""

    parts: tuple[Interval, ...] = ()


class Least(Interval):
    """A minimum that remembers its terms, so that ``min(a, x / y) y`` can be taken as ``min(a y, x)`` where y is positive."""

    terms: tuple[Interval, ...] = ()


def point(x: Any) -> Interval:
    """A number as an interval."""
    return Interval(x, x)


def is_interval(x: Any) -> bool:
    """Whether a leaf is an interval."""
    return isinstance(x, Interval)


def _wide(low: Number, high: Number, size_low: Number | None = None, size_high: Number | None = None) -> Interval:
    down = jnp.abs(low) if size_low is None else size_low
    up = jnp.abs(high) if size_high is None else size_high
    finite_down, finite_up = jnp.where(jnp.isfinite(down), down, 0.0), jnp.where(jnp.isfinite(up), up, 0.0)
    return Interval(low - WIDEN * finite_down, high + WIDEN * finite_up)


def _corners(f: Callable, x: Interval, y: Interval) -> Interval:
    values = [f(a, b) for a in ((x.low,) if x.is_point else x) for b in ((y.low,) if y.is_point else y)]
    low, high = values[0], values[0]
    for value in values[1:]:
        low, high = jnp.minimum(low, value), jnp.maximum(high, value)
    return _wide(low, high)


def _add(x: Interval, y: Interval) -> Interval:
    sizes = [jnp.abs(a) + jnp.abs(b) for a, b in zip(x, y, strict=True)]
    return _wide(x.low + y.low, x.high + y.high, *sizes)


def _negative(x: Interval) -> Interval:
    return Interval(-x.high, -x.low)


def _cancelled(x: Interval, y: Interval) -> Interval | None:
    """``x y`` where a quotient in ``x`` was divided by the same ``y``; None where none was."""
    if isinstance(x, Quotient) and x.parts[1] is y:
        return x.parts[0]
    if not isinstance(x, Least):
        return None
    simpler = [_cancelled(term, y) for term in x.terms]
    if all(term is None for term in simpler):
        return None
    products = [_corners(jnp.multiply, t, y) if s is None else s for t, s in zip(x.terms, simpler, strict=True)]
    return Interval(*(jnp.minimum(a, b) for a, b in zip(*products, strict=True)))


def _multiply(x: Interval, y: Interval) -> Product:
    low, high = _corners(jnp.multiply, x, y)
    for this, other in ((x, y), (y, x)):
        if (tight := _cancelled(this, other)) is not None:
            sure = other.low > 0
            found = _wide(*tight)
            low = jnp.where(sure, jnp.maximum(low, found.low), low)
            high = jnp.where(sure, jnp.minimum(high, found.high), high)
    product = Product(low, high)
    product.factors = (x, y)
    return product


def _subtract(x: Interval, y: Interval) -> Interval:
    for this, other in (x.factors, x.factors[::-1]) if isinstance(x, Product) else ():
        if this is y:
            return _corners(jnp.multiply, y, _add(other, point(np.float64(-1.0))))
    return _add(x, _negative(y))


def _divide(x: Interval, y: Interval) -> Quotient:
    crosses = (y.low <= 0) & (y.high >= 0)
    safe = Interval(jnp.where(crosses, 1.0, y.low), jnp.where(crosses, 1.0, y.high))
    inside = _corners(jnp.divide, x, safe)
    quotient = Quotient(jnp.where(crosses, -jnp.inf, inside.low), jnp.where(crosses, jnp.inf, inside.high))
    quotient.parts = (x, y)
    return quotient


def _whole_power(x: Interval, n: int) -> Interval:
    if n < 0:
        return _divide(point(1.0), _whole_power(x, -n))
    low, high = x.low**n, x.high**n
    if n % 2:
        return _wide(low, high)
    crosses = (x.low <= 0) & (x.high >= 0)
    return _wide(jnp.where(crosses, 0.0, jnp.minimum(low, high)), jnp.maximum(low, high))


def _select(which: Interval, cases: list[Interval]) -> Interval:
    """A decided predicate takes its case, an undecided one the hull of both."""
    (no, yes), (low, high) = cases, (jnp.asarray(which.low, bool), jnp.asarray(which.high, bool))
    hull = Interval(jnp.minimum(no.low, yes.low), jnp.maximum(no.high, yes.high))
    return Interval(*(jnp.where(low, y, jnp.where(high, h, n)) for n, y, h in zip(no, yes, hull, strict=True)))


def _compare(name: str, x: Interval, y: Interval) -> Interval:
    """Surely true, possibly true."""
    if name in ("gt", "ge"):
        name, x, y = {"gt": "lt", "ge": "le"}[name], y, x
    f = {"lt": jnp.less, "le": jnp.less_equal}[name]
    return Interval(f(x.high, y.low), f(x.low, y.high))


Directions = Mapping[str, Sequence[tuple[int, ...]]]  # function -> for each output, which way it goes with the first inputs
_whole: dict[str, Sequence[tuple[int, ...]]] = {}


@contextlib.contextmanager
def kept_whole(module: ModuleType, directions: Directions) -> Iterator[None]:
    """While this lasts, functions of a module are traced as calls that keep their name, and are taken at the ends of a box.

    Args:
        module: Where the functions are looked up. directions: For each function and each of its outputs, +1 or -1 for the first arguments;
            arguments after those are points.
    """
    originals = {name: getattr(module, name) for name in directions}
    for name, function in originals.items():
        setattr(module, name, functools.wraps(function)(jax.jit(functools.wraps(function)(lambda *xs, f=function: f(*xs)))))
        _whole[name] = directions[name]
    try:
        yield
    finally:
        for name, function in originals.items():
            setattr(module, name, function)


def _directions(name: Any) -> Sequence[tuple[int, ...]] | None:
    return (MONOTONE[name],) if name in MONOTONE else _whole.get(name)


def _monotone(equation: Any, outputs: Sequence[tuple[int, ...]], inputs: list[Interval]) -> list[Interval]:
    """A function with declared directions, at the ends of the box."""
    inner, found = equation.params["jaxpr"], []
    for i, directions in enumerate(outputs):
        if any(not x.is_point for x in inputs[len(directions) :]):
            return interpret(inner.jaxpr, inner.consts, inputs)
        all_of_them = [*directions, *(1 for _ in inputs[len(directions) :])]
        ends = []
        for side in (0, 1):
            at = [point(x[side if d > 0 else 1 - side]) for d, x in zip(all_of_them, inputs, strict=True)]
            ends.append(interpret(inner.jaxpr, inner.consts, at)[i].low)
        found.append(_wide(*ends))
    return found


def _apply(equation: Any, inputs: list[Interval]) -> list[Interval]:
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        directions = _directions(params.get("name"))
        if directions is not None and not all(x.is_point for x in inputs):
            return _monotone(equation, directions, inputs)
        inner = params.get("jaxpr") or params.get("call_jaxpr") or params.get("fun_jaxpr")
        return interpret(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), inputs)
    if name in SAME:
        return [inputs[0]]
    if all(x.is_point for x in inputs):
        return [point(_known(name, params, [x.low for x in inputs]))]
    if name == "mul" and any(_is_one(x) for x in inputs):
        return [inputs[1] if _is_one(inputs[0]) else inputs[0]]
    return [_enclosed(name, equation, inputs)]


def _known(name: str, params: dict[str, Any], xs: list[Any]) -> Any:
    """An operation on numbers, done at once where they are constants, so that factors of one are recognised."""
    if any(isinstance(x, jax.core.Tracer) for x in xs):
        return _exactly(name, params, xs)
    with jax.ensure_compile_time_eval():
        return _exactly(name, params, xs)


def _is_one(x: Interval) -> bool:
    return x.is_point and not isinstance(x.low, jax.core.Tracer) and np.ndim(x.low) == 0 and float(x.low) == 1.0


def _exactly(name: str, params: dict[str, Any], xs: list[Any]) -> Any:
    """An operation on numbers, with the broadcasting of NumPy."""
    plain = {
        "add": jnp.add, "add_any": jnp.add, "sub": jnp.subtract, "mul": jnp.multiply, "div": jnp.divide, "neg": jnp.negative,
        "max": jnp.maximum, "min": jnp.minimum, "pow": jnp.power, "square": jnp.square, "abs": jnp.abs, "lt": jnp.less,
        "le": jnp.less_equal, "gt": jnp.greater, "ge": jnp.greater_equal, "eq": jnp.equal, "ne": jnp.not_equal,
        "and": jnp.logical_and, "or": jnp.logical_or, "not": jnp.logical_not, **RISING,
    }  # fmt: skip
    if name == "integer_pow":
        return xs[0] ** params["y"]
    if name == "select_n":
        return jnp.where(xs[0], xs[2], xs[1])
    if name == "clamp":
        return jnp.minimum(jnp.maximum(xs[1], xs[0]), xs[2])
    if name not in plain:
        raise NotImplementedError(f"{name}: no rule for intervals")
    return plain[name](*xs)


def _enclosed(name: str, equation: Any, xs: list[Interval]) -> Interval:
    repeated = len(xs) == 2 and xs[0] is xs[1]  # one and the same quantity
    if name in ("add", "add_any"):
        return _add(*xs)
    if name == "sub":
        return point(np.float64(0.0)) if repeated else _subtract(*xs)
    if name == "mul":
        return _whole_power(xs[0], 2) if repeated else _multiply(*xs)
    if name == "div":
        return _divide(*xs)
    if name == "neg":
        return _negative(xs[0])
    if name in ("max", "min"):
        f = jnp.maximum if name == "max" else jnp.minimum
        ends = [f(a, b) for a, b in zip(*xs, strict=True)]
        if name == "max":
            return Interval(*ends)
        least = Least(*ends)
        least.terms = tuple(xs)
        return least
    if name in RISING:
        return _wide(RISING[name](xs[0].low), RISING[name](xs[0].high))
    if name == "pow":
        return _corners(jnp.power, *xs)  # of a base that is not negative: monotone in either argument
    if name in ("integer_pow", "square"):
        return _whole_power(xs[0], equation.params.get("y", 2))
    if name in ("lt", "le", "gt", "ge"):
        return _compare(name, *xs)
    if name == "select_n":
        return _select(xs[0], xs[1:])
    if name == "clamp":
        return Interval(*(_exactly("clamp", {}, list(side)) for side in zip(*xs, strict=True)))
    raise NotImplementedError(f"{name}: no rule for intervals")


def interpret(jaxpr: Any, constants: Any, inputs: list[Interval]) -> list[Interval]:
    """Outputs of a jaxpr of scalars on intervals."""
    known: dict[Any, Interval] = {v: point(np.asarray(c)) for v, c in zip(jaxpr.constvars, constants, strict=True)}
    known.update(zip(jaxpr.invars, inputs, strict=True))

    def read(variable: Any) -> Interval:
        return point(np.asarray(variable.val)) if hasattr(variable, "val") else known[variable]

    for equation in jaxpr.eqns:
        results = _apply(equation, [read(v) for v in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def enclose(function: Callable, *arguments: Any) -> Any:
    """Enclosure of ``function(*arguments)``; leaves of the arguments are intervals or numbers, of any shapes that broadcast.

    Args:
        function: Elementwise, in double precision, written for numbers. arguments: Pytrees; a leaf is an ``Interval`` or a number.

    Returns: The function's pytree with an ``Interval`` for each leaf; nan where an operation has no bound.

    Raises:
        NotImplementedError: the function uses an operation without a rule.

    >>> box = enclose(lambda x, y: x * x - y, Interval(-1.0, 2.0), 1.0)
    >>> round(float(box.low), 6), round(float(box.high), 6)
    (-1.0, 3.0)
    """
    leaves, tree = jax.tree.flatten(arguments, is_leaf=is_interval)
    scalars = [np.float64(1.0)] * len(leaves)
    closed, shape = jax.make_jaxpr(lambda *xs: function(*jax.tree.unflatten(tree, xs)), return_shape=True)(*scalars)
    found = interpret(closed.jaxpr, closed.consts, [x if is_interval(x) else point(x) for x in leaves])
    return jax.tree.unflatten(jax.tree.structure(shape), found)
