"""Draw the pictures of docs/conventions.md: joint orders, camera axes, pixels and crops, left and right.

python tools/conventions_pictures.py [folder, by default docs/images]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon, Rectangle
from PIL import Image

from handgraph.camera import Crop, PinholeCamera
from handgraph.hand import Hand
from handgraph.hand_model import HandLayer
from handgraph.meshes import draw_hands
from handgraph.skeleton import BONES, FINGERS, JOINT_ORDERS

COLORS = dict(zip(FINGERS, ("#c0392b", "#d68910", "#1e8449", "#2471a3", "#7d3c98"), strict=True))
WRIST = "#333333"
# Right hand, palm to the camera: the model's -x (fingers) goes up, -y (palm) to the camera, +z (thumb) right.
CAMERA_FROM_HAND = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
CAMERA = PinholeCamera(2000.0, 2000.0, 140.0, 270.0)
SIZE = (300, 340)
ORDERS = (
    ("openpose", "OpenPose, MediaPipe, FreiHAND, DexYCB,\nCOCO-WholeBody, HUMBI, CMU: canonical"),
    ("mano", "MANO: 16 joints and 5 tips"),
    ("rhd", "RHD"),
    ("interhand", "InterHand2.6M"),
    ("stb", "STB"),
    ("msra", "MSRA"),
    ("nyu14", "NYU, 14 of 36"),
    ("icvl16", "ICVL"),
)


def hand() -> Hand:
    """The open hand, a right one, with spread fingers, palm to the camera."""
    layer = HandLayer(dtype=torch.float64)
    pose = torch.zeros(16, 3, dtype=torch.float64)
    for first, turn in ((1, 0.10), (4, 0.02), (7, -0.20), (10, -0.09), (13, 0.12)):
        pose[first, 1] = turn
    pose[0] = torch.from_numpy(cv2.Rodrigues(CAMERA_FROM_HAND)[0][:, 0])
    mesh = layer(torch.zeros(10, dtype=torch.float64), pose.reshape(48))
    shift = np.array([0.0, 0.0, 1500.0]) - mesh.joints_mm[0].numpy()
    joints = mesh.joints_mm.numpy() + shift
    return Hand(
        side="right",
        score=1.0,
        keypoints_px=CAMERA.uvd_from_xyz(joints)[:, :2],
        box_px=np.zeros(4),
        joints_mm=joints,
        vertices_mm=mesh.vertices_mm.numpy() + shift,
        camera=CAMERA,
    )


def picture(of: Hand, size: tuple[int, int] = SIZE, opacity: float = 0.6) -> np.ndarray:
    """The hand on white, twice as large as its camera sees it."""
    white = np.full((2 * size[1], 2 * size[0], 3), 255, np.uint8)
    return draw_hands(white, [of], factor=2, opacity=opacity)


def color_of(name: str) -> str:
    """A joint's color by its finger."""
    return next((color for finger, color in COLORS.items() if name.startswith(finger)), WRIST)


def joint_orders() -> Figure:
    """Every order's numbers on one hand."""
    figure, panels = plt.subplots(2, 4, figsize=(11.6, 7.2))
    right = hand()
    seen = picture(right, opacity=0.45)
    at = right.keypoints_px
    palm = 0.45 * at[0] + 0.55 * at[9]
    approximate = {"palm": palm, "palm_3": palm, "palm_1": at[0] + [16, -4], "palm_2": at[0] + [-16, -4]}
    for panel, (name, title) in zip(panels.flat, ORDERS, strict=True):
        order = JOINT_ORDERS[name]
        panel.imshow(seen, extent=(-0.5, SIZE[0] - 0.5, SIZE[1] - 0.5, -0.5))
        for a, b in BONES:
            panel.plot(*at[[a, b]].T, color="#999999", lw=1, zorder=1)
        for number, (joint, canonical) in enumerate(zip(order.names, order.canonical, strict=True)):
            place = at[canonical] if canonical >= 0 else approximate[joint]
            color = color_of(joint)
            face, text = (color, "white") if canonical >= 0 else ("white", color)
            panel.text(
                *place, str(number), color=text, fontsize=7.5, fontweight="bold", ha="center", va="center",
                bbox={"boxstyle": "circle,pad=0.2", "fc": face, "ec": color, "lw": 1.3}, zorder=3,
            )  # fmt: skip
        panel.set_title(title, fontsize=9.5)
        panel.set_xlim(20, 280)
        panel.set_ylim(305, 5)
        panel.axis("off")
    figure.suptitle(
        "One right hand, palm towards the camera: each data set's number of every joint\n"
        "Hollow: a point that the canonical hand does not have, drawn about where it is",
        fontsize=12,
    )
    figure.tight_layout()
    return figure


def _arrow(panel: Axes, start: np.ndarray, end: np.ndarray, color: str, text: str, away: np.ndarray) -> None:
    panel.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=18, lw=2.4, color=color, zorder=4)
    )
    panel.text(*(end + away), text, color=color, fontsize=12, fontweight="bold", ha="center", va="center")


def camera_axes() -> Figure:
    """The camera's axes as OpenCV and as OpenGL have them, seen from behind the camera's right shoulder."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 5))
    # A drawing of space: right, down and forward on paper.
    right, down, forward = np.array([1.0, 0.12]), np.array([0.0, -1.0]), np.array([0.80, 0.42])
    for panel, (title, y_sign, z_sign, names) in zip(
        panels,
        (
            ("opencv: handgraph's own, data sets, BVH on demand", 1, 1, ("x right", "y down", "z forward")),
            ("opengl: glTF, and BVH by default", -1, -1, ("x right", "y up", "z backward")),
        ),
        strict=True,
    ):
        # The picture that the camera takes, standing before it.
        around = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        corners = [2.3 * forward + sx * 0.95 * right + sy * 0.75 * down for sx, sy in around]
        panel.add_patch(Polygon(corners, closed=True, fc="#f4f6f7", ec="#7f8c8d", lw=1.5))
        for corner in corners:
            panel.plot([0, corner[0]], [0, corner[1]], color="#bdc3c7", lw=0.9, ls="--")
        shown = hand().keypoints_px - [150, 165]
        points = np.array([2.3 * forward + u / 200 * right + v / 200 * down for u, v in shown])
        for a, b in BONES:
            panel.plot(*points[[a, b]].T, color="#555555", lw=1.6)
        panel.scatter(*points.T, s=14, color="#555555", zorder=3)
        front = [0.25 * sx * right + 0.2 * sy * down for sx, sy in around]
        back = [corner - 0.3 * forward for corner in front]
        panel.add_patch(Polygon(back, closed=True, fc="#2c3e50", ec="#2c3e50"))
        panel.add_patch(Polygon(front, closed=True, fc="#34495e", ec="#2c3e50"))
        origin = np.zeros(2)
        _arrow(panel, origin, 1.05 * right, "#c0392b", names[0], np.array([0.08, -0.16]))
        _arrow(panel, origin, y_sign * 1.05 * down, "#1e8449", names[1], np.array([0.0, -0.13 * y_sign]))
        ahead = np.array([0.0, 0.2]) if z_sign > 0 else np.array([-0.1, -0.14])
        _arrow(panel, origin, z_sign * 1.15 * forward, "#2471a3", names[2], ahead)
        panel.set_title(title, fontsize=12)
        panel.set_xlim(-1.6, 3.2)
        panel.set_ylim(-1.4, 2.1)
        panel.set_aspect("equal")
        panel.axis("off")
    figure.suptitle("Half a turn about x leads from one to the other: it keeps a left hand left", fontsize=12)
    figure.tight_layout()
    return figure


def pixels_and_crops() -> Figure:
    """Pixel centres at integers, and a crop's u from the first centre to the last."""
    figure, (pixels, crop) = plt.subplots(1, 2, figsize=(12, 4.8), width_ratios=(1, 1.15))
    shades = np.random.default_rng(4).uniform(0.82, 0.97, (4, 5))
    pixels.imshow(shades, cmap="gray", vmin=0, vmax=1)
    for row in range(4):
        for column in range(5):
            pixels.plot(column, row, "o", color="#c0392b", ms=4)
    pixels.set_xticks(range(5))
    pixels.set_yticks(range(4))
    pixels.xaxis.tick_top()
    pixels.set_xlabel("u, pixels", fontsize=11)
    pixels.xaxis.set_label_position("top")
    pixels.set_ylabel("v, pixels", fontsize=11)
    pixels.plot(2.5, 1.5, "x", color="#2471a3", ms=10, mew=2.5)
    pixels.annotate(
        "(2.5, 1.5): a corner\nwhere four pixels meet", (2.5, 1.5), (2.62, 2.42), color="#2471a3", fontsize=10
    )
    pixels.annotate("(1, 0): the middle\nof a pixel", (1, 0), (-0.4, 0.85), color="#c0392b", fontsize=10,
                    arrowprops={"arrowstyle": "-", "color": "#c0392b"})  # fmt: skip
    pixels.set_title("the picture reaches from -0.5 to width - 0.5", fontsize=11, y=-0.12)

    right = hand()
    u, v = right.keypoints_px.min(0) - 14, right.keypoints_px.max(0) + 14
    side = float((v - u).max())
    middle = (u + v) / 2
    made = Crop.window((middle[0] - side / 2, middle[1] - side / 2, side, side), 8, CAMERA, rotation_rad=0.35)
    crop.imshow(picture(right), extent=(-0.5, SIZE[0] - 0.5, SIZE[1] - 0.5, -0.5))
    for joint in range(21):
        crop.plot(*right.keypoints_px[joint], "o", ms=3, color="#555555")
    grid = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), -1).reshape(-1, 2)
    crop.plot(*made.image_px(grid).T, "o", color="#c0392b", ms=3.5)
    edges = made.image_px(np.array([[-0.5, -0.5], [7.5, -0.5], [7.5, 7.5], [-0.5, 7.5]]))
    crop.add_patch(Polygon(edges, closed=True, fill=False, ec="#7f8c8d", lw=1.3))
    for corner, text, shift in (
        ((0, 0), "u 0, v 0", (26, 16)),
        ((7, 0), "u 1, v 0", (34, 14)),
        ((0, 7), "u 0, v 1", (-40, -8)),
        ((7, 7), "u 1, v 1", (-14, 18)),
    ):
        place = made.image_px(np.array(corner, float))
        crop.plot(*place, "o", color="#2471a3", ms=7)
        crop.text(
            place[0] + shift[0],
            place[1] + shift[1],
            text,
            color="#2471a3",
            fontsize=11,
            ha="center",
            va="center",
        )
    crop.set_xlim(-70, 360)
    crop.set_ylim(365, -60)
    crop.axis("off")
    crop.set_title(
        "a crop of 8 pixels, turned: u and v run from the first\npixel's centre (0) to the last's (1)",
        fontsize=11,
    )
    figure.tight_layout()
    return figure


def sides() -> Figure:
    """A right hand, and its mirror image: the left hand of the same pose."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 5.4))
    right = hand()
    for panel, side in zip(panels, ("right", "left"), strict=True):
        shown = picture(right)
        points = np.array(right.keypoints_px, np.float64)
        if side == "left":
            shown = shown[:, ::-1]
            points[:, 0] = SIZE[0] - 1 - points[:, 0]
        panel.imshow(shown, extent=(-0.5, SIZE[0] - 0.5, SIZE[1] - 0.5, -0.5))
        for a, b in BONES:
            panel.plot(*points[[a, b]].T, color="white", lw=2)
        for joint, (u, v) in enumerate(points):
            name = "wrist" if joint == 0 else FINGERS[(joint - 1) // 4]
            panel.plot(u, v, "o", ms=5, color=color_of(name))
        tip = points[4] + [0, -14]
        panel.text(*tip, "thumb", color=COLORS["thumb"], fontsize=12, ha="center")
        panel.add_patch(Rectangle((-0.5, -0.5), SIZE[0], SIZE[1], fill=False, ec="#7f8c8d"))
        panel.set_title(f"{side} hand, palm towards the camera", fontsize=12)
        panel.axis("off")
    rule = "mirror:  u ↦ width - 1 - u,  x ↦ -x,  cx ↦ width - 1 - cx;  an axis-angle (a, b, c) ↦ (a, -b, -c)"
    figure.suptitle(rule, fontsize=12, y=0.06)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    return figure


def main(folder: Path) -> None:
    """Write the pictures, each of at most 100 kB."""
    few, vivid = Image.Quantize.MEDIANCUT, Image.Quantize.MAXCOVERAGE
    for name, draw, colors, method in (
        ("joint_orders", joint_orders, 56, few),
        ("camera_axes", camera_axes, 112, vivid),
        ("pixels_and_crops", pixels_and_crops, 200, few),
        ("sides", sides, 200, vivid),
    ):
        figure = draw()
        figure.canvas.draw()
        drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3]
        plt.close(figure)
        path = folder / f"convention_{name}.png"
        Image.fromarray(drawn).quantize(colors, method, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "images")
