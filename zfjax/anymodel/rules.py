"""The deconvnet of any JAX model: its program is traced, and every rectifier in it gets another way back.

With `incoming` what comes down at a rectifier and `x` what it read on the way up, it hands further down

    "deconvnet"               relu(incoming)             Zeiler & Fergus 2013, sec. 2.1
    "guided"                  relu(incoming) * (x > 0)   Springenberg et al. 2014
    "gradient"                the program's own derivative
    a function of your own    function(incoming, x)

It does not matter how a rectifier is written (`rectifiers`) or where it stands: in jit, remat, scan, cond, or in a
function with a derivative of its own. An operation gets the rule, or keeps its derivative as pools and norms do, only
where the program leaves no doubt (`verdicts`, `norms`); all else that is not linear is an error, rather than a picture
that is wrong. Where the derivative that an operation keeps is not finite, it passes nothing: no NaN leaves that the
results do not have. The upper bound of relu6 keeps its derivative. A norm that the model marks with
`skipped_on_the_way_down`, as this library's contrast norm is, becomes the identity under "deconvnet" and under
functions of your own; the other two are derivatives and do not skip.

`explain_rules` lists every operation that is not linear in the program's input, and what the way back does there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from zfjax.anymodel.choices import Choices, OnUnknown, checked_in, choices_of, chosen
from zfjax.anymodel.divisors import warn_of_small_divisors
from zfjax.anymodel.finite import poles_of
from zfjax.anymodel.graph import Graph, Node, graph_of, is_inexact, module_of
from zfjax.anymodel.interpreter import Backward, evaluate, plan_of
from zfjax.anymodel.mixing import check_alone
from zfjax.anymodel.names import features_of
from zfjax.anymodel.tracing import source_line, traced
from zfjax.anymodel.verdicts import STEP, Facts, Verdict, classify, facts_of, is_activation
from zfjax.deconvnet import rectify
from zfjax.errors import UserError, saying_keywords
from zfjax.ops import KEPT, SKIPPED
from zfjax.units import Index, Seed, Unit, as_unit, by_layer, check_seed, isolate, of_layers, one_layer

Rule = Literal["deconvnet", "guided", "gradient"] | Backward
OnMixing = Literal["error", "keep"]
Function = TypeVar("Function", bound=Callable[..., Any])


@saying_keywords
def with_relu_rule(fn: Callable[..., Any], rule: Rule, *, on_unknown: OnUnknown = "error") -> Callable[..., Any]:
    """`fn` with bit-identical results and another backward rule at its rectifiers.

    Every argument counts as input; bind parameters inside, as in `with_relu_rule(lambda images: model.apply(params,
    images), "deconvnet")`. Only floating arguments have a derivative, as for `jax.vjp`. The function works under jit,
    vmap, grad and vjp, but not jvp, because a rule need not be linear. Outside jit it is traced at every call, so put
    `jax.jit` around frequent calls. `fn` must work under jit; bind arguments that are not arrays with
    `functools.partial`.

    Args:
      fn: function of arrays, or of trees of arrays.
      rule: "deconvnet", "guided", "gradient" or a function (incoming, x) -> outgoing, all of the shape of x.
      on_unknown: for a non-linear operation that no rule covers: "error", or "keep" its gradient; or a mapping by name
        or module path, `{"*/se/*": "keep", "gelu": zfjax.as_relu}`, to "keep", "gradient" (the same), "error", or a
        rule (incoming, x) -> outgoing, of which some are ready. See `zfjax.anymodel.choices` for patterns. A pattern
        that fits nothing is an error. Under the rule "gradient" every operation keeps its own gradient.

    Returns:
      A function of the same arguments. It raises UserError for operations that no rule covers, naming their lines,
      and for a marked region that does not take one array to one of its shape.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> model = lambda x: jax.nn.relu(x)
      >>> x, incoming = jnp.array([1.0, -1.0, 1.0]), jnp.array([2.0, 2.0, -2.0])
      >>> jax.vjp(zfjax.with_relu_rule(model, "deconvnet"), x)[1](incoming)[0]  # relu(incoming), wherever x is
      Array([2., 2., 0.], dtype=float32)
      >>> jax.vjp(model, x)[1](incoming)[0]
      Array([ 2.,  0., -2.], dtype=float32)
    """
    return _ruled(fn, rule, on_unknown=on_unknown, on_mixing="keep")


def _ruled(
    fn: Callable[..., Any], rule: Rule, *, on_unknown: OnUnknown | Choices, on_mixing: OnMixing
) -> Callable[..., Any]:
    """`with_relu_rule`; with `on_mixing` "error" the one argument is a batch of images."""
    if not callable(rule) and rule not in _BACKWARD:
        raise UserError(f"rule={rule!r}: one of {', '.join(map(repr, _BACKWARD))} or a function is needed")
    if on_mixing not in ("error", "keep"):
        raise UserError(f"on_mixing={on_mixing!r}: one of 'error', 'keep' is needed")
    choices = choices_of(on_unknown)
    backward = rule if callable(rule) else _BACKWARD[rule]

    @wraps(fn, updated=())
    def ruled(*args: Any, **kwargs: Any) -> Any:
        program, shapes = traced(fn, args, kwargs)
        if on_mixing == "error":
            check_alone(program, retraced=lambda images: traced(fn, (images,), kwargs)[0])
        graph = graph_of(program, opaque=choices.is_whole)
        facts = facts_of(graph)
        verdicts = chosen(verdicts_of(graph, facts), graph, flow=facts.flow, choices=choices)
        _check(verdicts, choices.otherwise if backward else "keep", num_inputs=len(program.in_avals))
        changed = _CHANGED["deconvnet"] if callable(rule) else _CHANGED[rule]
        changes = {v.place: v.change for _, v in verdicts if v.change and v.rule in changed}
        plan = plan_of({**poles_of(program, graph, flow=facts.derived, changes=changes), **changes})
        leaves = jax.tree.leaves((args, kwargs))
        results = evaluate(program.jaxpr, program.consts, leaves, plan=plan, backward=backward)
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return ruled


def explain_rules(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Report:
    """Every non-linear operation of `fn`, with its source line and what `with_relu_rule` does there.

    Args:
      fn: as for `with_relu_rule`.
      *args: its arguments.
      **kwargs: its keyword arguments.

    Returns:
      A tuple of `Operation`s in the order of the program, including unclassified ones; it prints as a table. UserError
      if no argument is floating.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> report = zfjax.explain_rules(lambda x: jnp.tanh(jax.nn.relu(x @ jnp.ones((3, 2)))), jnp.ones((1, 3)))
      >>> [(line.operation, line.rule) for line in report]
      [('max in relu', 'rectifier'), ('tanh', 'unclassified')]
    """
    leaves = jax.tree.leaves((args, kwargs))
    if not any(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves):
        types = ", ".join(str(jnp.result_type(leaf)) for leaf in leaves)
        raise UserError(f"arguments of type {types}: a floating one, in which the function can be linear, is needed")
    program, _ = traced(fn, args, kwargs)
    graph = graph_of(program, opaque=is_activation)
    return report_of(verdicts_of(graph, facts_of(graph)))


@saying_keywords
def project_fn(
    fn: Callable[[jax.Array], Any],
    images: jax.Array,
    *,
    unit: Unit | Index,
    layer: str | None = None,
    rule: Rule = "deconvnet",
    on_unknown: OnUnknown = "error",
    seed: Seed = "value",
    on_mixing: OnMixing = "error",
) -> jax.Array:
    """Project one activation of any model to its images: `isolate`, then the backward pass under `rule` (sec. 2.1).

    It starts from the value of the activation, as `project` does, and for this library's networks equals `project`;
    with `seed="one"` it starts from 1, as Captum does. Under jit, with `fn` and a constant `unit` closed over, it is
    compiled once for each shape of `images`. Outside jit a projection that is not finite, although the activation is,
    raises a UserError, and one that is huge because a norm divides by nearly 0 warns. jit can do neither: check the
    result with `jnp.isfinite`, and call the function once outside jit.

    Args:
      fn: images -> features [B, H, W, C] or [B, C], with the parameters bound inside; or {layer: features}, of which
        the unit or `layer` names one. If `layer` is a path inside it, the output may be anything.
      images: float [B, ...], the input of the model.
      unit: `Unit(channel, position, layer)`, or a list of them; a channel alone means its strongest activation in each
        image. Its layer is an alternative to `layer`; without either, `fn` must return one array.
      layer: a key of the output of `fn`, or the path of a module inside it, one of `zfjax.layers(fn, images)`: the unit
        is in the output of that module, channels last, and nothing above it is run.
      rule, on_unknown: as for `with_relu_rule`.
      seed: "value" or "one", as for `isolate`; "value" warns of a negative activation, outside jit.
      on_mixing: "error" refuses a model whose images influence each other, as with batch norm in training mode, or may
        do so inside a while loop or a callback; "keep" allows it.

    Returns:
      Array of the shape of `images`, signed; for N units of one image [N, ...].

    Raises:
      UserError: an operation that no rule covers, with its source line; images or features of another kind; a layer
        that `fn` does not have; a unit that does not exist.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> weights = jnp.array([[1.0, -1.0], [2.0, 0.0], [3.0, 5.0]])
      >>> def model(images):
      ...     return {"hidden": jax.nn.relu(images @ weights), "input": images}
      >>> images = jnp.array([[1.0, 1.0, 1.0]])
      >>> zfjax.project_fn(model, images, unit=zfjax.Unit(1, layer="hidden"))  # 4, its value, times its weights
      Array([[-4.,  0., 20.]], dtype=float32)
      >>> zfjax.project_fn(model, images, unit=zfjax.Unit(jnp.array([0, 1]), layer="hidden"))  # two units of one image
      Array([[ 6., 12., 18.],
             [-4.,  0., 20.]], dtype=float32)
    """
    check_seed(seed)
    if by_layer(unit):

        def of_one_layer(units: Any, rows: Any) -> jax.Array:
            own = images if rows is None else images[rows]
            options: dict[str, Any] = {"layer": layer, "on_unknown": on_unknown, "on_mixing": on_mixing}
            return project_fn(fn, own, unit=units, rule=rule, seed=seed, **options)

        together: jax.Array = of_layers(unit, len(images), of_one_layer)
        return together
    options: dict[str, Any] = {"layer": layer, "rule": rule, "on_unknown": on_unknown, "on_mixing": on_mixing}
    pixels, top = projected_from(fn, images, unit=unit, from_one=seed == "one", **options)
    _check_numbers(pixels, top, rule)
    inner = layer or as_unit(unit).layer
    looked = fn if inner is None else partial(_inside, fn, inner)
    warn_of_small_divisors(looked, images, pixels=pixels, top=top)
    return pixels


def _check_numbers(pixels: jax.Array, top: jax.Array, rule: Rule) -> None:
    """UserError, outside jit, for a picture that is no number though it starts from one."""
    if isinstance(pixels, jax.core.Tracer) or isinstance(top, jax.core.Tracer):
        return
    if not bool(jnp.isfinite(pixels).all()) and bool(jnp.isfinite(top).all()):
        raise UserError(
            f"the picture holds NaN or infinity, though it starts from numbers: under rule={rule!r} an operation of fn "
            "makes them on the way down, or the model on its way up to what nothing then reads; "
            "jax.config.update('jax_debug_nans', True) names its line"
        )


def projected_from(
    fn: Callable[[jax.Array], Any],
    images: jax.Array,
    *,
    unit: Unit | Index,
    layer: str | None = None,
    rule: Rule,
    on_unknown: OnUnknown,
    on_mixing: OnMixing,
    from_one: bool | jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """(`project_fn`'s pictures, the features that they start from, zero but for the unit); `from_one` may be traced."""
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"images of type {images.dtype}: floating point, as the model reads them, is needed")
    unit = as_unit(unit)
    layer = one_layer(unit, layer)
    looked: Callable[[jax.Array], Any] = fn
    choices = choices_of(on_unknown)
    if layer is not None:
        looked = partial(_inside, fn, layer)
        choices = checked_in(traced(fn, (images,), {})[0], choices) if choices.patterns else choices
    features, down = jax.vjp(_ruled(looked, rule, on_unknown=choices, on_mixing=on_mixing), images)
    if not isinstance(features, jax.Array) or not jnp.issubdtype(features.dtype, jnp.floating):
        given = getattr(features, "dtype", jax.tree.structure(features))
        raise UserError(f"fn returns {given}: one floating array of features is needed")
    if features.ndim and len(features) != len(images):
        raise UserError(f"fn returns {features.shape} for images of {images.shape}: features of each image are needed")
    if isinstance(from_one, bool):
        top = isolate(features, unit, seed="one" if from_one else "value")
    else:
        top = jnp.where(from_one, isolate(features, unit, seed="one"), isolate(features, unit))
    if len(top) == len(images):
        (pixels,) = down(top)
        return pixels, top
    return jax.vmap(lambda one: down(one[None])[0][0])(top), top  # the units of one image


def _inside(fn: Callable[[jax.Array], Any], layer: str, images: jax.Array) -> Any:
    return features_of(fn, [layer], images)[layer]


def skipped_on_the_way_down(function: Function) -> Function:
    """The same function, whose backward pass under the deconvnet's rule is the identity; for contrast norms.

    The deconvnet skips contrast normalisation: the signal at its output is passed to its input unchanged. The function
    must map one array that depends on the input to one array of the same shape. The mark is a `jax.named_scope`; it
    does not change the forward program, and works in modules of every framework.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> norm = zfjax.skipped_on_the_way_down(lambda maps: maps / (1 + maps.mean(axis=-1, keepdims=True)))
      >>> fn = lambda images: jax.nn.relu(norm(images @ jnp.ones((3, 4))))
      >>> [line.rule for line in zfjax.explain_rules(fn, jnp.ones((1, 2, 2, 3)))]
      ['skipped', 'rectifier']
    """
    return _in_scope(SKIPPED, function)


def kept_on_the_way_down(function: Function) -> Function:
    """The same function, all of whose operations keep their own gradient under `with_relu_rule`.

    For activations other than ReLU, or a hand-written norm (all of it, including the division).

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> fn = lambda images: zfjax.kept_on_the_way_down(jax.nn.silu)(images @ jnp.ones((3, 4)))
      >>> zfjax.project_fn(fn, jnp.ones((1, 2, 2, 3)), unit=1).shape
      (1, 2, 2, 3)
    """
    return _in_scope(KEPT, function)


_BACKWARD: dict[str, Backward | None] = {
    "deconvnet": lambda incoming, x: rectify(incoming),
    "guided": lambda incoming, x: jnp.where(x > 0, rectify(incoming), jnp.zeros((), incoming.dtype)),
    "gradient": None,
}

_CHANGED = {  # what leaves its gradient
    "deconvnet": ("rectifier", "given rule", "skipped"),
    "guided": ("rectifier", "given rule"),
    "gradient": (),
}
_NUMBERS = itertools.count()


def _in_scope(name: str, function: Function) -> Function:
    @wraps(function, updated=())
    def marked(*args: Any, **kwargs: Any) -> Any:
        with jax.named_scope(f"{name}-{next(_NUMBERS)}"):  # calls one after the other are regions of their own
            return function(*args, **kwargs)

    return marked  # type: ignore[return-value]


def _check(verdicts: list[tuple[Node, Verdict]], on_unknown: str, *, num_inputs: int) -> None:
    """UserError for what cannot be obeyed, or is not known."""
    unknown = [(node, verdict) for node, verdict in verdicts if verdict.rule == "unclassified"]
    unmarked = [pair for pair in unknown if pair[0].name != SKIPPED]
    if len(unmarked) < len(unknown):
        raise UserError(f"fn cannot be followed\n{_listed([pair for pair in unknown if pair[0].name == SKIPPED])}")
    if unmarked and on_unknown == "error":
        raise NoRule(
            report_of(unmarked),
            f"on_unknown='error': no rule covers\n{_listed(unmarked)}\nWrite them as rectifiers, mark their function "
            "with kept_on_the_way_down, say by name or module path what becomes of them, as in "
            "on_unknown={'*/se/*': 'keep', 'gelu': zfjax.as_relu}, or let all of them keep their own gradient "
            "with on_unknown='keep'" + (_ARGUMENTS if num_inputs > 1 else ""),
        )


_ARGUMENTS = ". Every argument counts as input: what is none, such as parameters, belongs inside fn"


def _listed(verdicts: list[tuple[Node, Verdict]]) -> str:
    report = report_of(verdicts)
    groups = {_kind(one): (one, number) for one, number in report.groups()}
    lines = dict.fromkeys(groups[_kind(one)] if groups[_kind(one)][1] > _FEW else (one, 1) for one in report)
    return "\n".join(
        f"  {f'{one.module}: ' * bool(one.module)}{one.operation} {one.shape} at {one.source}: {one.reason}"
        + f" (×{number})" * (number > 1)
        for one, number in lines
    )


_FEW = 4  # operations of one kind that are listed one by one


class Operation(NamedTuple):
    """One operation and its backward rule.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> (line,) = zfjax.explain_rules(lambda images: jax.nn.relu(images - 1), jnp.ones((1, 2, 2, 3)))
      >>> line.operation, line.rule, line.shape
      ('max in relu', 'rectifier', 'float32[1,2,2,3]')
    """

    module: str  # the path of the module that it stands in, as in `zfjax.layers`; "" outside all
    operation: str  # the primitive, and the function that it stands in
    shape: str  # type and shape of what it gives, "float32[2,12,12,8]"
    source: str  # "file:line"
    rule: str  # "rectifier" for the rule itself, "given rule", "own gradient", "skipped", "inlined" or "unclassified"
    reason: str


class NoRule(UserError):
    """Operations that no rule covers, where `on_unknown` makes that an error."""

    def __init__(self, operations: Report, message: str) -> None:
        super().__init__(message)
        self.operations = operations


class Report(tuple[Operation, ...]):
    """The operations in the order of the program; prints as a table, with those alike in one line.

    Examples:
      >>> import jax, jax.numpy as jnp, zfjax
      >>> report = zfjax.explain_rules(lambda images: jax.nn.relu(images - 1), jnp.ones((1, 2, 2, 3)))
      >>> len(report), report[0].rule
      (1, 'rectifier')
    """

    def __str__(self) -> str:
        groups = self.groups()
        header = [name for name in Operation._fields if name != "module" or any(one.module for one, _ in groups)]
        lines = [header, *([getattr(one, name) for name in header] for one, _ in groups)]
        if len(groups) < len(self):
            counts = ["", *(f"×{number}" * (number > 1) for _, number in groups)]
            lines = [[count, *line] for count, line in zip(counts, lines, strict=True)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def groups(self) -> list[tuple[Operation, int]]:
        """(operation, how many of its kind): those that differ in module or shape alone are one, with * for those."""
        kinds: dict[tuple[str, ...], list[Operation]] = {}
        for one in self:
            kinds.setdefault(_kind(one), []).append(one)
        return [
            (
                some[0]._replace(module=_pattern([one.module for one in some], "/"), shape=_shapes(some)),
                len(some),
            )
            for some in kinds.values()
        ]


def _kind(one: Operation) -> tuple[str, ...]:
    return one.operation, one.source, one.rule, one.reason


def _pattern(words: Sequence[str], separator: str) -> str:
    """What words of one kind have in common, "Net/*/relu" or "Net/*"; they match it as file names would."""
    parts = [word.split(separator) for word in dict.fromkeys(words)]
    if len({len(part) for part in parts}) > 1:
        shared = [same[0] for same in itertools.takewhile(lambda some: len(set(some)) == 1, zip(*parts, strict=False))]
        return separator.join([*shared, "*"])
    return separator.join(part[0] if len(set(part)) == 1 else "*" for part in zip(*parts, strict=True))


def _shapes(some: Sequence[Operation]) -> str:
    kinds, sizes = zip(*(one.shape.rstrip("]").split("[") for one in some), strict=True)
    return f"{_pattern(kinds, '/')}[{_pattern(sizes, ',')}]"


def verdicts_of(graph: Graph, facts: Facts) -> list[tuple[Node, Verdict]]:
    """Every operation that is not linear in the input, and every function with a derivative of its own."""
    flow = facts.flow
    verdicts: dict[object, tuple[Node, Verdict]] = {}
    for node in graph.nodes:
        verdict = classify(node, facts) if flow.passes(node) else None
        if verdict is not None:
            verdicts.setdefault(
                (node.place, verdict.rule), (node, verdict)
            )  # the results of one cond are one operation
    steps = [step for v in graph.outputs if is_inexact(v) and flow.is_mask(v) for step in flow.steps_behind(v)]
    verdicts.update({step.place: (step, STEP) for step in steps})
    touched = [verdict.place for _, verdict in verdicts.values() if verdict.change is not None]
    custom = []
    for node in graph.custom:
        if flow.passes(node) and not node.calls[-1].by_jax:  # of JAX's own it goes without saying
            inlined = any(place[: len(node.place)] == node.place for place in touched)
            custom.append((node, _INLINED if inlined else _UNTOUCHED))
    return sorted([*verdicts.values(), *custom], key=lambda pair: pair[0].place)


_INLINED = Verdict("inlined", "its own derivative gives way to the rules of what it computes")
_UNTOUCHED = Verdict("own gradient", "its own derivative: nothing in it follows the rule")


def report_of(verdicts: Iterable[tuple[Node, Verdict]]) -> Report:
    """The verdicts as lines for a person."""
    return Report(
        Operation(
            module_of(node), _operation(node), _shape(node), source_line(node.sources), verdict.rule, verdict.reason
        )
        for node, verdict in verdicts
    )


def _operation(node: Node) -> str:
    call = next((call.name for call in reversed(node.calls) if call.name.isidentifier()), None)
    return node.name if call in (None, node.name) else f"{node.name} in {call}"


def _shape(node: Node) -> str:
    aval = ([value for value in node.outputs if is_inexact(value)] or node.outputs)[-1].aval
    return f"{aval.dtype}[{','.join(map(str, aval.shape))}]"
