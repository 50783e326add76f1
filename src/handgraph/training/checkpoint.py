"""One file format for shipped weights and training checkpoints: a safetensors file that explains itself.

The header's metadata entry `handgraph` is a JSON document (format version, system, config, units, how it was
trained), so that a file can be loaded without being told what it is. Tensors carry the module's own names.
A training checkpoint is the same file with further tensors under `training/` (optimiser state, and the raw
weights where the plain names hold their running mean) and a `training` entry in the JSON; whoever only wants
to predict never reads those. Nothing in it is executed when read.

Shipped systems that look through the same keypoint network do not each carry it: an entry `parts` names,
for a prefix of their tensors' names, the weights file beside them that has those tensors, under which prefix,
and their digest, so that a file never meets another network than it was trained with.

A file is written beside its place, flushed to disk and renamed, so that a reader sees the old one or the new
one and never a part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from handgraph.errors import CheckpointError, ConfigError, HandgraphError
from handgraph.files import atomic_write, weights_file
from handgraph.training.recipe import build

FORMAT_VERSION = 1
TRAINING = "training/"
UNITS = (
    "millimetres; camera frame x right, y down, z forward; 21 joints from wrist over thumb to little finger"
)


def find_system(name: str) -> ModuleType:
    """The module `handgraph.systems.NAME`. Raises ConfigError where there is none."""
    try:
        if not name.isidentifier() or name.startswith("_"):
            raise ModuleNotFoundError(name=f"handgraph.systems.{name}")
        return import_module(f"handgraph.systems.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"handgraph.systems.{name}":
            raise  # the system exists, a part that it needs does not
    from handgraph import systems

    raise ConfigError(f"unknown system {name!r}, expected one of {', '.join(systems.names())}")


def save_weights(
    path: str | Path,
    module: nn.Module,
    system: str,
    config: Any,
    *,
    half: bool = False,
    meta: Mapping[str, Any] | None = None,
    parts: Mapping[str, tuple[str, str]] | None = None,
) -> None:
    """Write a module's weights with everything `load_system` needs.

    `config` is the system's `Config`; `meta` adds JSON-serialisable entries, such as what it was trained on.
    With `half`, parameters are stored as float16; statistics of batch normalisation stay float32, since
    variances can fall below what float16 holds. `parts` maps a prefix of tensors' names to the weights file
    beside `path` that holds the same tensors, and their prefix there: they are left out of this one. Raises
    CheckpointError where a weight does not fit float16, or where that file's tensors are others.
    """
    tensors = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    if half:
        for name, parameter in module.named_parameters():
            tensors[name] = parameter.detach().half()
            if not torch.isfinite(tensors[name]).all():
                raise CheckpointError(f"{path}: {name} does not fit float16, save it without half")
    lent = {}
    for prefix, (name, there) in (parts or {}).items():
        own = {key: tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
        lent[prefix] = {"file": name, "prefix": there, "digest": _digest(own, prefix)}
        _part(Path(path), prefix, lent[prefix])
    described = {"system": system, "config": asdict(config), **(meta or {})}
    write(path, tensors, described | ({"parts": lent} if lent else {}))


def _digest(tensors: Mapping[str, Tensor], prefix: str) -> str:
    """Of the tensors' names, less the prefix, and contents."""
    digest = sha256()
    for name in sorted(tensors):
        digest.update(name.removeprefix(prefix).encode())
        digest.update(tensors[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _part(file: Path, prefix: str, where: Any) -> dict[str, Tensor]:
    """The tensors that `file` leaves to another one beside it, under this file's names."""
    try:
        other, there, digest = file.with_name(where["file"]), where["prefix"], where["digest"]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{file}: its description does not say where {prefix}* are") from None
    if not other.is_file():
        raise CheckpointError(f"{file}: its {prefix}* are those of {other.name}, which is not beside it")
    found = _read(other, lambda name: name.startswith(there))[0]
    tensors = {prefix + name.removeprefix(there): tensor for name, tensor in found.items()}
    if _digest(tensors, prefix) != digest:
        raise CheckpointError(
            f"{file}: its {prefix}* are those of another {other.name} than the one beside it"
        )
    return tensors


def write(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and their JSON description to `path`, whole or not at all."""
    header = {"format_version": FORMAT_VERSION, "units": UNITS, **meta}
    content = safetensors_bytes(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
        {"handgraph": json.dumps(header)},
    )
    with atomic_write(path) as part:
        part.write_bytes(content)


def read_meta(path: str | Path) -> dict[str, Any]:
    """The JSON description of a weights file, without its tensors. Raises CheckpointError."""
    return _read(weights_file(path), lambda name: False)[1]


def read_training(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors and the description of a training checkpoint. Raises CheckpointError for plain weights."""
    tensors, meta = _read(weights_file(path), lambda name: True)
    if "training" not in meta:
        raise CheckpointError(f"{path}: holds weights only, no training state to resume from")
    return tensors, meta


def load_system(path: str | Path) -> tuple[nn.Module, str, Any, dict[str, Any]]:
    """Build the system that a weights file or checkpoint describes and fill in its weights.

    `path` may leave out `.safetensors`, as in `run/last`. Returns the module in evaluation mode on the CPU in
    float32, the system's name, its `Config` and the whole description. Raises CheckpointError for a file that
    is missing, damaged, of an unknown system or of another architecture.
    """
    file = weights_file(path)
    tensors, meta = _read(file, lambda name: not name.startswith(TRAINING))
    parts = meta.get("parts", {})
    for prefix in parts:
        tensors |= _part(file, prefix, parts[prefix] if isinstance(parts, dict) else None)
    try:
        name = str(meta["system"])
        config = build(find_system(name).Config, meta["config"], "its description", "config")
        module = config.build()
    except KeyError as error:
        raise CheckpointError(f"{file}: its description lacks {error}") from None
    except CheckpointError:
        raise
    except HandgraphError as error:
        raise CheckpointError(f"{file}: {error}") from None
    load_into(module, tensors, str(file))
    return module.eval(), name, config, meta


def load_same(path: str | Path, system: str, config: Any) -> nn.Module:
    """The module of a checkpoint that has to be of this system and configuration; else CheckpointError."""
    module, name, found, _ = load_system(path)
    if (name, found) != (system, config):
        raise CheckpointError(f"{path}: holds {name} {found}, expected {system} {config}")
    return module


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fill a module's weights. Raises CheckpointError unless names and shapes agree and all is finite."""
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    if missing or unexpected:
        parts = [
            f"{len(names)} {kind} (first: {names[0]})"
            for kind, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise CheckpointError(
            f"{source}: weights of another architecture, of {len(wanted)} tensors {', '.join(parts)}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"{source}: weights of another architecture, {name} has shape {tuple(tensor.shape)}, "
                f"expected {tuple(wanted[name].shape)}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{source}: {name} holds numbers that are not finite; the file is damaged, copy it again"
            )
    module.load_state_dict(dict(tensors))


def _read(file: Path, wanted: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(file, framework="pt") as opened:
            header = (opened.metadata() or {}).get("handgraph")
            tensors = {name: opened.get_tensor(name) for name in opened.keys() if wanted(name)}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{file}: not a whole safetensors file ({reason})") from None
    if header is None:
        raise CheckpointError(
            f"{file}: safetensors without handgraph's description, not written by handgraph"
        )
    try:
        meta = json.loads(header)
    except json.JSONDecodeError:
        meta = None
    if not isinstance(meta, dict):
        raise CheckpointError(f"{file}: its description is not a JSON object")
    if meta.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{file}: format version {meta.get('format_version')}, this handgraph reads {FORMAT_VERSION}"
        )
    return tensors, meta
