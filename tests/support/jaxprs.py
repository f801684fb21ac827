"""Reading the programs that jax makes of functions."""

from collections.abc import Iterator

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def equations(jaxpr: ClosedJaxpr | Jaxpr, used_alone: bool = False) -> Iterator[JaxprEqn]:
    """All equations of `jaxpr` and of every jaxpr inside it.

    used_alone: but for those whose results nobody reads: jax 0.10 keeps such calls of kernels, and
                XLA drops them
    """
    read = {id(variable) for equation in jaxpr.eqns for variable in equation.invars}
    read |= {id(variable) for variable in (getattr(jaxpr, "jaxpr", jaxpr)).outvars}
    for equation in jaxpr.eqns:
        if used_alone and read.isdisjoint(map(id, equation.outvars)):
            continue
        yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            if isinstance(value, ClosedJaxpr | Jaxpr):
                yield from equations(value, used_alone)


def products(jaxpr: ClosedJaxpr | Jaxpr) -> list[JaxprEqn]:
    """Its matrix products."""
    return [each for each in equations(jaxpr) if each.primitive.name == "dot_general"]
