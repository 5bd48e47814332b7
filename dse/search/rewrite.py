"""The same function with fewer operations on the large axes: its jaxpr, regrouped and cut into two stages before it is compiled.

Chips lie on one axis and layouts on another; only what depends on both costs time. Sums, products and extrema are regrouped so that
members of one axis meet first, a division by something of one axis becomes a multiplication by its reciprocal, and a reciprocal that is
needed twice is taken once. What depends on one axis alone is computed in a first stage: left in one function, XLA would fuse it into the
loop over both and repeat it for every pair. Results differ from the plain function by rounding alone, so this serves screening; what is
reported is evaluated plainly.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dse.types import Number

CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call")
CHAINS = {"add": "add", "add_any": "add", "sub": "add", "mul": "mul", "div": "mul", "max": "max", "min": "min"}
PLAIN: dict[str, Callable[..., Any]] = {
    "mul": jnp.multiply,
    "add": jnp.add,
    "add_any": jnp.add,
    "sub": jnp.subtract,
    "div": jnp.divide,
    "max": jnp.maximum,
    "min": jnp.minimum,
}
Shape = tuple[int, ...]


class Node(NamedTuple):
    """One value of a function: an operation on others, an input (``op`` "in") or a constant ("const")."""

    op: str
    operands: tuple[int, ...]
    shape: Shape
    equation: Any = None
    value: Number = None


class Graph:
    """The values of a function, each written once; a value is its number."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._known: dict[Any, int] = {}

    def put(self, node: Node, more: Any = "") -> int:
        """Number of a node, the earlier one where the same was put before."""
        key = (node.op, node.operands, node.shape, more)
        if key not in self._known:
            self.nodes.append(node)
            self._known[key] = len(self.nodes) - 1
        return self._known[key]

    def constant(self, value: Any) -> int:
        """Number of a constant."""
        array = np.asarray(value)
        return self.put(Node("const", (), array.shape, value=value), (array.dtype.str, array.tobytes()))

    def binary(self, op: str, a: int, b: int) -> int:
        """Number of an operation on two values that broadcast."""
        return self.put(Node(op, (a, b), np.broadcast_shapes(self.nodes[a].shape, self.nodes[b].shape)))

    def walk(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[int]) -> list[int]:
        """Add a jaxpr; calls are opened. Returns the numbers of its outputs."""
        known = dict(zip(jaxpr.constvars, map(self.constant, constants), strict=True))
        known.update(zip(jaxpr.invars, inputs, strict=True))

        def read(v: Any) -> int:
            return self.constant(v.val) if hasattr(v, "val") else known[v]

        for e in jaxpr.eqns:
            operands = tuple(read(v) for v in e.invars)
            if e.primitive.name in CALLS:
                inner = e.params.get("jaxpr") or e.params.get("call_jaxpr") or e.params.get("fun_jaxpr")
                results = self.walk(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)
            elif e.primitive.multiple_results:
                raise NotImplementedError(f"{e.primitive.name}: more than one result")
            else:
                node = Node(e.primitive.name, operands, tuple(e.outvars[0].aval.shape), e)
                more = "" if node.op in PLAIN else str(sorted(e.params.items(), key=str))
                results = [self.put(node, more)]
            known.update(zip(e.outvars, results, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def needed(self, outputs: Iterable[int]) -> list[int]:
        """Values that the outputs need, in an order in which they can be computed."""
        seen, stack = set(outputs), list(outputs)
        while stack:
            operands = [o for o in self.nodes[stack.pop()].operands if o not in seen]
            seen.update(operands)
            stack += operands
        return sorted(seen)


class Regrouping:
    """Copies a graph with sums, products and extrema of its largest shape regrouped."""

    def __init__(self, old: Graph, outputs: Sequence[int], full: Shape) -> None:
        self.old, self.full, self.new = old, full, Graph()
        needed = old.needed(outputs)
        self.uses = Counter([*outputs, *(o for at in needed for o in old.nodes[at].operands)])
        self.divides = Counter(old.nodes[at].operands[1] for at in needed if old.nodes[at].op == "div")
        self.done: dict[int, int] = {}
        for at in needed:
            self.done[at] = self._copied(at)

    def large(self, at: int) -> bool:
        return self.old.nodes[at].shape == self.full

    def _copied(self, at: int) -> int:
        node = self.old.nodes[at]
        if node.op == "const":
            return self.new.constant(node.value)
        if node.op == "in":
            return self.new.put(node, node.value)
        if not self.large(at) or node.op not in CHAINS:
            more = "" if node.op in PLAIN else str(sorted(node.equation.params.items(), key=str))
            return self.new.put(node._replace(operands=tuple(self.done[o] for o in node.operands)), more)
        found: list[tuple[int, bool]] = []
        self._chain(at, CHAINS[node.op], True, found)
        if CHAINS[node.op] in ("max", "min"):
            return self._grouped(CHAINS[node.op], [self.done[o] for o, _ in found])
        return self._sum(found) if CHAINS[node.op] == "add" else self._product(found)

    def _chain(self, at: int, kind: str, sign: bool, found: list[tuple[int, bool]], top: bool = True) -> None:
        """Terms of a sum, factors of a product or members of an extremum; False: subtracted, or divided by."""
        node = self.old.nodes[at]
        if not self.large(at) or CHAINS.get(node.op) != kind or not (top or self.uses[at] == 1):
            found.append((at, sign))
            return
        self._chain(node.operands[0], kind, sign, found, False)
        self._chain(node.operands[1], kind, sign if node.op not in ("sub", "div") else not sign, found, False)

    def _grouped(self, op: str, members: Sequence[int]) -> int:
        """Members of one shape are combined first, then the small results, then the large one."""
        by_shape: dict[Shape, int] = {}
        for at in members:
            shape = self.new.nodes[at].shape
            by_shape[shape] = self.new.binary(op, by_shape[shape], at) if shape in by_shape else at
        order = sorted(by_shape, key=lambda s: (int(np.prod(s)), s))
        return functools.reduce(lambda a, b: self.new.binary(op, a, b), [by_shape[s] for s in order])

    def _is(self, at: int, number: float) -> bool:
        node = self.old.nodes[at]
        return node.op == "const" and node.shape == () and float(node.value) == number

    def _sum(self, found: list[tuple[int, bool]]) -> int:
        plus = [self.done[at] for at, sign in found if sign and not self._is(at, 0.0)]
        minus = [self.done[at] for at, sign in found if not sign and not self._is(at, 0.0)]
        total = self._grouped("add", plus or [self.new.constant(0.0)])
        return self.new.binary("sub", total, self._grouped("add", minus)) if minus else total

    def _product(self, found: list[tuple[int, bool]]) -> int:
        one = self.new.constant(1.0)
        above, below = [], []
        for at, sign in self._squares(found):
            if sign and not self._is(at, 1.0):
                above.append(self.done[at])
            elif not sign and (not self.large(at) or self.divides[at] > 1):
                above.append(self.new.binary("div", one, self.done[at]))
            elif not sign:
                below.append(self.done[at])
        top = self._grouped("mul", above or [one])
        return self.new.binary("div", top, self._grouped("mul", below)) if below else top

    def _squares(self, found: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
        """Factors, with a square root that meets itself replaced by what is under it."""
        out: list[tuple[int, bool]] = []
        for (at, sign), n in Counter(found).items():
            pairs = n // 2 if self.old.nodes[at].op == "sqrt" and self.large(at) else 0
            for _ in range(pairs):
                self._chain(self.old.nodes[at].operands[0], "mul", sign, out, False)
            out += [(at, sign)] * (n - 2 * pairs)
        return out


def _computed(graph: Graph, order: Iterable[int], known: dict[int, Any]) -> dict[int, Any]:
    """Values of a graph, in an order in which they can be computed."""
    for at in order:
        node = graph.nodes[at]
        if at in known:
            continue
        if node.op == "const":
            known[at] = node.value
            continue
        values = [known[o] for o in node.operands]
        if node.op in PLAIN:
            known[at] = PLAIN[node.op](*values)
        else:
            shapes = [graph.nodes[o].shape for o in node.operands]
            same = [v if jnp.shape(v) == s else jnp.broadcast_to(v, s) for v, s in zip(values, shapes, strict=True)]
            known[at] = node.equation.primitive.bind(*same, **node.equation.params)
    return known


@dataclass(frozen=True)
class Stages:
    """A function of pytrees with leaves (), (n, 1) and (1, m), in three parts; all take and give packed arrays."""

    chips: Callable[[Sequence[Any]], tuple[jax.Array, jax.Array]]  # leaves -> what is of no axis (k,), of the first axis (k, n)
    layouts: Callable[[Sequence[Any]], jax.Array]  # leaves -> what is of the second axis (k, m)
    both: Callable[[jax.Array, jax.Array, jax.Array], Any]  # the three -> the function's result


def staged(function: Callable, arguments: Sequence[Any], shape: tuple[int, int], aliases: Mapping[int, int] | None = None) -> Stages:
    """A function, elementwise on arrays that broadcast, regrouped and cut into stages.

    Args:
        function: Its results have the full shape. arguments: Examples (arrays or ``ShapeDtypeStruct``) of its pytrees.
        shape: (n, m), both above 1. aliases: Leaves (by position) that are known to equal another leaf, so that their work is done once.

    >>> x, y = np.array([[2.0], [3.0], [4.0]]), np.array([[4.0, 5.0]])
    >>> s = staged(lambda a, b: (a / b * a - b) / a, (x, y), (3, 2))
    >>> bool(np.allclose(s.both(*s.chips([x, y]), s.layouts([x, y])), (x / y * x - y) / x, rtol=1e-14))
    True
    """
    leaves, tree = jax.tree.flatten(tuple(arguments))
    closed, out = jax.make_jaxpr(lambda *xs: function(*jax.tree.unflatten(tree, xs)), return_shape=True)(*leaves)
    old = Graph()
    same = aliases or {}
    numbers = [old.put(Node("in", (), tuple(leaves[i].shape), value=same.get(i, i)), same.get(i, i)) for i in range(len(leaves))]
    outputs = old.walk(closed.jaxpr, closed.consts, numbers)
    copy = Regrouping(old, outputs, shape)
    graph, results = copy.new, [copy.done[at] for at in outputs]
    inputs = {at: node.value for at, node in enumerate(graph.nodes) if node.op == "in"}
    needed = graph.needed(results)
    full = [at for at in needed if graph.nodes[at].shape == shape]
    border = sorted({o for at in full for o in graph.nodes[at].operands if graph.nodes[o].shape != shape and graph.nodes[o].op != "const"})
    parts = {s: [at for at in border if graph.nodes[at].shape == s] for s in ((), (shape[0], 1), (1, shape[1]))}
    if sum(map(len, parts.values())) < len(border) or any(graph.nodes[at].op == "in" for at in full):
        raise NotImplementedError("a value that is of neither axis nor of both")

    def packed(which: list[int], known: dict[int, Any]) -> jax.Array:
        found = _computed(graph, graph.needed(which), known)
        return jnp.stack([jnp.ravel(found[at]) for at in which]) if which else jnp.zeros((0, 1))

    def chips(xs: Sequence[Any]) -> tuple[jax.Array, jax.Array]:
        known = {at: xs[i] for at, i in inputs.items()}
        return packed(parts[()], known)[:, 0], packed(parts[shape[0], 1], known)

    def layouts(xs: Sequence[Any]) -> jax.Array:
        return packed(parts[1, shape[1]], {at: xs[i] for at, i in inputs.items()})

    def both(scalars: jax.Array, rows: jax.Array, columns: jax.Array) -> Any:
        known: dict[int, Any] = {at: scalars[i] for i, at in enumerate(parts[()])}
        known |= {at: rows[i][:, None] for i, at in enumerate(parts[shape[0], 1])}
        known |= {at: columns[i][None, :] for i, at in enumerate(parts[1, shape[1]])}
        known = _computed(
            graph, [at for at in needed if at in known or graph.nodes[at].shape == shape or graph.nodes[at].op == "const"], known
        )
        return jax.tree.unflatten(jax.tree.structure(out), [known[at] for at in results])

    return Stages(chips, layouts, both)
