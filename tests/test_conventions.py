"""Each line of docs/conventions.md as a check, with what the wrong reading would give.

A wrong convention seldom fails: it gives plausible numbers. So every test states how far off they would be.
"""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import roma
import torch

import handgraph as hg
from handgraph.conventions import OPENGL_FROM_OPENCV, mirrored
from handgraph.decoding import hybrid_gcn
from handgraph.formats.clip import Clip, ClipFrame, ClipHand, Conventions
from handgraph.hand_model import HandLayer, load_open_hand
from handgraph.images import to_network
from handgraph.rotations import from_axis_angles, to_matrices
from handgraph.skeleton import JOINT_NAMES, MANO, RHD, STB

CAMERA = hg.PinholeCamera(588.03, 587.07, 320.0, 240.0)
CENTER = np.array([0.0, 0.0, 700.0])


def crop(**changes) -> hg.Crop:
    return hg.Crop.cube(CENTER, 250.0, CAMERA, 96, **changes)


@pytest.fixture(scope="module")
def open_hand() -> HandLayer:
    return HandLayer(load_open_hand(), dtype=torch.float64)


def posed(layer: HandLayer, pose: torch.Tensor | None = None) -> np.ndarray:
    """Joints in mm (21, 3) of the mean hand."""
    zeros = torch.zeros(1, 48, dtype=torch.float64) if pose is None else pose
    joints = layer.joints(
        torch.zeros(1, 10, dtype=torch.float64), zeros, torch.zeros(1, 3, dtype=torch.float64)
    )
    return joints[0].numpy()


def test_convention_camera_frame_is_x_right_y_down_z_forward():
    u, v, _ = CAMERA.uvd_from_xyz(np.array([10.0, 20.0, 700.0])) - [CAMERA.cx, CAMERA.cy, 0]
    assert u > 0  # right in the picture
    assert v > 0  # down in the picture
    # Right-handed: right × down = forward.
    np.testing.assert_array_equal(np.cross([1, 0, 0], [0, 1, 0]), [0, 0, 1])


def test_convention_y_up_labels_are_turned_when_read():
    """NYU's own script has fy = -587.07: its y points up."""
    u, v, d = 169.221, 199.638, 736.417
    y_up = (v - 240.0) * d / -587.07
    ours = CAMERA.xyz_from_uvd(np.array([u, v, d]))
    assert ours[1] == pytest.approx(-y_up)
    # Wrong reading: y-up numbers taken as ours stand 2·|y| = 101 mm away, above the axis for below.
    assert abs(ours[1] - y_up) == pytest.approx(101.26, abs=0.01)
    with pytest.raises(hg.InputError, match="turn data with y upwards over instead of giving a negative fy"):
        hg.PinholeCamera(588.03, -587.07, 320.0, 240.0)


def test_convention_lengths_are_millimetres():
    joint_mm = np.array([40.0, -20.0, 700.0])
    uvd = CAMERA.uvd_from_xyz(joint_mm)
    # Wrong reading: metres give the very same pixel, so no picture shows it; the depth is off a thousandfold,
    np.testing.assert_allclose(CAMERA.uvd_from_xyz(joint_mm / 1000)[:2], uvd[:2])
    assert CAMERA.uvd_from_xyz(joint_mm / 1000)[2] == uvd[2] / 1000
    # and the window of a cube of 250 around it grows from 210 pixels to 210 000.
    ends = np.array([[0.0, 0.0], [95.0, 0.0]])
    assert np.ptp(crop().image_px(ends)[:, 0]) == pytest.approx(250 * 588.03 / 700)
    metres = hg.Crop.cube(CENTER / 1000, 250.0, CAMERA)
    assert np.ptp(metres.image_px(ends)[:, 0]) == pytest.approx(1000 * 250 * 588.03 / 700)


def test_convention_hand_model_files_are_metres_and_what_the_layer_returns_millimetres(open_hand):
    rest_m = open_hand.model.rest_joints[0]
    wrist_mm = posed(open_hand)[0]
    np.testing.assert_allclose(wrist_mm, 1000 * rest_m, atol=1e-6)
    length = np.linalg.norm(posed(open_hand)[12] - wrist_mm)
    assert 150 < length < 220  # wrist to the tip of the middle finger: 185 mm, not 0.185


def test_convention_pixel_centres_are_integers():
    column, depth = 320.0, 700.0
    assert (
        CAMERA.xyz_from_uvd(np.array([column, 240.0, depth]))[0] == 0
    )  # cx = 320 is the middle of column 320
    # Wrong reading: with centres at +0.5 the same pixel stands half a pixel to the side, 0.6 mm at 700 mm.
    wrong = CAMERA.xyz_from_uvd(np.array([column + 0.5, 240.0, depth]))[0]
    assert wrong == pytest.approx(0.595, abs=1e-3)
    # The crop samples there: a frame whose reading is its column gives back the column itself.
    frame = np.tile(np.arange(640, dtype=np.float32), (480, 1)) * 0.1 + 650
    made = hg.Crop.cube(CENTER, 95 * 700 / 588.03, CAMERA, 96)  # one crop pixel a frame pixel, 272.5 … 367.5
    columns = (made.apply_depth(frame)[48] * made.cube_mm / 2 + 700 - 650) / 0.1
    sought = made.image_px(np.stack([np.arange(96.0), np.full(96, 48.0)], -1))[:, 0]
    assert np.abs(columns - sought).max() <= 0.51


def test_convention_uvd_is_not_xyz():
    uvd = np.array([320.0, 240.0, 700.0])
    xyz = CAMERA.xyz_from_uvd(uvd)
    np.testing.assert_array_equal(xyz, [0, 0, 700])
    # Wrong reading: pixels taken as millimetres put the picture's centre 400 mm off the axis.
    assert np.linalg.norm(uvd - xyz) == 400


def test_convention_depth_zero_is_no_reading():
    made = crop()
    empty = np.zeros((480, 640), np.float32)
    assert (made.apply_depth(empty) == 1).all()  # background
    # Wrong reading: a surface at 0 mm, clipped to the front of the cube, is a wall before the hand.
    assert np.clip((0 - made.center_depth_mm) / (made.cube_mm / 2), -1, 1) == -1


def test_convention_uvz_ends_at_pixel_centres():
    made = crop()
    right = made.xyz_from_uvz(np.array([1.0, 0.5, 0.0]))
    np.testing.assert_allclose(made.crop_px(CAMERA.uvd_from_xyz(right)[:2]), [95, 47.5], atol=1e-9)
    assert right[0] == pytest.approx(125)  # and the last pixel's centre is the cube's face
    # Wrong reading: u = pixel/size instead of pixel/(size - 1) moves the right edge inwards by 2.6 mm.
    wrong = made.xyz_from_uvz(np.array([95 / 96, 0.5, 0.0]))
    assert right[0] - wrong[0] == pytest.approx(250 / 96)


def test_convention_z_is_in_half_cubes():
    made = crop()
    assert made.xyz_from_uvz(np.array([0.5, 0.5, 1.0]))[2] == 700 + 125
    assert made.uvz_from_xyz(np.array([0.0, 0.0, 575.0]))[2] == -1
    # Wrong reading: z in whole cubes puts the back face of the cube twice as far behind its centre.
    assert 700 + 1.0 * made.cube_mm - made.xyz_from_uvz(np.array([0.5, 0.5, 1.0]))[2] == 125


def test_convention_left_hands_are_mirrored_in_and_out():
    """A left hand in its crop looks like its mirror image, a right hand; its joints come out as they were."""
    left = CENTER + np.array([[-40.0, 10.0, 5.0], [60.0, -30.0, -20.0]])
    right = left * [-1, 1, 1]  # the mirror image about the crop's centre
    uvz = crop(mirrored=True).uvz_from_xyz(left)
    np.testing.assert_allclose(uvz, crop().uvz_from_xyz(right), atol=1e-9)
    np.testing.assert_allclose(crop(mirrored=True).xyz_from_uvz(uvz), left, atol=1e-9)
    # Wrong reading: not mirrored out, a joint 60 mm to the right comes out 60 mm to the left.
    np.testing.assert_allclose(crop().xyz_from_uvz(uvz)[:, 0] - left[:, 0], [80, -120], atol=0.1)


def test_convention_joint_order_is_palm_to_tip():
    hand = np.zeros((21, 3))
    for finger in range(5):
        hand[1 + 4 * finger : 5 + 4 * finger, 0] = [60, 100, 130, 150]  # mm from the wrist along the finger
    theirs = RHD.from_canonical(hand)  # tip first
    np.testing.assert_array_equal(RHD.to_canonical(theirs), hand)
    assert theirs[1, 0] == 150
    # Wrong reading: tips for knuckles, 90 mm apart, the two joints between 30 mm, the wrist right.
    error = np.linalg.norm(theirs - hand, axis=1)
    np.testing.assert_allclose(error[:5], [0, 90, 30, 30, 90])
    assert error.mean() == pytest.approx(57.1, abs=0.1)
    # MANO's own order has the little finger before the ring finger.
    assert MANO.names[7].startswith("little")
    assert MANO.names[10].startswith("ring")


def test_convention_root_is_the_wrist():
    assert JOINT_NAMES[0] == "wrist"
    # STB's first joint is the palm's centre. Taken for the wrist it would be centimetres off; it is left out.
    assert STB.names[0] == "palm"
    assert np.isnan(STB.to_canonical(np.zeros((21, 3)))[0]).all()


def test_convention_model_frame_has_fingers_at_minus_x_and_thumb_at_plus_z(open_hand):
    joints = posed(open_hand) - posed(open_hand)[0]
    assert (joints[8:21:4, 0] < -100).all()  # the four fingertips
    assert joints[4, 2] > joints[5:, 2].max()  # the thumb's tip
    closed = posed(open_hand, fist(open_hand))
    assert (closed[8:21:4, 1] - posed(open_hand)[8:21:4, 1] < -20).all()  # they close towards the palm, -y


def fist(layer: HandLayer, angle: float = 0.9) -> torch.Tensor:
    """The fingers' joints bent about +z, which takes -x (along the finger) to -y (the palm)."""
    pose = torch.zeros(1, 16, 3, dtype=torch.float64)
    pose[:, 1:13, 2] = angle
    return pose.reshape(1, 48)


def handedness(joints: np.ndarray) -> float:
    """(Along the hand × towards the palm) · towards the thumb; positive for a right hand, fingers bent."""
    along = joints[9] - joints[0]
    palmwards = (joints[[8, 12, 16, 20]] - joints[[5, 9, 13, 17]]).mean(0)
    across = joints[5] - joints[17]
    return float(np.dot(np.cross(along, palmwards), across))


def test_convention_right_hand_is_canonical(open_hand):
    """Also in the camera frame: it is right-handed as the model's frame is, so a turn keeps the side."""
    right = posed(open_hand, fist(open_hand))
    assert handedness(right) > 0
    turn = roma.random_rotmat(dtype=torch.float64).numpy()
    assert handedness(right @ turn.T + CENTER) > 0
    # Wrong reading: in a frame with y up (or one axis turned over) the same numbers are a left hand.
    assert handedness(right * [1, -1, 1]) < 0
    left = HandLayer(load_open_hand(), side="left", dtype=torch.float64)
    bent = fist(left) * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64).repeat(16)
    np.testing.assert_allclose(posed(left, bent), right * [-1, 1, 1], atol=1e-6)
    assert handedness(posed(left, bent)) < 0


def test_convention_palm_towards_the_camera_shows_a_right_thumb_on_the_right(open_hand):
    # Fingers -x → up (-y), palm -y → towards the camera (-z), thumb +z → right (+x).
    camera_from_hand = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert np.linalg.det(camera_from_hand) == pytest.approx(1)
    joints = posed(open_hand) @ camera_from_hand.T + CENTER
    u, v, _ = CAMERA.uvd_from_xyz(joints).T
    assert v[12] < v[0]  # fingers up
    assert u[4] > u[20]  # thumb to the right; a left hand would show it on the left


def test_convention_rotations_turn_columns(open_hand):
    """Axis-angle in radians; R @ v turns v anticlockwise as seen from the tip of the axis."""
    quarter = torch.tensor([0.0, 0.0, np.pi / 2], dtype=torch.float64)
    matrix = roma.rotvec_to_rotmat(quarter).numpy()
    np.testing.assert_allclose(matrix @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    # Wrong reading: rows (v @ R) turn the other way round.
    np.testing.assert_allclose(np.array([1, 0, 0]) @ matrix, [0, -1, 0], atol=1e-12)
    # The layer's first three pose numbers are this rotation about the wrist.
    pose = torch.zeros(1, 48, dtype=torch.float64)
    pose[0, :3] = quarter
    rest, turned = posed(open_hand), posed(open_hand, pose)
    np.testing.assert_allclose(turned - turned[0], (rest - rest[0]) @ matrix.T, atol=1e-6)
    # Wrong reading: degrees taken as radians; 90 radians are 14 turns and 117 degrees.
    degrees = roma.rotvec_to_rotmat(quarter * 180 / np.pi).numpy()
    assert np.degrees(np.arctan2(degrees[1, 0], degrees[0, 0])) == pytest.approx(116.6, abs=0.1)


def test_labels_of_real_right_hands_follow_the_conventions(real_data):
    """Labelled elsewhere in our frame and order: a right hand, its joints just behind the measured skin."""
    folder = real_data / "rgbd_mesh_handx"
    behind_skin = []
    for labels in sorted(folder.glob("*_Joint.obj")):
        stamp = labels.name.removesuffix("_Joint.obj")
        rows = [line.split()[1:4] for line in labels.read_text().splitlines() if line.startswith("v ")]
        joints = np.array(rows, dtype=float)
        fx, fy, cx, cy = map(float, (folder / f"{stamp}_intrinsics.txt").read_text().split()[:4])
        depth = cv2.imread(str(folder / f"{stamp}_depth.png"), cv2.IMREAD_UNCHANGED).astype(float)
        uvd = hg.PinholeCamera(fx, fy, cx, cy).uvd_from_xyz(joints)
        column, row = np.rint(uvd[:, :2]).astype(int).T
        surface = depth[row, column]
        behind_skin.append(np.median((uvd[:, 2] - surface)[surface > 0]))
        assert handedness(joints) > 0
        # Wrong reading: with y up it is a left hand.
        assert handedness(joints * [1, -1, 1]) < 0
    assert len(behind_skin) == 21
    assert min(behind_skin) > 0
    assert max(behind_skin) < 15


def test_page_and_tests_name_one_another():
    page = (Path(__file__).parents[1] / "docs" / "conventions.md").read_text(encoding="utf-8")
    named = re.findall(r"`test_convention_(\w+)`", page)
    here = [
        name.removeprefix("test_convention_") for name in globals() if name.startswith("test_convention_")
    ]
    assert sorted(named) == sorted(here)


def test_convention_colour_is_rgb_about_imagenets_mean():
    red = np.full((2, 2, 3), [255, 0, 0], np.uint8)
    seen = to_network(red)
    np.testing.assert_allclose(
        seen[:, 0, 0], [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5
    )
    wrong = to_network(red[..., ::-1])  # OpenCV's own order
    assert abs(wrong[0, 0, 0] - seen[0, 0, 0]) > 4


def test_convention_crop_frame_turns_with_the_crop():
    turned = hg.Crop.window((300.0, 200.0, 80.0, 80.0), 96, CAMERA, rotation_rad=np.pi / 2)
    # A quarter turn of the picture takes what is right of the wrist below it.
    np.testing.assert_allclose(turned.crop_from_camera @ [30.0, 0.0, 5.0], [0.0, 30.0, 5.0], atol=0.1)
    mirrored = hg.Crop.window((300.0, 200.0, 80.0, 80.0), 96, CAMERA, mirrored=True)
    np.testing.assert_allclose(mirrored.crop_from_camera @ [30.0, 0.0, 5.0], [-30.0, 0.0, 5.0], atol=1e-9)


@pytest.mark.parametrize("left", [False, True])
def test_convention_answers_are_about_the_line_of_sight(left):
    x, y, w = 30.0, 60.0, 90.0
    window = hg.Crop.window((x, y, w, w), 64, CAMERA, mirrored=left)
    said = np.random.default_rng(0).normal(0, 1, (21, 3))
    found = hybrid_gcn.relative_mm(said[None], [window], np.ones(1))[0]
    # As docs/export.md has it.
    middle = x + (w - 1) / 2, y + (w - 1) / 2
    line = np.array([(middle[0] - CAMERA.cx) / CAMERA.fx, (middle[1] - CAMERA.cy) / CAMERA.fy, 1.0])
    a, b, c = line / np.linalg.norm(line)
    upper = [1 - a * a / (1 + c), -a * b / (1 + c), -a], [-a * b / (1 + c), 1 - b * b / (1 + c), -b]
    turn = np.array([*upper, [a, b, c]])
    back = (said - said[0]) * [-1.0 if left else 1.0, 1.0, 1.0]
    np.testing.assert_allclose(found, back @ turn, atol=1e-6)
    assert np.abs(found - back).max() > 0.3  # wrong reading: the crop's own frame


def test_convention_opengl_axes_are_half_a_turn_about_x(open_hand):
    turn = np.diag(OPENGL_FROM_OPENCV)
    np.testing.assert_allclose(turn, roma.rotvec_to_rotmat(torch.tensor([np.pi, 0, 0])).numpy(), atol=1e-6)
    right = posed(open_hand, fist(open_hand))
    assert handedness(right @ turn.T) > 0
    # Wrong reading: only y turned over makes a left hand.
    assert handedness(right * [1, -1, 1]) < 0


def test_convention_quaternions_say_their_order():
    quarter = np.zeros((16, 3))
    quarter[0] = [0, 0, np.pi / 2]
    numbers = from_axis_angles("quaternion_wxyz", quarter)[0]
    np.testing.assert_allclose(numbers[0], [np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    np.testing.assert_allclose(to_matrices("quaternion_wxyz", numbers)[0] @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    # Wrong reading: a quarter turn about x, just as valid.
    wrong = to_matrices("quaternion_xyzw", numbers)[0]
    np.testing.assert_allclose(wrong @ [0, 1, 0], [0, 0, 1], atol=1e-12)


def test_convention_6d_is_two_columns():
    turned = np.zeros((16, 3))
    turned[0] = [0.3, -0.5, 0.8]
    matrix = to_matrices("axis_angle", turned)[0]
    numbers = from_axis_angles("6d", turned)[0][0]
    np.testing.assert_allclose(numbers, [*matrix[:, 0], *matrix[:, 1]])
    # Wrong reading: taken as rows it is the inverse turn.
    rows = np.stack([numbers[:3], numbers[3:], np.cross(numbers[:3], numbers[3:])])
    np.testing.assert_allclose(rows, matrix.T, atol=1e-12)


def test_convention_zero_pose_is_the_flat_hand(open_hand):
    flat = posed(open_hand)
    mean = torch.cat([torch.zeros(3), torch.tensor(open_hand.model.hands_mean)])[None].double()
    # Wrong reading: with the mean hand as zero the fingertips are centimetres away.
    assert np.linalg.norm(posed(open_hand, mean)[8:21:4] - flat[8:21:4], axis=1).min() > 20
    from_mean = HandLayer(load_open_hand(), flat_hand_mean=False, dtype=torch.float64)
    np.testing.assert_allclose(posed(from_mean), posed(open_hand, mean), atol=1e-6)


def test_convention_mirroring_takes_the_last_pixel_to_the_first():
    hand = ClipHand(side="right", points_px=np.tile([0.0, 5.0], (21, 1)))
    clip = Clip(Conventions(order="openpose"), (ClipFrame(0, (hand,), size_px=(640, 480)),))
    assert mirrored(clip).hands[0].points_px[0].tolist() == [639, 5]
    # Wrong reading: width - u is a pixel too far, outside the picture; at 700 mm that is 1.2 mm.
    ends = CAMERA.xyz_from_uvd(np.array([[639.0, 5, 700], [640.0, 5, 700]]))
    assert ends[1, 0] - ends[0, 0] == pytest.approx(1.19, abs=1e-2)
