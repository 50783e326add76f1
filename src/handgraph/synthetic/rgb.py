"""Colour images of synthetic hands by number: a seed and an index give one image, always the same."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, UInt8

from handgraph.camera import Crop, PinholeCamera
from handgraph.errors import ConfigError
from handgraph.hand_model.files import HandModel
from handgraph.images import to_network
from handgraph.synthetic import depth
from handgraph.synthetic.clutter import Photos, heap, texture_pool
from handgraph.synthetic.depth import SUBJECTS, Split
from handgraph.synthetic.hands import FAMILIES, Rig, local_rotations, seed_stream
from handgraph.synthetic.photo import (
    Cast,
    Chances,
    Posed,
    Stage,
    build,
    camera_draws,
    cast_of,
    develop,
    exposure_of,
    render,
    seen,
)
from handgraph.synthetic.skin import Skin, skin_of

FAMILY_SHARES = (0.08, 0.09, 0.13, 0.07, 0.10, 0.26, 0.06, 0.11, 0.10)
"""More selectively stretched fingers than the depth images have: what colour networks confuse."""

SUPERSAMPLING = (1.25, 1.125)
"""Pixels drawn a pixel of the image, along a side: of images up to 192 pixels, and of larger ones."""
FRAME_PX = (640, 480)
"""Width and height of whole frames."""

# How far behind the visible skin a joint may lie, mm: the flesh over it. Canonical order.
_FLESH_MM = np.array([32, 28, 24, 14, 10] + 4 * [24, 15, 12, 9], np.float64)

_LEFT = np.array([-1.0, 1.0, 1.0])
"""The mirror that makes a left hand of a right one, in the camera frame."""


@dataclass(frozen=True, eq=False)
class RgbHand:
    """One hand of a frame with everything known about it. Camera frame, mm; frame pixels."""

    side: Literal["left", "right"]
    joints_mm: Float[np.ndarray, "21 3"]
    keypoints_px: Float[np.ndarray, "21 2"]
    box_px: Float[np.ndarray, " 4"]
    """x, y, w, h round the keypoints; it may leave the frame."""
    visible: Bool[np.ndarray, " 21"]
    """The joint is in the frame and nothing but its own flesh lies before it."""
    vertices_mm: Float[np.ndarray, "v 3"]
    shape: Float[np.ndarray, " 10"]
    pose: Float[np.ndarray, " 48"]
    """Axis-angle of the whole hand and 15 joints, as the `HandLayer` of the hand's own side takes it."""
    translation_mm: Float[np.ndarray, " 3"]
    """What `HandLayer` adds to the posed hand to bring it here."""
    subject: int
    family: str


@dataclass(frozen=True, eq=False)
class RgbSample:
    """One colour crop of a right hand with everything known about it. Camera frame, mm."""

    image: UInt8[np.ndarray, "s s 3"]
    uv: Float[np.ndarray, "21 2"]
    """The keypoints in the crop, 0 at the first pixel centre, 1 at the last; they may lie outside."""
    crop: Crop
    """The crop, with the camera of the frame it was cut from."""
    camera: PinholeCamera
    joints_mm: Float[np.ndarray, "21 3"]
    keypoints_px: Float[np.ndarray, "21 2"]
    """In the frame."""
    vertices_mm: Float[np.ndarray, "v 3"]
    mask: Bool[np.ndarray, "s s"]
    """The crop's pixels that show the hand (not its forearm)."""
    depth_mm: Float[np.ndarray, "s s"]
    """Depth of what the crop shows, 0 where there is only background."""
    visible: Bool[np.ndarray, " 21"]
    """The joint is in the crop and nothing but its own flesh lies before it."""
    shape: Float[np.ndarray, " 10"]
    pose: Float[np.ndarray, " 48"]
    """In the camera frame, as `HandLayer` takes it."""
    translation_mm: Float[np.ndarray, " 3"]
    subject: int
    family: str
    side: Literal["right"] = "right"


@dataclass(frozen=True, eq=False)
class RgbFrame:
    """A whole photograph of none, one or two hands."""

    image: UInt8[np.ndarray, "h w 3"]
    camera: PinholeCamera
    hands: tuple[RgbHand, ...]
    """Either side; hands are in the frame at least in part."""
    depth_mm: Float[np.ndarray, "h w"]
    """Registered with the image, 0 where there is only background."""
    label: UInt8[np.ndarray, "h w"]
    """1 the first hand, 2 its forearm, 3 and 4 the second's, from 32 things, 0 only background."""

    @property
    def boxes(self) -> Float[np.ndarray, "n 4"]:
        """The boxes of all hands, x, y, w, h in pixels."""
        return np.array([hand.box_px for hand in self.hands], np.float32).reshape(-1, 4)

    @property
    def sides(self) -> tuple[Literal["left", "right"], ...]:
        """The sides of all hands."""
        return tuple(hand.side for hand in self.hands)


class _View(NamedTuple):
    """A picture of a scene before it is drawn: what is seen, from where, and in which pixels."""

    stage: Stage
    camera: np.ndarray  # (4,) fx, fy, cx, cy in pixels of the picture
    height: int
    width: int


@lru_cache(maxsize=2)
def _skin(model: HandModel) -> Skin:
    return skin_of(depth._rig(model))


def _open_wrist(rig: Rig) -> tuple[np.ndarray, np.ndarray]:
    """The faces without the lid at the wrist, and that edge's vertices in the order `grid_faces` turns."""
    faces = rig.faces
    if not _edge(faces).size:  # a closed mesh: without the lid and its rounding
        faces = faces[~np.isin(faces, rig.ring).any(1)]
    edge = np.intersect1d(_edge(faces), np.nonzero(rig.template[:, 0] > rig.joints[0, 0] - 30)[0])
    y, z = (rig.template[edge] - rig.template[edge].mean(0))[:, 1:].T
    return np.ascontiguousarray(faces), edge[np.argsort(np.arctan2(z, y))].astype(np.int32)


def _edge(faces: np.ndarray) -> np.ndarray:
    """The vertices of a mesh's open edges."""
    pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, count = np.unique(pairs, axis=0, return_counts=True)
    return np.unique(unique[count == 1])


class RgbSynthesizer:
    """Colour images of synthetic hands: image `index` of (seed, split) is always the same.

    Subjects, poses and splits are those of `DepthSynthesizer`.

    Args:
        seed: of the whole set.
        split: `train`, `validation` or `test`; they share no subject.
        size: of the crop, pixels.
        threads: drawing at once in `batch`; the images do not depend on it.
        backgrounds: a folder of photographs to put behind the hands, nine times in ten; procedural ones
            by default. The images then depend on the folder's files too.
        chances: how often tables, objects, bodies and so on appear.
        family_shares: of the pose families.
        model: a right-hand model with joint axes and limits; the shipped open hand by default.

    Raises:
        ConfigError: an unknown split, or a size or number of threads below one.
        InputError: a folder of backgrounds without photographs, or with one that cannot be read.
    """

    def __init__(
        self,
        seed: int = 0,
        split: str = "train",
        size: int = 128,
        *,
        threads: int = 1,
        backgrounds: str | Path | None = None,
        chances: Chances | None = None,
        family_shares: Sequence[float] = FAMILY_SHARES,
        model: HandModel | None = None,
    ) -> None:
        if split not in get_args(Split):
            raise ConfigError(f"split {split!r}: expected one of {', '.join(get_args(Split))}")
        if size < 16 or threads < 1 or seed < 0:
            raise ConfigError(
                f"size {size}, threads {threads}, seed {seed}: expected a size of at least 16, "
                "at least one thread and a seed not below zero"
            )
        if len(family_shares) != len(FAMILIES):
            raise ConfigError(f"family_shares: found {len(family_shares)}, expected {len(FAMILIES)}")
        self.seed, self.split, self.size, self.threads = seed, split, size, threads
        # Compiled code knows numbers by their type: whole numbers from a recipe become floats.
        self.chances = Chances(*(float(value) for value in chances or Chances()))
        model = model if model is not None else depth._open_hand()
        self.rig = depth._rig(model)
        self._wrist = _open_wrist(self.rig)
        self._skin = _skin(model)
        self._textures = texture_pool()
        self._photos = Photos(backgrounds) if backgrounds is not None else None
        self._families = np.asarray(family_shares, np.float64)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def sample(self, index: int) -> RgbSample:
        """Crop number `index` with all its labels."""
        cast, crop, image, view = self._crop(index)
        inverse, owner = seen(view.stage, _at_size(view.camera, self.size / view.width), self.size, self.size)
        assert crop.camera is not None
        hand = _hand(self.rig, cast.first, crop.camera)
        keypoints = crop.crop_px(hand.keypoints_px)
        return RgbSample(
            image=image,
            uv=(keypoints / (self.size - 1)).astype(np.float32),
            crop=crop,
            camera=crop.camera,
            joints_mm=hand.joints_mm,
            keypoints_px=hand.keypoints_px,
            vertices_mm=hand.vertices_mm,
            mask=owner == 1,
            depth_mm=_depth(inverse),
            visible=_visible(keypoints, hand.joints_mm[:, 2], inverse, owner, 1),
            shape=hand.shape,
            pose=hand.pose,
            translation_mm=hand.translation_mm,
            subject=hand.subject,
            family=hand.family,
        )

    def frame(self, index: int) -> RgbFrame:
        """Whole photograph number `index`: another scene than `sample(index)`, of hands of both sides."""
        cast = self._cast(index, whole=True)
        camera = PinholeCamera(*(float(value) for value in cast.camera[:4]))
        width, height = FRAME_PX
        image, view = self._shoot(index, cast, np.eye(3), cast.camera[:4], width, height, whole=True)
        inverse, owner = seen(view.stage, cast.camera[:4], height, width)
        hands = []
        for number, posed in enumerate((cast.first, cast.second)[: cast.hands]):
            hand = _hand(self.rig, posed, camera)
            visible = _visible(hand.keypoints_px, hand.joints_mm[:, 2], inverse, owner, 1 + 2 * number)
            hands.append(replace(hand, visible=visible))
        return RgbFrame(image, camera, tuple(hands), _depth(inverse), owner)

    def batch(self, indices: Sequence[int]) -> dict[str, torch.Tensor | list[Crop]]:
        """Crops `indices` as networks take them; image (B, 3, S, S) through `images.to_network`.

        Also uv (B, 21, 2), known (B, 21), relative_mm (B, 21, 3) and wrist_mm (B, 3) in the crop frame,
        crop_camera (B, 3, 3), joints_mm (B, 21, 3) in the camera frame, pose (B, 48) in the crop frame,
        shape (B, 10), crops (list). Drawn by `threads` threads; each image is what `sample` gives.
        """
        n = len(indices)
        images = np.empty((n, self.size, self.size, 3), np.uint8)
        joints = np.empty((n, 21, 3))
        rotations = np.empty((n, 16, 3, 3))
        shapes = np.empty((n, 10), np.float32)
        cameras = np.empty((n, 3, 3))
        frames = np.empty((n, 3, 3))
        crops: list[Crop] = [None] * n  # type: ignore[list-item]

        def fill(place: int) -> None:
            cast, crop, images[place], _ = self._crop(int(indices[place]))
            hand = cast.first
            crops[place] = crop
            joints[place], shapes[place] = hand.joints, hand.shape
            frames[place], cameras[place] = crop.crop_from_camera, crop.crop_camera
            rotations[place, 0] = frames[place] @ hand.rotation
            local_rotations(self.rig, hand.angles, rotations[place, 1:])

        if self._pool is None:
            for place in range(n):
                fill(place)
        else:
            list(self._pool.map(fill, range(n)))
        in_crop = np.einsum("bij,bkj->bki", frames, joints)
        projected = np.einsum("bij,bkj->bki", cameras, in_crop)
        uv = projected[..., :2] / projected[..., 2:]
        pose = roma.rotmat_to_rotvec(torch.from_numpy(rotations)).reshape(n, 48)

        def tensor(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array.astype(np.float32))

        return {
            "image": torch.from_numpy(to_network(images)),
            "uv": tensor(uv),
            "known": torch.ones(n, 21, dtype=torch.bool),
            "relative_mm": tensor(in_crop - in_crop[:, :1]),
            "wrist_mm": tensor(in_crop[:, 0]),
            "crop_camera": tensor(cameras),
            "joints_mm": tensor(joints),
            "pose": pose.float(),
            "shape": torch.from_numpy(shapes),
            "crops": crops,
        }

    def _cast(self, index: int, *, whole: bool) -> Cast:
        split = get_args(Split).index(self.split)
        subjects = SUBJECTS[get_args(Split)[split]]
        return cast_of(self.rig, self._families, self.chances, subjects, self.seed, split, index, whole)

    def _crop(self, index: int) -> tuple[Cast, Crop, UInt8[np.ndarray, "s s 3"], _View]:
        """The hands, the crop, its image, and the view that was drawn for it."""
        cast = self._cast(index, whole=False)
        fx, fy, cx, cy, width, height = (float(value) for value in cast.camera)
        x, y, w, h = (float(value) for value in cast.box)
        crop = Crop.window(
            (x, y, w, h), self.size, PinholeCamera(fx, fy, cx, cy), rotation_rad=float(cast.turn)
        )
        matrix = crop.crop_camera * (self.size - 1)
        local = np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])
        image, view = self._shoot(
            index, cast, crop.crop_from_camera, local, self.size, self.size, whole=False
        )
        if camera_draws(self._stream(index, 13))[9]:  # what lies outside the frame is black
            full = np.full((int(height), int(width)), 255, np.uint8)
            inside = cv2.warpAffine(full, crop.crop_from_image, (self.size, self.size))
            image = (image.astype(np.uint16) * inside[..., None] // 255).astype(np.uint8)
        return cast, crop, image, view

    def _stream(self, index: int, purpose: int) -> np.ndarray:
        return seed_stream(self.seed, get_args(Split).index(self.split), index, purpose)

    def _shoot(
        self,
        index: int,
        cast: Cast,
        turn: np.ndarray,
        camera: np.ndarray,
        width: int,
        height: int,
        *,
        whole: bool,
    ) -> tuple[UInt8[np.ndarray, "h w 3"], _View]:
        """The finished picture of a cast; `camera` is of the picture, `turn` leads to its frame."""
        split = get_args(Split).index(self.split)
        stage = build(
            self.rig, *self._wrist, cast, self.chances, len(self._textures), turn, whole,
            self.seed, split, index,
        )  # fmt: skip
        finer = SUPERSAMPLING[min(height, width) > 192]
        rows, columns = (int(np.ceil(finer * side / 8) * 8) for side in (height, width))
        view = _View(stage, _at_size(camera, columns / width), rows, columns)
        lens = self._stream(index, 23 if whole else 13)
        draws = camera_draws(lens)
        behind = self._background(rows, columns, self._stream(index, 22 if whole else 12), float(draws[8]))
        picture = render(stage, self._skin, self._textures, behind, view.camera, whole)
        gain = exposure_of(picture.light, picture.owner, float(draws[0]))
        return _photograph(picture.light, height, width, gain, draws, lens), view

    def _background(
        self, height: int, width: int, state: np.ndarray, blur: float
    ) -> Float[np.ndarray, "h w 3"]:
        out = np.zeros((height, width, 3), np.float32)
        if self._photos is None or not self._photos.fill(state, out):
            heap(state, self._textures, 0.75, out)
        blur *= min(height, width) / 160
        return cv2.GaussianBlur(out, (0, 0), blur) if blur > 0.3 else out


def _at_size(camera: np.ndarray, scale: float) -> np.ndarray:
    """The camera (fx, fy, cx, cy) of the same picture with `scale` times as many pixels a side."""
    fx, fy, cx, cy = camera
    return np.array([fx * scale, fy * scale, (cx + 0.5) * scale - 0.5, (cy + 0.5) * scale - 0.5])


def _depth(inverse: np.ndarray) -> Float[np.ndarray, "h w"]:
    return np.divide(1.0, inverse, out=np.zeros_like(inverse), where=inverse > 0)


def _visible(
    keypoints_px: np.ndarray, z_mm: np.ndarray, inverse: np.ndarray, owner: np.ndarray, number: int
) -> Bool[np.ndarray, " 21"]:
    """Joints whose pixel shows hand `number` (or its forearm), no farther before them than flesh is thick."""
    h, w = inverse.shape
    column, row = np.rint(keypoints_px).astype(int).T
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    row, column = np.clip(row, 0, h - 1), np.clip(column, 0, w - 1)
    own = np.isin(owner[row, column], (number, number + 1))
    near = z_mm - 1.0 / np.maximum(inverse[row, column], 1e-6) < _FLESH_MM
    return inside & own & near


def _hand(rig: Rig, posed: Posed, camera: PinholeCamera) -> RgbHand:
    """A posed hand's labels; `visible` is for the caller to say."""
    rotations = np.empty((16, 3, 3))
    rotations[0] = posed.rotation
    local_rotations(rig, posed.angles, rotations[1:])
    pose = roma.rotmat_to_rotvec(torch.from_numpy(rotations)).numpy()
    # The posed hand turns about its rest wrist, so what is added is the wrist's way from there.
    translation = posed.wrist - (rig.joints[0] + posed.shape @ rig.joint_basis[:, 0])
    mirror = _LEFT if posed.left else np.ones(3)
    joints = (posed.joints * mirror).astype(np.float32)
    keypoints = camera.uvd_from_xyz(joints)[:, :2].astype(np.float32)
    low, high = keypoints.min(0), keypoints.max(0)
    return RgbHand(
        side="left" if posed.left else "right",
        joints_mm=joints,
        keypoints_px=keypoints,
        box_px=np.concatenate([low, high - low + 1]).astype(np.float32),
        visible=np.ones(21, bool),
        vertices_mm=(posed.vertices * mirror).astype(np.float32),
        shape=posed.shape.astype(np.float32),
        # Mirrored in x, a rotation's axis keeps x and changes y and z.
        pose=(pose * (-mirror if posed.left else mirror)).reshape(48).astype(np.float32),
        translation_mm=(translation * mirror).astype(np.float32),
        subject=int(posed.subject),
        family=FAMILIES[posed.family],
    )


def _photograph(
    light: np.ndarray, height: int, width: int, gain: float, draws: np.ndarray, state: np.ndarray
) -> UInt8[np.ndarray, "h w 3"]:
    """What lens, sensor and processing make of linear light; `draws` are those of `camera_draws`."""
    unit = min(light.shape[:2]) / 160
    if draws[1] * unit > 0.4:
        light = cv2.GaussianBlur(light, (0, 0), float(draws[1] * unit))
    if draws[2] > 0:
        light = _smear(light, float(draws[2] * unit), float(draws[3]))
    rows, columns = max(int(height * draws[4]), 24), max(int(width * draws[4]), 24)
    light = cv2.resize(light, (columns, rows), interpolation=cv2.INTER_AREA)
    image = np.empty((rows, columns, 3), np.uint8)
    develop(light, gain, state, image)
    if draws[5] > 0:
        image = cv2.GaussianBlur(image, (3, 3), float(draws[5]))
    if draws[6] > 0:
        soft = cv2.GaussianBlur(image, (0, 0), 1.0)
        image = cv2.addWeighted(image, 1 + float(draws[6]), soft, -float(draws[6]), 0)
    if draws[7] > 0:
        # OpenCV takes channels for blue, green, red; turned round, JPEG weighs them rightly.
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(draws[7])]
        code = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1]
        image = cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    if (rows, columns) != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def _smear(light: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Motion blur along a line of `length` pixels."""
    n = int(np.ceil(length)) | 1
    kernel = np.zeros((n, n), np.float32)
    middle = (n - 1) / 2
    du, dv = np.cos(angle) * length / 2, np.sin(angle) * length / 2
    ends = [(round((middle + sign * du) * 16), round((middle + sign * dv) * 16)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, 4)
    if kernel.sum() <= 0:
        return light
    return cv2.filter2D(light, -1, kernel / kernel.sum())
