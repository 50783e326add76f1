"""Pictures and pages: the skeleton lies where the keypoints are, and the page stands on its own."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from handgraph import Hand, InputError, PinholeCamera
from handgraph.report import (
    FINGER_COLORS,
    WRIST_COLOR,
    depth_picture,
    joint_color,
    overlay,
    page,
    write_overlay,
    write_page,
)
from handgraph.skeleton import FINGERS, JOINT_NAMES

CAMERA = PinholeCamera(200.0, 200.0, 160.0, 120.0)


@pytest.fixture
def depth_mm() -> np.ndarray:
    depth = np.full((240, 320), 900, np.float32)
    depth[60:180, 100:220] = 500
    depth[:10] = 0
    return depth


@pytest.fixture
def hand() -> Hand:
    """Joints on a grid, 20 px apart, so that no two cover each other."""
    columns, rows = np.arange(21) % 7, np.arange(21) // 7
    keypoints = np.column_stack([90 + 20 * columns, 90 + 30 * rows]).astype(np.float64)
    joints = CAMERA.xyz_from_uvd(np.column_stack([keypoints, np.full(21, 500.0)]))
    confidence = np.ones(21)
    confidence[3] = 0.1
    return Hand(
        "right", 0.876, keypoints, np.array([90.0, 90, 120, 60]), joints, None, None, None, confidence, CAMERA
    )


def test_each_joint_is_drawn_in_its_colour_at_its_place(depth_mm: np.ndarray, hand: Hand) -> None:
    picture = overlay(depth_mm, [hand])
    assert picture.shape[1] == 640, "small frames are enlarged"
    for joint, (u, v) in enumerate(hand.keypoints_px):
        center = picture[round(v * 2 + 0.5), round(u * 2 + 0.5)]
        if joint == 3:
            assert center.max() < 60, "an unsure joint is hollow"
        else:
            np.testing.assert_allclose(center, joint_color(joint), atol=30)


def test_fingers_have_their_own_colours() -> None:
    assert len({*FINGER_COLORS.values(), WRIST_COLOR}) == 6
    for joint, name in enumerate(JOINT_NAMES[1:], start=1):
        assert joint_color(joint) == FINGER_COLORS[name.partition("_")[0]]
    assert set(FINGER_COLORS) == set(FINGERS)


def test_near_is_lighter_than_far_and_no_reading_is_black(depth_mm: np.ndarray) -> None:
    picture = depth_picture(depth_mm).astype(int).sum(axis=2)
    assert picture[120, 160] > picture[200, 20] > picture[5, 5] == 0
    assert not depth_picture(np.zeros((20, 30), np.float32)).any()


def test_hands_far_outside_the_frame_do_not_break_the_picture(depth_mm: np.ndarray, hand: Hand) -> None:
    far = Hand("left", 0.5, hand.keypoints_px + 1e9, hand.box_px, hand.joints_mm, camera=CAMERA)
    inside = overlay(depth_mm, [far])[: 2 * depth_mm.shape[0]]
    np.testing.assert_array_equal(inside, overlay(depth_mm, [far, far])[: 2 * depth_mm.shape[0]])


def test_overlay_file_is_the_picture(tmp_path: Path, depth_mm: np.ndarray, hand: Hand) -> None:
    write_overlay(tmp_path / "hand.png", depth_mm, [hand])
    read = cv2.imread(str(tmp_path / "hand.png"))[..., ::-1]
    np.testing.assert_array_equal(read, overlay(depth_mm, [hand]))
    assert [path.name for path in tmp_path.iterdir()] == ["hand.png"], "nothing is left beside it"


class Page(HTMLParser):
    """Collects tags, what they refer to, and the text of the table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.cells.append(data.strip())


def test_page_is_whole_and_asks_for_nothing(depth_mm: np.ndarray, hand: Hand) -> None:
    text = page("<script>alert(1)</script> & co.png", "jgr_p2o", depth_mm, [hand])
    read = Page(text)
    assert read.open == [], "every tag is closed"
    assert "{{" not in text
    assert len(read.links) == 1
    assert read.links[0].startswith("data:image/png;base64,")
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|<link", text)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert 'name="viewport"' in text


def test_page_holds_picture_and_numbers(depth_mm: np.ndarray, hand: Hand) -> None:
    text = page("frame.png", "jgr_p2o", depth_mm, [hand])
    read = Page(text)
    embedded = np.frombuffer(base64.b64decode(read.links[0].partition(",")[2]), np.uint8)
    np.testing.assert_array_equal(
        cv2.imdecode(embedded, cv2.IMREAD_COLOR)[..., ::-1], overlay(depth_mm, [hand])
    )
    assert "Right hand, score 0.88" in text
    assert hand.frame in text
    assert hand.order in text
    assert hand.joints_mm is not None
    cells = [cell for cell in read.cells if cell]
    row = cells.index("index tip")
    expected = [*hand.joints_mm[8], *hand.keypoints_px[8], 1.0]
    np.testing.assert_allclose([float(cell) for cell in cells[row + 1 : row + 7]], expected, atol=0.05)
    data = json.loads(re.search(r"const DATA = (.*);\n", text)[1].replace("<\\/", "</"))  # type: ignore[index]
    turned = np.array(data["hands"][0])
    np.testing.assert_allclose(turned - turned[0], hand.joints_mm - hand.joints_mm[0], atol=0.11)
    assert len(data["bones"]) == 20


def test_page_without_a_hand_says_so(depth_mm: np.ndarray) -> None:
    text = page("frame.png", "jgr_p2o", depth_mm, [])
    assert "No hand found in this frame." in text
    assert "<canvas" not in text


def test_no_folder_no_page(tmp_path: Path, depth_mm: np.ndarray) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_page(tmp_path / "file" / "page.html", "t", "m", depth_mm, [])
    with pytest.raises(InputError, match="cannot be written"):
        write_overlay(tmp_path / "file" / "a.png", depth_mm, [])


def test_a_hand_with_vertices_is_drawn_and_turned_as_a_mesh() -> None:
    from handgraph.hand_model import HandLayer

    mesh = HandLayer()(torch.zeros(1, 10), torch.zeros(1, 48), torch.tensor([[80.0, 0.0, 500.0]]))
    camera = PinholeCamera(300.0, 300.0, 80.0, 60.0)
    joints = mesh.joints_mm[0].double().numpy()
    bare = Hand(
        side="right",
        score=0.9,
        keypoints_px=camera.uvd_from_xyz(joints)[:, :2],
        box_px=np.zeros(4),
        joints_mm=joints,
        camera=camera,
    )
    hand = replace(bare, vertices_mm=mesh.vertices_mm[0].numpy())
    frame = np.full((120, 160), 900.0, np.float32)
    differs = (overlay(frame, [hand]) != overlay(frame, [bare])).any(-1)
    assert 0.02 < differs.mean() < 0.5
    text = page("t", "m", frame, [hand])
    data = json.loads(re.search(r"const DATA = (.*);\n", text)[1])
    middle = (joints.max(0) + joints.min(0)) / 2
    np.testing.assert_allclose(data["meshes"][0]["vertices"], hand.vertices_mm - middle, atol=0.06)
    assert len(data["meshes"][0]["faces"]) == len(HandLayer().model.faces)
    assert "3D mesh of the hand" in text
    assert "3D skeleton" in page("t", "m", frame, [bare])
    foreign = replace(bare, vertices_mm=np.zeros((7, 3)))
    assert json.loads(re.search(r"const DATA = (.*);\n", page("t", "m", frame, [foreign]))[1])["meshes"] == [
        None
    ]
