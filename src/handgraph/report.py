"""Pictures of a result: the skeleton over its frame (PNG), and a page with a skeleton to turn (HTML).

The page is one file without any outside request: picture, numbers and the few lines of script are in it.
"""

import base64
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from handgraph.errors import FormatError
from handgraph.files import atomic_write
from handgraph.hand import ORDER, RELATIVE_FRAME, Hand
from handgraph.skeleton import BONES, FINGERS, JOINT_NAMES

RGB = tuple[int, int, int]

# Okabe and Ito's palette keeps its order of colours apart for colour-blind readers too; on dark ground.
FINGER_COLORS: dict[str, RGB] = {
    "thumb": (230, 159, 0),
    "index": (86, 180, 233),
    "middle": (0, 205, 140),
    "ring": (240, 228, 66),
    "little": (230, 120, 190),
}
WRIST_COLOR: RGB = (255, 255, 255)
UNSURE = 0.5
"""Joints with a lower confidence are drawn hollow."""

_LEAST_WIDTH = 640
_LEGEND_PX = 58
_INK: RGB = (225, 228, 232)
_GROUND: RGB = (24, 27, 31)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


Frame = Float[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]
"""A depth frame in millimetres, or a colour picture."""


def joint_color(joint: int) -> RGB:
    """The colour of a joint and of the bone that leads to it."""
    return WRIST_COLOR if joint == 0 else FINGER_COLORS[FINGERS[(joint - 1) // 4]]


def depth_span(depth_mm: Float[np.ndarray, "h w"], hands: Sequence[Hand] = ()) -> tuple[float, float]:
    """The depths from light to dark, mm: those around the hands, or else the nearer part of the frame."""
    readings = depth_mm[depth_mm > 0]
    if not readings.size:
        return 0.0, 0.0
    near, far = np.percentile(readings, [1, 90])
    joints = [hand.joints_mm[:, 2] for hand in hands if hand.joints_mm is not None]
    if joints:
        depths = np.concatenate(joints)
        near, far = max(near, depths.min() - 60), min(far, depths.max() + 350)
    return float(near), float(far)


def depth_picture(
    depth_mm: Float[np.ndarray, "h w"],
    hands: Sequence[Hand] = (),
    span_mm: tuple[float, float] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """A depth frame as a picture: near is light, far is dark, no reading is black.

    The contrast is spent on `span_mm`, which is `depth_span` unless given.
    """
    near, far = span_mm or depth_span(depth_mm, hands)
    light = 1 - np.clip((depth_mm - near) / max(far - near, 1.0), 0, 1)
    # A gentle curve keeps what lies far behind visible without competing with the hand.
    grey = np.where(depth_mm > 0, 28 + 190 * light**1.4, 0).astype(np.uint8)
    return cv2.applyColorMap(grey, cv2.COLORMAP_BONE)[..., ::-1].copy()


def overlay(
    frame: Frame,
    hands: Sequence[Hand],
    tracks: Sequence[int | None] = (),
    span_mm: tuple[float, float] | None = None,
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The frame with meshes and skeletons drawn over it and a legend below, RGB.

    `frame` is a depth frame (H, W) in mm or a colour picture (H, W, 3). Small frames are enlarged to 640
    pixels of width by a whole factor, so that lines stay fine. `tracks`, one for each hand, are written at
    the wrists; `span_mm` is the contrast of a depth frame (`depth_picture`).
    """
    factor = max(1, -(-_LEAST_WIDTH // frame.shape[1]))
    picture = depth_picture(frame, hands, span_mm) if frame.ndim == 2 else frame
    height, width = factor * picture.shape[0], factor * picture.shape[1]
    picture = np.ascontiguousarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST))
    if any(hand.vertices_mm is not None for hand in hands):
        from handgraph.meshes import draw_hands  # numba: loaded when a mesh is drawn, not when imported

        picture = draw_hands(picture, hands, factor=factor)
    for hand in hands:
        _draw_hand(picture, hand, factor)
    for hand, track in zip(hands, tracks, strict=False):
        if track is not None:
            _draw_number(picture, hand, track, factor)
    return np.vstack([picture, _legend(width, hands, tracks)])


def write_overlay(path: str | Path, frame: Frame, hands: Sequence[Hand]) -> None:
    """Write `overlay` as a PNG, whole or not at all. Raises InputError where it cannot be written."""
    with atomic_write(path) as part:
        part.write_bytes(_png(overlay(frame, hands)))


def page(title: str, model: str, frame: Frame, hands: Sequence[Hand]) -> str:
    """An HTML document on its own: overlay, turning 3D skeleton or mesh and table of joints for each hand."""
    picture = base64.b64encode(_png(overlay(frame, hands))).decode("ascii")
    data = {
        "bones": [list(bone) for bone in BONES],
        "colors": [css_color(joint_color(joint)) for joint in range(len(JOINT_NAMES))],
        "hands": [_relative(hand.joints_mm, hand) for hand in hands if hand.joints_mm is not None],
        "meshes": [_mesh(hand) for hand in hands if hand.joints_mm is not None],
        "units": [_unit(hand) for hand in hands if hand.joints_mm is not None],
    }
    fields = {
        "TITLE": html.escape(title),
        "MODEL": html.escape(model),
        "PICTURE": f"data:image/png;base64,{picture}",
        "HANDS": "\n".join(_section(number, hand) for number, hand in enumerate(hands))
        or "<p class='none'>No hand found in this frame.</p>",
        "ORDER": html.escape(ORDER),
        # A closing tag inside a string would end the script.
        "DATA": json.dumps(data).replace("</", "<\\/"),
    }
    text = (files("handgraph") / "report.html").read_text(encoding="utf-8")
    # The same module that the page of `handgraph serve` loads.
    text = text.replace("{{HAND3D}}", (files("handgraph") / "hand3d.js").read_text(encoding="utf-8"))
    for name, value in fields.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def write_page(path: str | Path, title: str, model: str, frame: Frame, hands: Sequence[Hand]) -> None:
    """Write `page` to a file, whole or not at all. Raises InputError where it cannot be written."""
    with atomic_write(path) as part:
        part.write_text(page(title, model, frame, hands), encoding="utf-8")


def _draw_hand(picture: np.ndarray, hand: Hand, factor: int) -> None:
    """Bones, then joints, from the farthest to the nearest; positions keep fractions of a pixel."""
    # A pixel becomes `factor` pixels; the centre of the first is then at (factor - 1) / 2.
    points = hand.keypoints_px * factor + (factor - 1) / 2
    span = float(np.linalg.norm(np.ptp(points, axis=0)))
    thick = int(np.clip(round(span / 90), 2, 6))
    depth = hand.joints_mm[:, 2] if hand.joints_mm is not None else np.zeros(len(points))
    shift = 4  # OpenCV's fixed point: 1/16 pixel
    # A keypoint far outside the frame would overflow the fixed point, and is not to be seen anyway.
    at = np.clip(points, -20_000, 20_000)
    fixed = np.round(at * (1 << shift)).astype(int)
    for width, dark in ((thick + 3, True), (thick, False)):
        for parent, child in sorted(BONES, key=lambda bone: -depth[list(bone)].mean()):
            color = (0, 0, 0) if dark else joint_color(child)
            cv2.line(picture, fixed[parent].tolist(), fixed[child].tolist(), color, width, cv2.LINE_AA, shift)
    for joint in np.argsort(-depth, kind="stable"):
        radius = (thick + 1) << shift
        center, color = fixed[joint].tolist(), joint_color(int(joint))
        unsure = hand.confidence is not None and hand.confidence[joint] < UNSURE
        cv2.circle(picture, center, radius + (2 << shift), (0, 0, 0), -1, cv2.LINE_AA, shift)
        cv2.circle(picture, center, radius, color, 1 if unsure else -1, cv2.LINE_AA, shift)


def _draw_number(picture: np.ndarray, hand: Hand, track: int, factor: int) -> None:
    """The track's number beside the wrist, on the side away from the fingers."""
    wrist = hand.keypoints_px[0]
    away = wrist - hand.keypoints_px.mean(axis=0)
    away = away / max(float(np.linalg.norm(away)), 1e-6)
    x, y = np.clip(factor * wrist + 22 * away, -20_000, 20_000)
    text = str(track)
    (w, h), _ = cv2.getTextSize(text, _FONT, 0.7, 2)
    at = (round(float(x) - w / 2), round(float(y) + h / 2))
    cv2.putText(picture, text, at, _FONT, 0.7, (0, 0, 0), 5, cv2.LINE_AA)
    cv2.putText(picture, text, at, _FONT, 0.7, (255, 255, 255), 2, cv2.LINE_AA)


def _legend(width: int, hands: Sequence[Hand], tracks: Sequence[int | None] = ()) -> np.ndarray:
    strip = np.full((_LEGEND_PX, width, 3), _GROUND, np.uint8)
    x = 12
    for finger, color in FINGER_COLORS.items():
        cv2.circle(strip, (x + 5, 19), 5, color, -1, cv2.LINE_AA)
        cv2.putText(strip, finger, (x + 15, 24), _FONT, 0.45, _INK, 1, cv2.LINE_AA)
        x += 26 + cv2.getTextSize(finger, _FONT, 0.45, 1)[0][0]
    cv2.circle(strip, (x + 8, 19), 5, WRIST_COLOR, 2, cv2.LINE_AA)
    text = f"hollow: confidence below {UNSURE:g}"
    cv2.putText(strip, text, (x + 20, 24), _FONT, 0.45, _INK, 1, cv2.LINE_AA)
    named = zip_longest(hands, tracks[: len(hands)])
    found = "; ".join(
        f"{'' if track is None else f'{track}: '}{hand.side} hand, score {hand.score:.2f}"
        for hand, track in named
    )
    found = found or "no hand found"
    cv2.putText(strip, found, (12, 47), _FONT, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return strip


def _png(picture: np.ndarray) -> bytes:
    encoded: np.ndarray = cv2.imencode(".png", picture[..., ::-1])[1]
    return encoded.tobytes()


def css_color(color: RGB) -> str:
    """A colour as style sheets and canvases write it."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _relative(points_mm: np.ndarray | None, hand: Hand) -> list[list[float]]:
    """Points about the middle of the hand's joints, for the canvas."""
    assert points_mm is not None
    assert hand.joints_mm is not None
    middle = (hand.joints_mm.max(axis=0) + hand.joints_mm.min(axis=0)) / 2
    return np.round((points_mm - middle).astype(np.float64), 1 if _unit(hand) == "mm" else 4).tolist()


def _unit(hand: Hand) -> str:
    """What a hand's joints are measured in."""
    return "hand lengths" if hand.frame.startswith(RELATIVE_FRAME) else "mm"


def _mesh(hand: Hand) -> dict[str, list[list[float]]] | None:
    """Vertices and triangles for the canvas; None without vertices, or with those of an unknown model."""
    if hand.vertices_mm is None:
        return None
    from handgraph.meshes import hand_faces  # numba: loaded when a mesh is drawn, not when imported

    try:
        return {"vertices": _relative(hand.vertices_mm, hand), "faces": hand_faces(hand).tolist()}
    except FormatError:
        return None


def _section(number: int, hand: Hand) -> str:
    rows = []
    for joint, name in enumerate(JOINT_NAMES):
        cells = [
            f"<td><i style='background:{css_color(joint_color(joint))}'></i>{name.replace('_', ' ')}</td>"
        ]
        if hand.joints_mm is not None:
            cells += [f"<td>{value:.1f}</td>" for value in hand.joints_mm[joint]]
        cells += [f"<td>{value:.1f}</td>" for value in hand.keypoints_px[joint]]
        if hand.confidence is not None:
            confidence = float(hand.confidence[joint])
            cells.append(
                f"<td><meter min='0' max='1' low='{UNSURE}' value='{confidence:.2f}'></meter> "
                f"{confidence:.2f}</td>"
            )
        rows.append("<tr>" + "".join(cells) + "</tr>")
    head = ["joint", *(("x mm", "y mm", "z mm") if hand.joints_mm is not None else ()), "u px", "v px"]
    if hand.confidence is not None:
        head.append("confidence")
    headers = "".join(f"<th>{name}</th>" for name in head)
    camera = hand.camera
    seen = "unknown"
    if camera is not None:
        seen = f"fx {camera.fx:.1f}, fy {camera.fy:.1f}, cx {camera.cx:.1f}, cy {camera.cy:.1f} pixels"
    canvas = ""
    if hand.joints_mm is not None:
        shown = "skeleton" if hand.vertices_mm is None else "mesh"
        canvas = (
            f"<figure><canvas data-hand='{number}' tabindex='0' role='img' "
            f"aria-label='3D {shown} of the hand; drag or use the arrow keys to turn it'></canvas>"
            "<figcaption>Drag to turn. x red to the right, y green down, z blue away from the camera; "
            "the bar is 50 mm.</figcaption></figure>"
        )
    return (
        f"<section><h2>{hand.side.capitalize()} hand, score {hand.score:.2f}</h2>{canvas}"
        f"<p>Numbers: {html.escape(hand.frame)}.<br>Camera: {seen}.</p>"
        f"<div class='wide'><table><thead><tr>{headers}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )
