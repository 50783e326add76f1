"""jaxtyping's names for shapes in signatures, imported only where somebody looks at them.

`Float[np.ndarray, "n 3"]` is for readers, type checkers and tests. Importing jaxtyping takes longer than
finding a hand does, so on the way to an answer in ONNX Runtime the same words stand for the plain array type.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Int, Num, Shaped, UInt8
else:

    class _Unchecked:
        def __class_getitem__(cls, array_and_shape: tuple[Any, str]) -> Any:
            return array_and_shape[0]

    Bool = Float = Int = Num = Shaped = UInt8 = _Unchecked

__all__ = ["Bool", "Float", "Int", "Num", "Shaped", "UInt8"]
