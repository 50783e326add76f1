"""Meshes out: files for any viewer, and pictures without OpenGL."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, no_type_check

import cv2
import numba as nb
import numpy as np
from jaxtyping import Float, Int, UInt8

from handgraph.camera import PinholeCamera
from handgraph.errors import ConfigError, FormatError, InputError, MissingExtraError
from handgraph.files import atomic_write
from handgraph.hand import RELATIVE_FRAME, Hand, Side
from handgraph.hand_model import HandLayer
from handgraph.hand_model.files import HandModel, load_open_hand
from handgraph.hand_model.fitting import fit, posed_vertices_mm, vertices_mm

SUFFIXES = (".obj", ".ply", ".glb", ".gltf")
"""OBJ and PLY in millimetres, as `Hand` has them; glTF in metres with y up and z towards the viewer."""

SKIN = (224, 184, 160)
"""RGB of a mesh in a picture."""

METRES_Y_UP = np.array([1.0, -1.0, -1.0]) / 1000
"""glTF's unit and axes from the camera frame's."""

_NEAR_MEAN_MM2 = _NEAR_REST_MM2 = 30.0
"""What a shape parameter of 1, or a joint a radian from rest, costs beside squared millimetres."""
_NEAR_MM = 10.0
_SAMPLES = 2  # along each side of a pixel


def hand_faces(hand: Hand, model: HandModel | None = None) -> Int[np.ndarray, "f 3"]:
    """The triangles of a hand's `vertices_mm`, counter-clockwise seen from outside.

    `model` is the hand the vertices are of, the open hand by default. Raises FormatError for a hand without
    vertices, or with those of another model.
    """
    model = model or _open_hand()
    if hand.vertices_mm is None:
        raise FormatError("this hand has no vertices: its system predicts joints, fit the hand model to them")
    if len(hand.vertices_mm) != len(model.v_template):
        raise FormatError(
            f"this hand has {len(hand.vertices_mm)} vertices, the hand model {model.name} "
            f"{len(model.v_template)}: give the model that it was predicted with"
        )
    return faces_of(model, hand.side)


def faces_of(model: HandModel, side: Side) -> Int[np.ndarray, "f 3"]:
    """The triangles of a model's mesh as a hand of `side`: a mirror image turns them over."""
    return np.asarray(model.faces if side == model.side else model.faces[:, ::-1])


def write_mesh(path: str | Path, hands: Sequence[Hand], model: HandModel | None = None) -> None:
    """Write the meshes of hands to one file: OBJ, PLY, or glTF (`.gltf`, all in one, or binary `.glb`).

    Raises ConfigError for another suffix, FormatError for hands without vertices, InputError where the file
    cannot be written, MissingExtraError without trimesh.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: the suffix is {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    try:
        import trimesh
    except ImportError:
        raise MissingExtraError("writing meshes needs trimesh: pip install 'handgraph[mesh]'") from None
    if not hands:
        raise FormatError(f"{path}: no hand to write")
    kind = path.suffix.lower()[1:]
    parts = []
    for hand in hands:
        faces = hand_faces(hand, model)
        vertices = np.asarray(hand.vertices_mm, np.float64)
        if kind in ("glb", "gltf"):
            vertices = vertices * METRES_Y_UP
        parts.append(trimesh.Trimesh(vertices, faces, process=False))
    content: Any
    if kind in ("obj", "ply"):
        content = trimesh.util.concatenate(parts).export(file_type=kind)
    else:
        scene = trimesh.Scene({f"hand_{index}_{hand.side}": part for index, (hand, part) in enumerate(
            zip(hands, parts, strict=True))})  # fmt: skip
        if kind == "glb":
            content = scene.export(file_type="glb")
        else:
            content = trimesh.exchange.gltf.export_gltf(scene, embed_buffers=True)["model.gltf"]
    with atomic_write(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def with_mesh(hand: Hand, layer: HandLayer | None = None, shape: np.ndarray | None = None) -> Hand:
    """The hand with the mesh, pose and shape that put the hand model's joints on its own.

    A hand that has a mesh is returned as it is, one that has pose and shape gets theirs. `layer` is a right
    hand, the open hand by default; `shape` is the person's, else it is fitted too, held near the mean hand.
    Raises InputError for a hand without joints in millimetres.
    """
    if hand.vertices_mm is not None:
        return hand
    if hand.joints_mm is None or hand.frame.startswith(RELATIVE_FRAME):
        raise InputError("a mesh needs joints in millimetres, which this hand does not have")
    layer = layer or HandLayer()
    if (
        hand.pose is not None
        and hand.shape is not None
        and (shape is None or np.allclose(shape, hand.shape, atol=1e-4))
        and layer.model.name == _open_hand().name  # of which estimators say pose and shape
    ):
        skin = posed_vertices_mm(layer, hand.pose, hand.shape, hand.joints_mm, hand.side)
        return replace(hand, vertices_mm=skin)
    fitted = fit(
        layer,
        joints_mm=hand.joints_mm[None],
        side=hand.side,
        shape=shape,
        free_shape=shape is None,
        # Joints say nothing about twist, which stays near the resting hand's.
        shape_prior=_NEAR_MEAN_MM2,
        pose_prior=_NEAR_REST_MM2,
    )
    return replace(
        hand,
        vertices_mm=vertices_mm(layer, fitted)[0],
        pose=fitted.pose[0],
        shape=fitted.shape[0],
    )


def draw_hands(
    picture: UInt8[np.ndarray, "h w 3"],
    hands: Sequence[Hand],
    model: HandModel | None = None,
    *,
    factor: int = 1,
    opacity: float = 0.8,
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture with the meshes of those hands that have vertices and a camera drawn over it, RGB.

    `factor` is by how much the picture is larger than the one the hands' cameras saw.
    """
    model = model or _open_hand()
    meshes = []
    for hand in hands:
        if hand.vertices_mm is None or hand.camera is None or len(hand.vertices_mm) != len(model.v_template):
            continue
        camera = hand.camera
        # A pixel becomes `factor` pixels; the centre of the first is then at (factor - 1) / 2.
        shift = (factor - 1) / 2
        meshes.append(
            (
                np.asarray(hand.vertices_mm, np.float64),
                hand_faces(hand, model),
                PinholeCamera(
                    camera.fx * factor,
                    camera.fy * factor,
                    camera.cx * factor + shift,
                    camera.cy * factor + shift,
                ),
            )
        )
    if not meshes:
        return picture
    height, width = picture.shape[:2]
    color, cover = np.zeros((height, width, 3)), np.zeros((height, width))
    nearest = np.zeros((_SAMPLES * height, _SAMPLES * width))
    shade = np.zeros_like(nearest)
    for vertices, faces, camera in meshes:
        _rasterise(vertices, faces, camera, nearest, shade)
    seen = nearest > 0
    cover = cv2.resize(seen.astype(np.float64), (width, height), interpolation=cv2.INTER_AREA)
    light = cv2.resize(shade * seen, (width, height), interpolation=cv2.INTER_AREA)
    color = light[..., None] * np.array(SKIN)
    alpha = opacity * cover[..., None]
    # `light` is already weighted by how much of the pixel is covered.
    mixed = picture * (1 - alpha) + opacity * color
    return np.clip(np.round(mixed), 0, 255).astype(np.uint8)


def render(
    vertices_mm: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    camera: PinholeCamera,
    size_px: tuple[int, int],
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Depth (mm, 0 where nothing is) and brightness in [0, 1] of a closed mesh, one sample a pixel.

    Light comes from the camera, a little from above; brightness is interpolated between vertices.
    """
    width, height = size_px
    nearest, shade = np.zeros((height, width)), np.zeros((height, width))
    _rasterise(np.asarray(vertices_mm, np.float64), faces, camera, nearest, shade, samples=1)
    return np.where(nearest > 0, 1 / np.maximum(nearest, 1e-12), 0.0), shade


def _rasterise(
    vertices: np.ndarray,
    faces: np.ndarray,
    camera: PinholeCamera,
    nearest: np.ndarray,
    shade: np.ndarray,
    samples: int = _SAMPLES,
) -> None:
    # Sample s of a pixel is at its centre + (s + ½) / samples - ½.
    shift = (samples - 1) / 2
    matrix = np.array(
        [samples * camera.fx, samples * camera.fy, samples * camera.cx + shift, samples * camera.cy + shift]
    )
    corners = vertices[faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], flat)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    light = np.array([-0.25, -0.45, -0.86])
    toward = -vertices / np.linalg.norm(vertices, axis=1, keepdims=True).clip(1e-12)
    # Mostly from above, some from the camera, so that nothing visible is black.
    diffuse = (normals @ light).clip(0)
    facing = (normals * toward).sum(1).clip(0)
    brightness = 0.18 + 0.52 * diffuse + 0.34 * facing
    _draw(vertices, np.ascontiguousarray(faces, np.int64), matrix, brightness.clip(0, 1), nearest, shade)


@lru_cache(maxsize=1)
def _open_hand() -> HandModel:
    return load_open_hand()


@nb.njit(nogil=True, cache=True)
@no_type_check
def _draw(points, faces, camera, brightness, nearest, shade):
    """Triangles into inverse depth (1/mm, 0 is nothing) and brightness; those that face away are left out.

    Inverse depth is linear in the picture, and so is anything divided by depth.
    """
    h, w = nearest.shape
    n = len(points)
    u, v, inverse = np.empty(n), np.empty(n), np.empty(n)
    for i in range(n):
        z = points[i, 2]
        inverse[i] = 1.0 / z if z > _NEAR_MM else 0.0
        u[i] = camera[0] * points[i, 0] * inverse[i] + camera[2]
        v[i] = camera[1] * points[i, 1] * inverse[i] + camera[3]
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if inverse[a] == 0.0 or inverse[b] == 0.0 or inverse[c] == 0.0:
            continue
        area = (u[b] - u[a]) * (v[c] - v[a]) - (u[c] - u[a]) * (v[b] - v[a])
        if area > -1e-12:  # with v down, what is counter-clockwise from outside runs the other way
            continue
        left = max(int(np.ceil(max(min(u[a], u[b], u[c]), -1.0))), 0)
        right = min(int(np.floor(min(max(u[a], u[b], u[c]), w + 1.0))), w - 1)
        top = max(int(np.ceil(max(min(v[a], v[b], v[c]), -1.0))), 0)
        bottom = min(int(np.floor(min(max(v[a], v[b], v[c]), h + 1.0))), h - 1)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                by_b = ((x - u[a]) * (v[c] - v[a]) - (u[c] - u[a]) * (y - v[a])) / area
                by_c = ((u[b] - u[a]) * (y - v[a]) - (x - u[a]) * (v[b] - v[a])) / area
                by_a = 1.0 - by_b - by_c
                if by_a < -1e-9 or by_b < -1e-9 or by_c < -1e-9:
                    continue
                near = by_a * inverse[a] + by_b * inverse[b] + by_c * inverse[c]
                if near > nearest[y, x]:
                    nearest[y, x] = near
                    shade[y, x] = (
                        by_a * inverse[a] * brightness[a]
                        + by_b * inverse[b] * brightness[b]
                        + by_c * inverse[c] * brightness[c]
                    ) / near
