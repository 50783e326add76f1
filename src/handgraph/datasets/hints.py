"""What a wrong root probably should have been, told from names alone."""

import os
import re
from pathlib import Path

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z", ".bz2", ".xz")
_UP = 4


def hint(root: Path, message: str) -> str:
    """A remark to add to a reader's `message` that `root` is not the dataset; "" where nothing is to be said.

    The message names the folders and files that are expected. Here they are looked for packed, in another
    case, one folder deeper and some folders higher.
    """
    if root.is_file():
        packed = "an archive: unpack it and give" if root.suffix.lower() in _ARCHIVES else "a file: give"
        return f" ({root.name} is {packed} the folder)"
    words = set(re.findall(r"[\w.{},-]+", message.replace(str(root), "").replace("/", " ")))
    expected = {word.strip(".,") for word in words if len(word) > 3}
    present = _names(root)
    for name in present:
        if name not in expected and name.lower() in {word.lower() for word in expected}:
            return f" ({name} is there: upper and lower case must be the original's)"
    for name in present:
        inner = sorted(expected & set(_names(root / name)))
        if inner:
            return f" ({root / name} holds {inner[0]}: is it meant?)"
    for above in list(root.absolute().parents)[:_UP]:
        found = sorted(expected & set(_names(above)) & set(root.absolute().parts[len(above.parts) :]))
        if found:
            return f" ({above} holds {found[0]}: is it meant?)"
    archives = [name for name in present if Path(name).suffix.lower() in _ARCHIVES]
    if archives:
        return f" ({archives[0]} is there: is it unpacked?)"
    if not root.exists():
        return " (there is no such folder)"
    return "" if present else " (the folder is empty)"


def _names(folder: Path) -> list[str]:
    """Of what is in a folder, hidden files apart."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith((".", "__MACOSX")))
    except OSError:
        return []
