"""Writing a file whole or not at all, and finding weights by their short name."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from handgraph.errors import CheckpointError, InputError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it takes the final name when the block ends without an error.

    A reader therefore sees the old file or the new one, never a part, and nothing is left behind after an
    error. The temporary name keeps the suffix, since image and mesh writers choose the format by it. Missing
    folders are made. Raises InputError where the folder or the file cannot be written.

    >>> with atomic_write("out/hands.json") as part:
    ...     part.write_text("{}")
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as file:  # on the disk before it has the name
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if part.parent.is_dir():
            part.unlink(missing_ok=True)


def weights_file(path: str | Path) -> Path:
    """The weights file at `path`, which may leave out `.safetensors`. Raises CheckpointError."""
    path = Path(path)
    if path.is_file():
        return path
    named = path.with_name(path.name + ".safetensors")
    if named.is_file():
        return named
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder, expected a weights file such as {path / 'last'}")
    other = "" if path.suffix == ".safetensors" else f", nor {named.name} beside it"
    raise CheckpointError(f"{path}: no such weights file{other}")
