"""The hand as a graph: 21 joints, 20 bones, and the joint orders of the public datasets.

The canonical order is that of OpenPose and FreiHAND: the wrist, then thumb, index, middle, ring and
little finger, each from the palm outwards to the tip. The tree is rooted at the wrist.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from handgraph.errors import InputError
from handgraph.shapes import Float, Int

FINGERS = ("thumb", "index", "middle", "ring", "little")

JOINT_NAMES: tuple[str, ...] = (
    "wrist",
    *(f"thumb_{part}" for part in ("cmc", "mcp", "ip", "tip")),
    *(f"{finger}_{part}" for finger in FINGERS[1:] for part in ("mcp", "pip", "dip", "tip")),
)
"""The 21 joints in canonical order."""

PARENTS: tuple[int, ...] = tuple(
    -1 if joint == 0 else (0 if joint % 4 == 1 else joint - 1) for joint in range(21)
)
"""Parent of each joint; -1 for the wrist."""

BONES: tuple[tuple[int, int], ...] = tuple((PARENTS[joint], joint) for joint in range(1, 21))
"""The 20 bones as (parent, child), ordered by child."""

LEVELS: tuple[tuple[int, ...], ...] = tuple(tuple(range(level, 21, 4)) for level in (1, 2, 3, 4))
"""Joints by distance from the wrist: four levels of five. What happens within a level is independent."""

TIPS: tuple[int, ...] = LEVELS[3]

# NYU's 14 evaluated joints, in the order of the published prediction files.
NYU14_EDGES = (
    (0, 1), (1, 13), (2, 3), (3, 13), (4, 5), (5, 13), (6, 7), (7, 13), (8, 9), (9, 10),
    (10, 13), (11, 13), (12, 13),
)  # fmt: skip
# ICVL's 16 joints: the palm, then root, middle and tip of each finger, thumb first.
ICVL16_EDGES = tuple((0 if joint % 3 == 1 else joint - 1, joint) for joint in range(1, 16))


def edges(joints: int) -> tuple[tuple[int, int], ...]:
    """The undirected bones of the 14- (NYU), 16- (ICVL) or 21-joint hand."""
    return {14: NYU14_EDGES, 16: ICVL16_EDGES, 21: BONES}[joints]


def adjacency(n: int, edges: Sequence[tuple[int, int]]) -> Float[np.ndarray, "n n"]:
    """The symmetric 0/1 matrix of an undirected graph, without self loops."""
    matrix = np.zeros((n, n), dtype=np.float64)
    for i, j in edges:
        matrix[i, j] = matrix[j, i] = 1.0
    return matrix


@dataclass(frozen=True)
class JointOrder:
    """One dataset's order of joints, and which canonical joint each of them is.

    `names` are the dataset's own joints in its own order; `canonical[i]` is the canonical index of
    the dataset's joint i, or -1 where the canonical hand has no such point (a palm centre, the
    second wrist point of NYU). Several datasets place a joint of the same name elsewhere on the
    hand; `note` says so.
    """

    name: str
    names: tuple[str, ...]
    canonical: tuple[int, ...]
    note: str = ""

    def __post_init__(self) -> None:
        if len(self.names) != len(self.canonical):
            raise ValueError(f"{self.name}: {len(self.names)} names but {len(self.canonical)} indices")
        known = [index for index in self.canonical if index >= 0]
        if len(set(known)) != len(known):
            raise ValueError(f"{self.name}: two joints claim the same canonical joint")

    @property
    def shared(self) -> tuple[int, ...]:
        """Canonical joints this order holds, in canonical order."""
        return tuple(sorted(index for index in self.canonical if index >= 0))

    @property
    def complete(self) -> bool:
        """Whether all 21 canonical joints are present."""
        return len(self.shared) == len(JOINT_NAMES)

    @property
    def gather(self) -> Int[np.ndarray, " 21"]:
        """For each canonical joint the dataset's index, or -1 where the dataset lacks it."""
        index = np.full(len(JOINT_NAMES), -1, dtype=np.int64)
        for raw, joint in enumerate(self.canonical):
            if joint >= 0:
                index[joint] = raw
        return index

    def to_canonical(self, joints: np.ndarray) -> np.ndarray:
        """(..., n, d) in this order → (..., 21, d) canonical; NaN where the dataset has no such joint."""
        return self._pick(joints, len(self.names), self.gather)

    def from_canonical(self, joints: np.ndarray) -> np.ndarray:
        """(..., 21, d) canonical → (..., n, d) in this order; NaN for points the canonical hand lacks."""
        return self._pick(joints, len(JOINT_NAMES), np.asarray(self.canonical))

    def _pick(self, joints: np.ndarray, expected: int, index: Int[np.ndarray, " m"]) -> np.ndarray:
        source = np.asarray(joints)
        if source.ndim < 2 or source.shape[-2] != expected:
            raise InputError(
                f"joint order {self.name}: expected (..., {expected}, d) joints, got {source.shape}"
            )
        picked = source[..., index, :]
        if (index < 0).any():  # only NaN can say "no such joint", so whole numbers become float
            picked = picked.astype(np.result_type(source.dtype, np.float32))
            picked[..., index < 0, :] = np.nan
        return picked


def _finger(finger: str, parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{finger}_{part}" for part in parts)


def _named(
    name: str, names: Sequence[str], note: str = "", aliases: dict[str, str] | None = None
) -> JointOrder:
    """An order whose joints carry canonical names, or names that `aliases` explains; others map to -1."""
    meaning = [(aliases or {}).get(joint, joint) for joint in names]
    canonical = tuple(JOINT_NAMES.index(joint) if joint in JOINT_NAMES else -1 for joint in meaning)
    return JointOrder(name, tuple(names), canonical, note)


_FINGER_PARTS = {finger: ("mcp", "pip", "dip", "tip") for finger in FINGERS[1:]} | {
    "thumb": ("cmc", "mcp", "ip", "tip")
}


def _outwards(*fingers: str) -> tuple[str, ...]:
    return tuple(name for finger in fingers for name in _finger(finger, _FINGER_PARTS[finger]))


def _inwards(*fingers: str) -> tuple[str, ...]:
    return tuple(name for finger in fingers for name in _finger(finger, _FINGER_PARTS[finger][::-1]))


def _bases(*fingers: str) -> tuple[str, ...]:
    return tuple(name for finger in fingers for name in _finger(finger, _FINGER_PARTS[finger][:3]))


OPENPOSE = _named("openpose", JOINT_NAMES, "OpenPose, FreiHAND, COCO-WholeBody, HUMBI, CMU Panoptic")
DEXYCB = _named("dexycb", JOINT_NAMES, "canonical order; joints from a MANO layer with manopth's fingertips")
MANO = _named(
    "mano",
    (
        "wrist",
        *_bases("index", "middle", "little", "ring", "thumb"),
        *(f"{finger}_tip" for finger in FINGERS),
    ),
    "16 model joints, then the five fingertip vertices thumb → little",
)
RHD = _named("rhd", ("wrist", *_inwards(*FINGERS)), "each finger from the tip to the palm")
STB = _named(
    "stb",
    ("palm", *_outwards("little", "ring", "middle", "index", "thumb")),
    "the root is the palm centre, not the wrist",
)
STB_WRIST = _named(
    "stb_wrist",
    ("wrist", *_outwards("little", "ring", "middle", "index", "thumb")),
    "STB with a wrist extrapolated beyond the palm centre, as papers do",
)
# Points as a tracker of bones names them, of each finger: middle joint, knuckle, outer joint, tip.
_MHP_FINGERS = tuple(
    f"{finger}_{part}"
    for finger in ("index", "middle", "little", "ring", "thumb")
    for part in (("mcp", "cmc", "ip", "tip") if finger == "thumb" else ("pip", "mcp", "dip", "tip"))
)
MHP = _named("mhp", (*_MHP_FINGERS, "palm"), "the root is the palm centre, not the wrist")
MHP_21 = _named(
    "mhp_21",
    (*_MHP_FINGERS, "wrist"),
    "MHP with the palm centre itself, or a wrist extrapolated beyond it, in the place of the wrist",
)
MSRA = _named("msra", ("wrist", *_outwards("index", "middle", "ring", "little", "thumb")))
ICVL16 = _named(
    "icvl16",
    ("palm", *(f"{finger}_{part}" for finger in FINGERS for part in ("root", "middle", "tip"))),
    "palm instead of wrist; a finger's root, middle and tip are read as its knuckle, middle joint and tip, "
    "without the outermost joint; the thumb's as mcp, ip and tip",
    aliases={f"{finger}_root": f"{finger}_mcp" for finger in FINGERS}
    | {f"{finger}_middle": f"{finger}_pip" for finger in FINGERS[1:]}
    | {"thumb_middle": "thumb_ip"},
)
# The model points of NYU: six a finger from the tip inwards, little finger first.
_NYU_POINTS = ("knu3_a", "knu3_b", "knu2_a", "knu2_b", "knu1_a", "knu1_b")
_NYU36_MEANING = {
    f"{finger}_{point}": f"{finger}_{part}"
    for finger in FINGERS
    for part, point in zip(_FINGER_PARTS[finger][::-1], ("knu3_a", "knu3_b", "knu2_b", "knu1_a"), strict=True)
}
NYU36 = _named(
    "nyu36",
    (
        *(f"{finger}_{point}" for finger in FINGERS[::-1] for point in _NYU_POINTS),
        *(f"palm_{number}" for number in range(1, 7)),
    ),
    "20 finger points are near the canonical joints; palm_1 and palm_2 are the two sides of the wrist, "
    "palm_3 the palm centre, and no point is the wrist itself",
    aliases=_NYU36_MEANING,
)
NYU14_OF_36 = (0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32)
"""The 14 of NYU's 36 points that papers evaluate."""
NYU14 = JointOrder(
    "nyu14",
    tuple(NYU36.names[index] for index in NYU14_OF_36),
    tuple(NYU36.canonical[index] for index in NYU14_OF_36),
    "tips and middle joints of the fingers, three thumb joints, the two sides of the wrist, the palm centre; "
    "11 of them are canonical joints",
)
INTERHAND = JointOrder(
    "interhand",
    (*_inwards(*FINGERS), "wrist"),
    tuple(JOINT_NAMES.index(name) for name in (*_inwards(*FINGERS), "wrist")),
    "one hand's block of 21 (right hand first, then left): fingers from the tip to the palm, then the wrist",
)

_ORDERS = (OPENPOSE, DEXYCB, MANO, RHD, STB, STB_WRIST, MHP, MHP_21, MSRA, ICVL16, NYU36, NYU14, INTERHAND)
JOINT_ORDERS: dict[str, JointOrder] = {order.name: order for order in _ORDERS}
