"""The colour estimator, with a network that sees 21 coloured dots and knows a right hand from a left one."""

import json

import cv2
import numpy as np
import pytest
import torch

import handgraph as hg
from handgraph.answering import TorchNetwork
from handgraph.cli import main
from handgraph.colour import ColourEstimator
from handgraph.decoding import hybrid_gcn as decoding
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.finder import Found
from handgraph.hand_model import HandLayer
from handgraph.images import IMAGENET_MEAN, IMAGENET_STD
from handgraph.placement import bone_lengths
from handgraph.subject import Subject
from handgraph.systems import hourglass, hybrid_gcn
from handgraph.training.checkpoint import save_weights

# A right hand's palm from the front, thumb to the left, in parts of its height; wrist, then finger by finger.
PLACES = np.array(
    [[0.5, 1.0], *((x + 0.04 * s * i, 0.7 - 0.17 * i) for s, x in
     [(-2, 0.3), (-0.5, 0.4), (0, 0.5), (0.5, 0.6), (1, 0.7)] for i in range(4))]
)  # fmt: skip
COLORS = np.array([(r, g, b) for r in (70, 150, 240) for g in (70, 150, 240) for b in (70, 150, 240)])[6:]
CONFIG = hourglass.Config(stacks=1, width=16, depth=2, input_size=96, decode="local")


class Dots(torch.nn.Module):
    """Finds each joint's color; a hand whose thumb is on the wrong side convinces it less."""

    def forward(self, image):
        rgb = image.permute(0, 2, 3, 1).numpy() * IMAGENET_STD + IMAGENET_MEAN
        uv, confidence = [], []
        for picture in rgb:
            distance = np.abs(picture[None] * 255 - COLORS[:, None, None]).max(axis=-1)
            near = distance.reshape(21, -1).min(axis=1) < 12
            # The middle of the pixels that come closest to the color.
            best = distance <= distance.min(axis=(1, 2), keepdims=True) + 3
            v, u = np.array([np.argwhere(one).mean(axis=0) for one in best]).T
            right = u[1:5].mean() < u[17:].mean()
            # More pixels of a dot are more convincing.
            size = (distance < 30).sum(axis=(1, 2)).clip(max=8) / 8
            uv.append(np.stack([u, v], axis=-1) / (picture.shape[1] - 1))
            confidence.append(near * (0.3 + 0.7 * size) * (0.9 if right else 0.4))
        maps = (torch.zeros(len(rgb), 21, 24, 24),)
        return hourglass.Output(
            maps, torch.tensor(np.array(uv)).float(), torch.tensor(np.array(confidence)).float()
        )


def picture(size, corner, height, *, mirrored=False):
    places = PLACES * [1 if not mirrored else -1, 1] + [0 if not mirrored else 1, 0]
    places = places * height + corner
    image = np.full((size[1], size[0], 3), 20, np.uint8)
    for (x, y), color in zip(places, COLORS, strict=True):
        cv2.circle(image, (round(x), round(y)), height // 24, color.tolist(), -1)
    return image, places


def bright(image):
    """A finder of what is brighter than the background, dots of one hand lying near one another."""
    mask = image.max(axis=2) > 40
    count, group = cv2.connectedComponents(cv2.dilate(mask.astype(np.uint8), np.ones((81, 81), np.uint8)))
    found = []
    for number in range(1, count):
        rows, columns = np.nonzero(mask & (group == number))
        box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        found.append(Found(tuple(float(value) for value in box), "right", 0.5, 0.9))
    return found


@pytest.fixture
def estimate():
    network = TorchNetwork(CONFIG.build(), "hourglass", CONFIG)
    network.module.module = Dots()
    return ColourEstimator(network, bright)


@pytest.mark.parametrize("side", ["right", "left"])
def test_hand_and_side_are_found_in_a_picture(estimate, side):
    image, places = picture((300, 260), (60, 40), 180, mirrored=side == "left")
    (hand,) = estimate(image)
    assert hand.side == side
    np.testing.assert_allclose(hand.keypoints_px, places, atol=10)
    assert hand.joints_mm is None


def test_a_side_that_is_told_is_not_doubted(estimate):
    image, _ = picture((300, 260), (60, 40), 180)
    assert estimate(image, side="left") == []  # the network finds it hard to believe
    estimate.least_score = 0.2
    (hand,) = estimate(image, side="left")
    assert hand.side == "left"


def test_a_hand_is_looked_at_again_closer(estimate):
    """In a crop around a box much larger than the hand the dots are too small to be convincing."""
    image, places = picture((900, 700), (520, 380), 170)
    box = (400.0, 300.0, 400.0, 400.0)
    (first,) = estimate._at(image, None, [(box, "right", 0.0)], None)
    (hand,) = estimate(image, box=box)
    assert hand.score > first.score + 0.1
    np.testing.assert_allclose(hand.keypoints_px, places, atol=3)


def test_every_hand_is_found_with_its_side(estimate):
    first, left = picture((700, 300), (30, 60), 180, mirrored=True)
    second, right = picture((700, 300), (400, 60), 180)
    hands = estimate(np.maximum(first, second))
    assert {hand.side for hand in hands} == {"left", "right"}
    for hand in hands:
        np.testing.assert_allclose(hand.keypoints_px, left if hand.side == "left" else right, atol=10)


def test_a_hand_found_twice_is_reported_once(estimate):
    image, places = picture((300, 260), (60, 40), 180)
    boxes = [(60.0, 40.0, 180.0, 180.0), (80.0, 60.0, 160.0, 170.0), (40.0, 20.0, 220.0, 220.0)]
    twice = ColourEstimator(estimate._network, lambda image: [Found(box, "left", 0.6, 0.5) for box in boxes])
    (hand,) = twice(image)
    np.testing.assert_allclose(hand.keypoints_px, places, atol=5)


def test_what_the_network_finds_unconvincing_is_no_hand(estimate):
    """The finder is mistaken in one of two places."""
    image, _ = picture((700, 300), (30, 60), 180)
    cv2.rectangle(image, (450, 100), (560, 220), (200, 200, 200), -1)
    assert len(bright(image)) == 2
    (hand,) = estimate(image)
    assert hand.keypoints_px[:, 0].max() < 300


class Counted:
    """A network that remembers how many crops it was asked about each time."""

    def __init__(self, network):
        self.network, self.asked = network, []

    def __getattr__(self, name):
        return getattr(self.network, name)

    def __call__(self, image, shape=None):
        self.asked.append(len(image))
        return self.network(image, shape)


def test_the_network_is_asked_no_more_than_it_must(estimate):
    """Either side, then the likely one closer; not where the first crop lay well, nor without a hand."""
    image, places = picture((700, 300), (30, 60), 180)
    cv2.rectangle(image, (450, 100), (560, 220), (200, 200, 200), -1)
    network = Counted(estimate._network)
    ColourEstimator(network, bright)(image)
    assert network.asked[0] == 4  # two places as either hand
    assert sum(network.asked[1:]) <= 1
    low, size = places.min(axis=0), np.ptp(places, axis=0).max()
    loose = (*(low - 0.8 * size), 2.6 * size, 2.6 * size)
    well = (*(low - 0.1 * size), 1.2 * size, 1.2 * size)
    for box, more in ((loose, [1]), (well, [])):
        network.asked.clear()
        (hand,) = ColourEstimator(network, bright)(image, box=box)
        assert network.asked == [2, *more]
        assert hand.side == "right"


def test_a_side_in_doubt_is_looked_at_closer_as_either_and_both_looks_count():
    from handgraph.colour import _likely, _of_one_side

    def looks(right, left):
        keypoints = PLACES * 100
        box = np.array([0.0, 0.0, 100.0, 100.0])
        return [hg.Hand(side, score, keypoints, box) for side, score in (("right", right), ("left", left))]

    assert [hand.side for hand in _likely(looks(0.70, 0.69))] == ["right", "left"]
    assert [hand.side for hand in _likely(looks(0.60, 0.69))] == ["left"]
    # The highest score of all is the right hand's, and does not make up for its lowest.
    surest = _of_one_side(looks(0.71, 0.70), looks(0.60, 0.69))
    assert (surest.side, surest.score) == ("left", 0.70)
    assert _of_one_side(looks(0.71, 0.70), looks(0.69, 0.69)).side == "right"


def test_looks_are_averaged_by_how_sure_they_are_of_each_joint():
    from handgraph.colour import _together

    def look(score, at, sure, **more):
        keypoints, confidence = np.full((21, 2), at), np.full(21, 0.5)
        confidence[8] = sure
        return hg.Hand(
            "left", score, keypoints, np.array([0.0, 0.0, 9.0, 9.0]), confidence=confidence, **more
        )

    hand = _together([look(0.6, 10.0, 0.2), look(0.65, 20.0, 0.8), look(0.4, 900.0, 0.9)])
    np.testing.assert_allclose(hand.keypoints_px[0], 15.0, atol=1e-4)
    # Squares of 0.2 and 0.8; what scores so much less than the surest has no part.
    np.testing.assert_allclose(hand.keypoints_px[8], (10 * 0.04 + 20 * 0.64) / 0.68, atol=1e-3)
    assert 0.6 < hand.score < 0.65
    placed = [look(0.6, 10.0, 0.5, joints_mm=np.full((21, 3), z)) for z in (500.0, 600.0)]
    assert _together(placed).joints_mm.tolist() == placed[0].joints_mm.tolist()


def test_further_looks_turn_the_picture_and_see_the_same(estimate):
    image, places = picture((300, 260), (60, 40), 180)
    network = Counted(estimate._network)
    patient = ColourEstimator(network, bright)
    (once,) = patient(image)
    asked = sum(network.asked)
    patient.looks = 3
    (hand,) = patient(image)
    assert sum(network.asked) == 2 * asked + 2
    np.testing.assert_allclose(hand.keypoints_px, places, atol=5)
    assert np.abs(hand.keypoints_px - once.keypoints_px).max() > 0
    for wrong in (0, 6):
        with pytest.raises(hg.ConfigError, match=f"looks is {wrong}, expected 1 to 5"):
            patient.looks = wrong


def test_a_box_needs_no_finder_and_says_which_of_two_hands(estimate):
    def never(image):
        raise AssertionError("the box is told")

    first, _ = picture((640, 300), (30, 60), 180)
    second, places = picture((640, 300), (400, 60), 180)
    boxed = ColourEstimator(estimate._network, never)
    (hand,) = boxed(np.maximum(first, second), box=(400.0, 30.0, 200.0, 240.0))
    np.testing.assert_allclose(hand.keypoints_px, places, atol=5)


def test_nothing_found_is_an_answer(estimate):
    assert estimate(np.full((120, 160, 3), 20, np.uint8)) == []
    assert estimate([np.full((120, 160, 3), 20, np.uint8)] * 2) == [[], []]


def test_the_camera_stays_with_the_hand(estimate):
    image, _ = picture((300, 260), (60, 40), 180)
    camera = hg.PinholeCamera(300.0, 300.0, 150.0, 130.0)
    assert estimate(image, camera)[0].camera == camera
    assert estimate(image)[0].camera is None


@pytest.mark.parametrize(
    ("image", "box", "error", "message"),
    [
        (np.zeros((50, 50), np.uint8), None, FormatError, r"uint8 \(50, 50\), expected uint8 RGB"),
        (np.zeros((50, 50, 3)), None, FormatError, r"float64 .*, expected uint8 RGB"),
        (np.zeros((5, 50, 3), np.uint8), None, FormatError, "50x5 pixels, expected at least 16x16"),
        (
            np.zeros((50, 50, 3), np.uint8),
            (60.0, 0.0, 5.0, 5.0),
            InputError,
            "lies outside the picture of 50x50",
        ),
        (np.zeros((50, 50, 3), np.uint8), (0.0, 0.0, 0.0, 5.0), InputError, "w and h above zero"),
    ],
)
def test_what_cannot_be_looked_at_is_said(estimate, image, box, error, message):
    with pytest.raises(error, match=message):
        estimate(image, box=box)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    save_weights(tmp_path / "weights.safetensors", CONFIG.build(), "hourglass", CONFIG)
    return tmp_path / "weights"


def test_predict_reads_photographs_and_goes_on_after_a_damaged_one(weights, tmp_path, capsys):
    image, _ = picture((300, 260), (60, 40), 180)
    cv2.imwrite(str(tmp_path / "good.jpg"), image[..., ::-1])
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:3000])
    cv2.imwrite(str(tmp_path / "depth.png"), np.full((60, 80), 500, np.uint16))
    files = [str(tmp_path / name) for name in ("cut.jpg", "depth.png", "good.jpg")]
    out = tmp_path / "out"
    code = main(["predict", *files, "--checkpoint", str(weights), "--json", "--out", str(out)])
    answered, said = capsys.readouterr()
    images = json.loads(answered)["images"]
    assert code == 2
    assert [image["file"] for image in images] == files
    assert "cut.jpg: the JPEG is cut short; copy it again" in said
    assert "depth.png: 16-bit grey PNG, which is a depth frame; expected a colour picture" in said
    assert cv2.imread(str(out / "good.png")) is not None


def test_a_colour_system_does_not_take_depth_data(weights, capsys):
    code = main(
        ["train", "hourglass_synthetic", "--out", str(weights.parent / "run"), "data.name=synthetic_depth"]
    )
    assert code == 2
    assert "data.name is synthetic_depth, but hourglass takes colour images" in capsys.readouterr().err


def test_a_part_of_a_hand_is_not_another_hand() -> None:
    from handgraph.colour import _distinct

    def hand(corner: tuple[float, float], side: float, score: float) -> hg.Hand:
        keypoints = PLACES * side + corner
        low = keypoints.min(axis=0)
        box = np.concatenate([low, keypoints.max(axis=0) - low])
        return hg.Hand(side="right", score=score, keypoints_px=keypoints, box_px=box, joints_mm=None)

    whole, part = hand((100, 100), 200, 0.9), hand((130, 150), 90, 0.6)
    beside = hand((190, 100), 200, 0.7)
    assert _distinct([part, whole]) == [whole]
    assert _distinct([whole, beside]) == [whole, beside]
    # The very place with other joints: a hand upside down.
    turned = hand((100, 100), 200, 0.5)
    turned = hg.Hand("right", 0.5, turned.keypoints_px[::-1], turned.box_px, None)
    assert _distinct([turned, whole]) == [whole]


class Pointing:
    """A `hybrid_gcn` that says the same of every crop: one pose, and keypoints that are it without depth."""

    name, input, runtime, takes_shape, meta = "hybrid_gcn", "colour", "torch", False, {}
    config = hybrid_gcn.Config(input_size=64)

    def __init__(self, pose):
        self.pose = pose

    def __call__(self, image, shape=None):
        n = len(image)
        uv = 0.5 + 0.05 * self.pose[:, :2]
        return decoding.Answer(np.tile(uv, (n, 1, 1)), np.tile(self.pose, (n, 1, 1)), np.full((n, 21), 0.9))


def person(bones_mm):
    return Subject(
        np.zeros(10), 180.0, 40.0, bones_mm, model="jgr_p2o", hand_model="open_hand", files=("a.png",),
        weights=(1.0,),
    )  # fmt: skip


def test_a_subject_gives_millimetres_by_all_their_bones_and_keypoints_a_place_on_request():
    flat = HandLayer()(torch.zeros(1, 10), torch.zeros(1, 48)).joints_mm[0].double().numpy()
    flat = (flat - flat[0]) @ cv2.Rodrigues(np.array([0.3, 0.2, 1.5]))[0].T
    bones = bone_lengths(flat)
    estimate = ColourEstimator(Pointing(flat / bones[9]), bright)
    subject_bones = 1.2 * bones
    subject_bones[9] *= 1.5  # the unit's own bone, labelled elsewhere
    image = np.zeros((200, 200, 3), np.uint8)
    told = {"camera": hg.PinholeCamera(400.0, 400.0, 100.0, 100.0), "box": (50.0, 50.0, 100.0, 100.0)}
    (hand,) = estimate(image, **told, side="right", subject=person(subject_bones))
    assert hand.frame.startswith("camera frame")
    np.testing.assert_allclose(bone_lengths(hand.joints_mm), 1.2 * bones, rtol=1e-3)
    (relative,) = estimate(image, **told, side="right")
    assert "relative" in relative.frame

    estimate.optimise = True
    (laid,) = estimate(image, **told, side="right", subject=person(subject_bones))
    seen = told["camera"].uvd_from_xyz(laid.joints_mm.astype(float))[:, :2]
    # The hand is seen where it says that it is, which before was so only about.
    assert np.abs(seen - laid.keypoints_px).max() < 0.1
    np.testing.assert_allclose(bone_lengths(laid.joints_mm).sum(), 1.2 * bones.sum(), rtol=0.02)


def test_systems_that_lay_nothing_on_keypoints_refuse_to(estimate):
    with pytest.raises(ConfigError, match="optimise: hourglass lays no 3D hand on 2D keypoints"):
        estimate.optimise = True
    estimate.optimise = None
