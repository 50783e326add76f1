"""A training recipe: one frozen dataclass that is the YAML's schema, the command line's keys and the record.

Values are checked against the field types here, not by a parser library, because a recipe's mistake has to
come out as one line that names file, key, what was found and what was expected, also inside `config`
(the system's own dataclass) and `stages` (fields of `Stage`).
"""

from __future__ import annotations

import copy
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from handgraph.errors import ConfigError
from handgraph.schedule import Stage

T = TypeVar("T")


@dataclass(frozen=True)
class DataRecipe:
    """Where the training samples come from."""

    name: str = "synthetic_depth"
    """`synthetic_depth`, or a data set known to `handgraph datasets`."""
    root: str | None = None
    """The data set's folder; synthetic data needs none."""
    split: str = "train"
    validation_split: str = "validation"
    seed: int = 0
    """Chooses the synthetic stream, the order of an epoch and the augmentation."""
    samples: int | None = None
    """Length of an epoch of an endless synthetic stream, in images."""
    limit: int | None = None
    """Use only the first so many samples, again and again, to see whether a system can overfit them."""
    options: dict[str, Any] = field(default_factory=dict)
    """Passed to the data's own constructor: crop, augmentation, noise."""
    threads: int = 2
    """Threads that prepare batches."""
    ahead: int = 8
    """Batches prepared ahead of the training step; the bound of the queue."""
    burst: bool = False
    """Prepare `ahead` batches with all threads, then train on them, instead of doing both at once.
    Faster where loader and training share a few CPU cores; the order of the samples is the same."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run, apart from the machine it runs on."""

    system: str
    """Name of the system to train."""
    config: dict[str, Any] = field(default_factory=dict)
    """Fields of the system's `Config`."""
    data: DataRecipe = field(default_factory=DataRecipe)
    weights: str | None = None
    """A checkpoint of the same architecture to start from, instead of fresh weights."""
    stages: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """By stage name, the fields of the system's own `Stage` to replace, or `null` to leave the stage out.
    `steps` may stand for `epochs`, and wins where both are given."""
    batch_size: int | None = None
    """Replaces every stage's: samples in a step over all processes together. The learning rate belongs to
    this total and is never rescaled."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    gradient_clip: float = 0.0
    """Largest norm of the whole gradient; 0 leaves it alone."""
    ema: float = 0.0
    """Decay of the running mean of the weights, which is then what is validated and kept; 0 is off."""
    seed: int = 0
    """Initial weights and whatever is random in the network."""
    validate_every: int = 1000
    """Steps between validations; there is one at the end of every stage too."""
    validation_samples: int = 512
    checkpoint_seconds: float = 120.0
    """Time between checkpoints. Does not influence the result."""
    log_every: int = 50
    """Steps between lines of `log.jsonl`."""

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("batch_size", self.batch_size is None or self.batch_size > 0, "more than 0"),
            ("gradient_clip", self.gradient_clip >= 0, "0 or more"),
            ("ema", 0 <= self.ema < 1, "a decay in [0, 1)"),
            ("seed", self.seed >= 0, "0 or more"),
            ("validate_every", self.validate_every > 0, "more than 0"),
            ("validation_samples", self.validation_samples > 0, "more than 0"),
            ("log_every", self.log_every > 0, "more than 0"),
            ("data.seed", self.data.seed >= 0, "0 or more"),
            ("data.samples", self.data.samples is None or self.data.samples > 0, "more than 0"),
            ("data.limit", self.data.limit is None or self.data.limit > 0, "more than 0"),
            ("data.threads", self.data.threads > 0, "more than 0"),
            ("data.ahead", self.data.ahead > 0, "more than 0"),
        ):
            if not good:
                value: Any = self
                for part in name.split("."):
                    value = getattr(value, part)
                raise ConfigError(f"{name} is {value!r}, expected {expected}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `load_recipe` reads them back from YAML."""
        return asdict(self)


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = files("handgraph.training") / "recipes"
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, or a shipped one by name, and apply `key.sub=value` overrides (values are YAML).

    Raises ConfigError, in one line, for a missing or malformed file, an unknown key or a wrong type; it names
    the override where that is what is wrong.
    """
    path = Path(path_or_name)
    if path.is_file():
        source, text = path.name, _read(path)
    elif str(path_or_name).removesuffix(".yaml") in shipped_recipes():
        source = str(path_or_name).removesuffix(".yaml") + ".yaml"
        text = (files("handgraph.training") / "recipes" / source).read_text(encoding="utf-8")
    else:
        shipped = _hint(str(path_or_name), shipped_recipes())
        raise ConfigError(f"{path_or_name}: no such recipe file, and none of the shipped recipes {shipped}")
    values = _parse_yaml(text, source)
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: found {_describe(values)}, expected a mapping of recipe keys")
    overridden = copy.deepcopy(values)
    for override in overrides:
        _override(overridden, override)
    try:
        return build(Recipe, overridden, source)
    except ConfigError:
        _blame(values, overrides, source)
        raise


def _blame(values: dict[str, Any], overrides: Sequence[str], source: str) -> None:
    """Raises ConfigError in the name of the override, if any, that turns a good recipe into a bad one."""
    try:
        build(Recipe, values, source)
        for override in overrides:
            source = f"override {override!r}"
            _override(values, override)
            build(Recipe, values, source)
    except ConfigError as error:
        if source.startswith("override "):
            raise error from None


def build(kind: type[T], values: Mapping[str, Any], source: str, at: str = "") -> T:
    """Make the dataclass `kind` from plain values, checking every key and type.

    `source` and `at` (the key path down to `values`) begin the message of the ConfigError.
    """
    try:
        return kind(**checked(kind, values, source, at))
    except ConfigError as error:
        message = str(error)
        raise ConfigError(message if message.startswith(source) else f"{source}: {message}") from None
    except (TypeError, ValueError) as error:  # what a dataclass says in its own __post_init__
        raise ConfigError(f"{source}: {at or kind.__name__}: {_one_line(error)}") from None


def checked(kind: type, values: Mapping[str, Any], source: str, at: str = "") -> dict[str, Any]:
    """The values converted to the field types of the dataclass `kind`. Raises ConfigError for a fault."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: {at} is {_describe(values)}, expected a mapping")
    hints, known = get_type_hints(kind), {entry.name: entry for entry in fields(kind) if entry.init}
    prefix = f"{at}." if at else ""
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{source}: unknown key {prefix}{key}, expected one of {_hint(str(key), known)}"
            )
    missing = [
        name
        for name, entry in known.items()
        if name not in values and entry.default is MISSING and entry.default_factory is MISSING
    ]
    if missing and kind is not Stage:  # of a stage a recipe gives only what it replaces
        raise ConfigError(f"{source}: {prefix}{missing[0]} is missing")
    return {key: _convert(hints[key], value, source, prefix + key) for key, value in values.items()}


def stages_of(
    recipe: Recipe, stages: Sequence[Stage], samples: int, source: str = "recipe"
) -> list[tuple[Stage, int]]:
    """The system's stages with the recipe's changes, each with its number of optimiser steps.

    `samples` is the length of an epoch. Raises ConfigError for a stage or field that does not exist.
    """
    names = [stage.name for stage in stages]
    for name in recipe.stages:
        if name not in names:
            raise ConfigError(f"{source}: unknown stage stages.{name}, expected one of {_hint(name, names)}")
    planned = []
    for stage in stages:
        changes = recipe.stages.get(stage.name, {})
        if changes is None:
            continue
        changes = dict(changes)
        at = f"stages.{stage.name}"
        steps = changes.pop("steps", None)
        if steps is not None:
            steps = _convert(int, steps, source, f"{at}.steps")
            if steps < 1:
                raise ConfigError(f"{source}: {at}.steps is {steps}, expected a positive number")
        changes = checked(Stage, changes, source, at)
        if recipe.batch_size is not None:
            changes.setdefault("batch_size", recipe.batch_size)
        if steps is not None:
            changes["epochs"] = steps * changes.get("batch_size", stage.batch_size) / samples
        try:
            stage = replace(stage, **changes)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
        planned.append((stage, steps or max(1, round(stage.epochs * samples / stage.batch_size))))
    if not planned:
        raise ConfigError(f"{source}: no stage is left to train")
    return planned


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name}: cannot be read as UTF-8 text ({_one_line(error)})") from None


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or _one_line(error)
        raise ConfigError(f"{source}: not valid YAML{line}: {problem}") from None


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: expected key=value, as in data.seed=1")
    *parents, last = key.split(".")
    inner = values
    for depth, parent in enumerate(parents, 1):
        if inner.get(parent) is None:
            inner[parent] = {}
        inner = inner[parent]
        if not isinstance(inner, dict):
            raise ConfigError(
                f"override {override!r}: {'.'.join(parents[:depth])} is {inner!r} and has no keys"
            )
    inner[last] = _parse_yaml(text, f"override {override!r}")


def _convert(kind: Any, value: Any, source: str, key: str) -> Any:
    """`value` as the annotated type `kind`, or a ConfigError that says what was expected."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind) and isinstance(kind, type):
        return build(kind, value, source, key)
    if origin is Literal:
        if value in arguments:
            return value
    elif origin in (Union, types.UnionType):
        for choice in arguments:
            try:
                return _convert(choice, value, source, key)
            except ConfigError:
                continue
    elif origin is tuple:
        if isinstance(value, list | tuple):
            inner = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
            if len(inner) == len(value):
                return tuple(_convert(t, v, source, key) for t, v in zip(inner, value, strict=True))
    elif origin is list:
        if isinstance(value, list):
            return [_convert(arguments[0], entry, source, key) for entry in value]
    elif origin is not None and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return {
                _convert(arguments[0], name, source, key): _convert(
                    arguments[1], entry, source, f"{key}.{name}"
                )
                for name, entry in value.items()
            }
    elif kind is type(None):
        if value is None:
            return None
    elif kind is float and not isinstance(value, bool):
        try:  # YAML reads 2e-3, without a dot, as text
            return float(value)
        except (TypeError, ValueError):
            pass
    elif isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{source}: {key} is {_describe(value)}, expected {_type_name(kind)}")


def _type_name(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(choice) for choice in arguments)
    if origin is tuple:
        return "a list of " + ", ".join(_type_name(t) if t is not Ellipsis else "..." for t in arguments)
    if origin is not None and issubclass(origin, Mapping):
        return "a mapping"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _describe(value: Any) -> str:
    """A value found, with its kind in the words of `_type_name`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    kind = {int: "number", float: "number", str: "text", dict: "mapping"}.get(
        type(value), type(value).__name__
    )
    return f"the {kind} {_one_line(repr(value))[:60]}"


def _hint(found: str, known: Iterable[str]) -> str:
    names = list(known)
    close = get_close_matches(found, names, n=2)
    return ", ".join(names) + (f" (did you mean {' or '.join(close)}?)" if close else "")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
