import os
from pathlib import Path

from handgraph.stale import forget_stale_code


def test_what_was_compiled_before_a_module_it_calls_into_changed_is_deleted(tmp_path: Path) -> None:
    compiled = tmp_path / "__pycache__"
    compiled.mkdir()
    for name, changed in (("first", 30), ("second", 10), ("other", 30)):
        (tmp_path / f"{name}.py").touch()
        os.utime(tmp_path / f"{name}.py", (changed, changed))
    for name, made in (("first.f-1", 40), ("second.g-1", 20), ("second.h-2", 50), ("other.k-1", 20)):
        (compiled / f"{name}.py311.nbi").touch()
        os.utime(compiled / f"{name}.py311.nbi", (made, made))
    forget_stale_code(tmp_path, ("first", "second", "missing"))
    # `second.g` was compiled with an older `first`; what is not named stays.
    assert {path.name.split(".py")[0] for path in compiled.iterdir()} == {
        "first.f-1",
        "second.h-2",
        "other.k-1",
    }
