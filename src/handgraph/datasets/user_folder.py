"""Your own photographs: a folder with labels, `labels.json` (COCO keypoints) or `labels.csv`.

    mine/labels.json  or  mine/labels.csv
    mine/kitchen_01.jpg …            named in the labels, relative to mine (or to mine/images)

`labels.csv` has one row a hand; a picture with two hands has two rows. Its first row names the columns:

    file                        the picture
    wrist_u, wrist_v …          pixels, for each of the 21 joint names of `handgraph.skeleton.JOINT_NAMES`
    wrist_x, wrist_y, wrist_z … millimetres in the camera frame (x right, y down, z forward), optional
    side                        left or right, optional
    fx, fy, cx, cy              the camera, optional
    box_x, box_y, box_w, box_h  the hand's box in pixels, optional
    subject                     whose hand it is, optional

An empty cell is an unknown. `labels.json` is a COCO keypoint file: `images` (id, file_name), `annotations`
(image_id, keypoints as 21 × (u, v, visibility), visibility 0 unknown, 1 hidden, 2 visible; optional bbox),
and beyond COCO and optional, `side`, `subject`, `joints_mm` 21 × (x, y, z) and `camera` {fx, fy, cx, cy} in
the annotation; the last also in the image. `handgraph.formats.write_coco` writes all of these.

Splits are folders, as for synthetic data: `train` of root `mine` is mine/train; `all` is the folder itself.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.camera import PinholeCamera
from handgraph.datasets.boxes import keypoint_box
from handgraph.datasets.files import (
    expect_files,
    list_under,
    number_array,
    read_bytes,
    read_color_frame,
    read_json,
)
from handgraph.datasets.sample import Sample
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.skeleton import JOINT_NAMES, JOINT_ORDERS, JointOrder

SPLITS = ("all", "train", "validation", "test")
LABEL_FILES = ("labels.json", "labels.csv")
PICTURE_FOLDER = "images"
_CAMERA = ("fx", "fy", "cx", "cy")
_BOX = ("box_x", "box_y", "box_w", "box_h")
_PLAIN_COLUMNS = ("file", "side", "subject", *_CAMERA, *_BOX)


class UserFolder:
    """Random access to the hands of a folder of labelled pictures.

    root      the folder with labels.json or labels.csv
    split     all (the folder itself), or train, validation, test: folders of root
    labels    the label file's name where it is another; .csv or .json
    order     the joints' order in a COCO file, one of `skeleton.JOINT_ORDERS`; needed where the file names
              its keypoints otherwise than `skeleton.JOINT_NAMES`. The default is canonical

    Raises InputError for a folder without labels and for pictures that are not there, FormatError for labels
    that cannot be: the message names file and line or annotation.
    """

    name = "folder"

    def __init__(
        self, root: str | Path, split: str = "all", *, labels: str | None = None, order: str | None = None
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"folder: no split {split!r}; there are {', '.join(SPLITS)}")
        if order is not None and order not in JOINT_ORDERS:
            raise ConfigError(f"folder: no joint order {order!r}; there are {', '.join(JOINT_ORDERS)}")
        self.split = split
        self.folder = Path(root) if split == "all" else Path(root) / split
        path = _find(self.folder, labels)
        if path.suffix == ".csv":
            self.order, self._hands = JOINT_ORDERS["openpose"], _from_csv(path)
        else:
            self.order, self._hands = _from_coco(path, order)
        self.joints = tuple(range(len(self.order.names)))
        if self.order.complete:
            self.joints = tuple(int(index) for index in self.order.gather)
        names = sorted({hand["file"] for hand in self._hands})
        if not (self.folder / names[0]).is_file() and (self.folder / PICTURE_FOLDER / names[0]).is_file():
            self.folder = self.folder / PICTURE_FOLDER
        expect_files(self.folder, names)

    def __len__(self) -> int:
        return len(self._hands)

    def image_path(self, index: int) -> Path:
        """The picture of a hand, counted from 0."""
        return self.folder / self._hands[index]["file"]

    def __getitem__(self, index: int) -> Sample:
        """Raises FormatError when the picture is damaged or the label impossible, IndexError past the end."""
        index = range(len(self))[index]
        hand, path = self._hands[index], self.image_path(index)
        return Sample(
            frame=hand["frame"],
            source=path,
            order=self.order,
            keypoints_px=hand["keypoints_px"],
            joints_mm=hand["joints_mm"],
            image=read_color_frame(path),
            camera=hand["camera"],
            visible=hand["visible"],
            side=hand["side"],
            subject=hand["subject"],
            box_px=keypoint_box(hand["keypoints_px"]) if hand["box_px"] is None else hand["box_px"],
        )


def _find(folder: Path, name: str | None) -> Path:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    there = [folder / each for each in ([name] if name else LABEL_FILES) if (folder / each).is_file()]
    if len(there) > 1:
        raise InputError(f"{folder}: both {' and '.join(LABEL_FILES)} are there; say which with labels=")
    if not there:
        raise InputError(
            f"{folder}: no {name or ' or '.join(LABEL_FILES)}; see handgraph.datasets.user_folder"
        )
    if there[0].suffix not in (".csv", ".json"):
        raise InputError(f"{there[0]}: expected a .json (COCO keypoints) or a .csv")
    return there[0]


def _from_csv(path: Path) -> list[dict[str, Any]]:
    try:
        text = read_bytes(path).decode("utf-8-sig")
        rows = list(csv.reader(text.splitlines(), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path}: not readable as CSV in UTF-8 ({error})") from error
    header, *rows = [row for row in rows if row] or [[]]
    points = {f"{joint}_{axis}" for joint in JOINT_NAMES for axis in "uvxyz"}
    unknown = [column for column in header if column not in points and column not in _PLAIN_COLUMNS]
    if unknown or len(set(header)) != len(header):
        twice = [column for column in header if header.count(column) > 1]
        fault = "unknown" if unknown else "there twice"
        raise FormatError(
            f"{path}: column {(unknown or twice)[0][:40]!r} is {fault}; "
            f"expected {', '.join(_PLAIN_COLUMNS)} and JOINT_u, JOINT_v, JOINT_x, JOINT_y, JOINT_z"
        )
    if "file" not in header or not {"wrist_u", "wrist_v"} <= set(header):
        raise FormatError(f"{path}: no column {'file' if 'file' not in header else 'wrist_u or wrist_v'}")
    hands: list[dict[str, Any]] = []
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise FormatError(f"{path}: line {number} has {len(row)} cells, the header {len(header)}")
        cells = dict(zip(header, row, strict=True))
        where = f"{path}: line {number}"
        keypoints = np.array([[_number(where, cells, f"{j}_{axis}") for axis in "uv"] for j in JOINT_NAMES])
        joints = np.array([[_number(where, cells, f"{j}_{axis}") for axis in "xyz"] for j in JOINT_NAMES])
        camera = [_number(where, cells, column) for column in _CAMERA]
        box = [_number(where, cells, column) for column in _BOX]
        for name, values in (("camera", camera), ("box", box)):
            if 0 < np.isnan(values).sum() < 4:
                raise FormatError(f"{where}: only a part of the {name} is given")
        hands.append(
            _hand(
                where,
                hands,
                cells["file"],
                keypoints,
                None if np.isnan(joints).all() else joints,
                None if np.isnan(camera).all() else camera,
                None if np.isnan(box).all() else np.array(box),
                cells.get("side") or None,
                cells.get("subject") or None,
            )
        )
    if not hands:
        raise FormatError(f"{path}: holds no hand")
    return hands


def _number(where: str, cells: dict[str, str], column: str) -> float:
    """The cell's number; NaN for an empty or missing one."""
    text = cells.get(column, "").strip()
    try:
        if "_" in text:  # Python reads 1_5 as 15
            raise ValueError
        value = float(text) if text else np.nan
    except ValueError as error:
        raise FormatError(f"{where}: {column} is {text[:40]!r}, expected a number or nothing") from error
    if text and not np.isfinite(value):
        raise FormatError(f"{where}: {column} is {text[:40]!r}; leave unknowns empty")
    return value


def _from_coco(path: Path, order_name: str | None) -> tuple[JointOrder, list[dict[str, Any]]]:
    content = read_json(path)
    order = _order(path, content, order_name)
    count = len(order.names)
    images: dict[Any, dict[str, Any]] = {}
    for number, image in enumerate(list_under(path, content, "images")):
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            raise FormatError(f"{path}: image {number} has no file_name")
        if not isinstance(image.get("id"), int | str):
            raise FormatError(f"{path}: image {number} has no id")
        images[image["id"]] = image
    hands: list[dict[str, Any]] = []
    for number, label in enumerate(list_under(path, content, "annotations")):
        where = f"{path}: annotation {number}"
        image_id = label.get("image_id") if isinstance(label, dict) else None
        if not isinstance(image_id, int | str) or image_id not in images:
            raise FormatError(f"{where} belongs to no listed image")
        points = number_array(path, f"annotation {number}: keypoints", label.get("keypoints"), (None,))
        if len(points) != 3 * count:
            raise FormatError(f"{where}: {len(points)} numbers in keypoints, expected {3 * count}")
        points = points.reshape(count, 3)
        if not np.isin(points[:, 2], (0, 1, 2)).all():
            raise FormatError(f"{where}: visibility {points[:, 2].max():g}, expected 0, 1 or 2")
        given = {name: label.get(name) for name in ("joints_mm", "bbox")}
        camera = label.get("camera") or images[image_id].get("camera")
        if camera is not None:
            values = [camera.get(name) for name in _CAMERA] if isinstance(camera, dict) else None
            camera = number_array(path, f"annotation {number}: camera", values, (4,)).tolist()
        shapes = {"joints_mm": (count, 3), "bbox": (4,)}
        arrays = {
            name: None if value is None else number_array(path, f"annotation {number}: {name}", value, shape)
            for (name, value), shape in zip(given.items(), shapes.values(), strict=True)
        }
        hand = _hand(
            where,
            hands,
            images[image_id]["file_name"],
            np.where(points[:, 2:] > 0, points[:, :2], np.nan),
            arrays["joints_mm"],
            camera,
            arrays["bbox"],
            label.get("side"),
            label.get("subject"),
        )
        hand["visible"] = points[:, 2] == 2
        hands.append(hand)
    if not hands:
        raise FormatError(f"{path}: holds no annotation")
    return order, hands


def _order(path: Path, content: Any, name: str | None) -> JointOrder:
    """The order asked for; else canonical, where the file does not name its keypoints otherwise."""
    if name is not None:
        return JOINT_ORDERS[name]
    categories = content.get("categories") if isinstance(content, dict) else None
    for category in categories if isinstance(categories, list) else []:
        named = category.get("keypoints") if isinstance(category, dict) else None
        if named is not None and tuple(map(str, named)) != JOINT_NAMES:
            first = next(
                (n for n, want in zip(named, JOINT_NAMES, strict=False) if n != want), "another number"
            )
            raise FormatError(
                f"{path}: its keypoints have other names ({str(first)[:40]!r}) than skeleton.JOINT_NAMES; "
                "give order=openpose if they are wrist, then thumb to little finger, each from palm to tip"
            )
    return JOINT_ORDERS["openpose"]


def _hand(
    where: str,
    before: list[dict[str, Any]],
    file: str,
    keypoints_px: np.ndarray,
    joints_mm: np.ndarray | None,
    camera: list[float] | None,
    box_px: np.ndarray | None,
    side: Any,
    subject: Any,
) -> dict[str, Any]:
    """One hand's record, its fields as `Sample` takes them."""
    file = file.replace("\\", "/")
    if not file or file.startswith("/") or ".." in file.split("/"):
        raise FormatError(f"{where}: picture {file[:60]!r}, expected a name below the folder")
    if side not in (None, "left", "right"):
        raise FormatError(f"{where}: side is {str(side)[:40]!r}, expected left or right")
    if not np.isfinite(keypoints_px).all(axis=1).any():
        raise FormatError(f"{where}: no keypoint is known")
    if box_px is not None and box_px[2:].min() <= 0:
        raise FormatError(f"{where}: the box has no size")
    try:
        pinhole = None if camera is None else PinholeCamera(*camera)
    except InputError as error:
        raise FormatError(f"{where}: {error}") from error
    earlier = sum(hand["file"] == file for hand in before[-20:])  # hands of a picture stand together
    return {
        "file": file,
        "frame": file if not earlier else f"{file}#{earlier + 1}",
        "keypoints_px": keypoints_px.astype(np.float32),
        "joints_mm": None if joints_mm is None else joints_mm.astype(np.float32),
        "camera": pinhole,
        "box_px": None if box_px is None else box_px.astype(np.float32),
        "side": side,
        "subject": None if subject is None else str(subject),
        "visible": None,
    }
