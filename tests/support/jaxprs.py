"""Reading the programs that jax makes of functions."""

from collections.abc import Iterator

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def equations(jaxpr: ClosedJaxpr | Jaxpr) -> Iterator[JaxprEqn]:
    """All equations of `jaxpr` and of every jaxpr inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            if isinstance(value, ClosedJaxpr | Jaxpr):
                yield from equations(value)


def products(jaxpr: ClosedJaxpr | Jaxpr) -> list[JaxprEqn]:
    """Its matrix products."""
    return [each for each in equations(jaxpr) if each.primitive.name == "dot_general"]
