"""The hand finder: maps and boxes, doubles, letterboxes, and what the shipped weights find in scenes."""

import itertools

import numpy as np
import pytest
import torch

from handgraph import finder as finding
from handgraph.errors import CheckpointError, ConfigError
from handgraph.finder import SIZE, Finder, Letterbox, decode, distinct, encode, iou, letterbox, shipped
from handgraph.networks import finder as networks
from handgraph.synthetic.scenes import SceneSynthesizer
from handgraph.training.checkpoint import save_weights


def maps_of(target):
    """Maps that say exactly what `encode` wants."""
    p = np.clip(target[0], 1e-4, 1 - 1e-4)
    return np.concatenate([np.log(p / (1 - p))[None], target[3:7], 10 * target[7:] - 5]).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_boxes_come_back_from_their_maps(scale):
    boxes = np.array(
        [
            [10.0, 20.0, 60.0, 40.0],
            [100.0, 90.0, 14.0, 12.0],
            [120.0, 10.0, 90.0, 70.0],
            [-30.0, 100.0, 80.0, 50.0],
        ]
    )
    sides = ("left", "right", "right", "left")
    target = encode(boxes, sides, np.ones(4, bool), 160, 192)
    found = decode(maps_of(target), Letterbox(scale, 160, 192), 0.9)
    assert len(found) == 4
    for box, side in zip(boxes, sides, strict=True):
        (match,) = [one for one in found if np.abs(scale * np.array(one.box_px) - box).max() < 1e-3]
        assert match.side == side
        assert match.side_confidence > 0.99


def test_a_hand_that_is_hardly_seen_neither_counts_nor_counts_against():
    boxes = np.array([[10.0, 20.0, 60.0, 40.0], [120.0, 100.0, 40.0, 40.0]])
    target = encode(boxes, ("left", "right"), np.array([True, False]), 160, 192)
    (found,) = decode(maps_of(target), Letterbox(1.0, 160, 192), 0.9)
    assert found.side == "left"
    cell = (120 // 8, 140 // 8)
    assert target[1][cell] == 0.0
    assert target[1][40 // 8, 40 // 8] == 1.0
    maps = torch.from_numpy(maps_of(target))[None]
    maps[0, 0, *cell] = 3.0  # a find there costs nothing
    wrong = maps.clone()
    wrong[0, 0, 2, 20] = 3.0
    goal = torch.from_numpy(target)[None]
    assert networks.loss(maps, goal)["score"] < 0.1 < networks.loss(wrong, goal)["score"]


def test_loss_is_that_of_its_equation():
    rng = np.random.default_rng(0)
    target = encode(np.array([[10.0, 20.0, 60.0, 40.0]]), ("right",), np.ones(1, bool), 64, 96)
    maps = rng.normal(0, 1, (6, 8, 12)).astype(np.float32)
    score, box, side, weight = 0.0, 0.0, 0.0, 0.0
    for v, u in itertools.product(range(8), range(12)):
        p = 1 / (1 + np.exp(-maps[0, v, u]))
        heat = target[0, v, u]
        score -= (1 - p) ** 2 * np.log(p) if heat == 1 else (1 - heat) ** 4 * p**2 * np.log(1 - p)
        w, q = target[2, v, u], 1 / (1 + np.exp(-maps[5, v, u]))
        weight += w
        box += w * np.abs(maps[1:5, v, u] - target[3:7, v, u]).mean()
        side -= w * np.log(q)
    assert weight > 1
    terms = networks.loss(torch.from_numpy(maps)[None], torch.from_numpy(target)[None])
    for name, expected in (("score", score), ("box", box / weight), ("side", side / weight)):
        assert float(terms[name]) == pytest.approx(expected, rel=1e-4)


def test_doubles_go_as_brute_force_says():
    rng = np.random.default_rng(1)
    for _ in range(20):
        boxes = np.concatenate([rng.uniform(0, 60, (12, 2)), rng.uniform(10, 60, (12, 2))], axis=1)
        scores = rng.uniform(0, 1, 12)
        canvas = np.zeros((12, 130, 130), bool)
        whole = np.round(boxes).astype(int)
        for k, (x, y, w, h) in enumerate(whole):
            canvas[k, y : y + h, x : x + w] = True
        left, expected = set(range(12)), []
        while left:
            best = max(left, key=lambda k: scores[k])
            expected.append(best)
            left -= {
                k for k in left if (canvas[k] & canvas[best]).sum() / (canvas[k] | canvas[best]).sum() > 0.4
            }
            left.discard(best)
        assert distinct(whole.astype(float), scores, 0.4) == expected


def test_iou_of_boxes_apart_and_of_one_in_another():
    assert iou(np.array([0, 0, 10, 10.0]), np.array([10, 0, 5, 5.0])) == 0.0
    assert iou(np.array([0, 0, 10, 10.0]), np.array([0, 0, 5, 5.0])) == 0.25


def test_a_letterbox_keeps_shape_and_places():
    """A white square in a wide picture: its box comes back from where it lies in the network's picture."""
    image = np.zeros((300, 800, 3), np.uint8)
    image[100:180, 560:660] = 255
    pictures, placed = letterbox(image)
    assert pictures.shape == (1, 3, 96, SIZE)
    assert (placed.height, placed.width) == (72, SIZE)
    assert not pictures[:, :, 72:].any()
    white = pictures[0, 0, :72] > 1
    rows, columns = np.nonzero(white)
    box = np.array([[columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]], float)
    (found,) = decode(maps_of(encode(box, ("left",), np.ones(1, bool), 96, SIZE)), placed, 0.9)
    np.testing.assert_allclose(found.box_px, (560, 100, 100, 80), atol=1 / placed.scale)


def test_padding_holds_no_hand():
    target = encode(np.array([[40.0, 80.0, 20.0, 14.0]]), ("left",), np.ones(1, bool), 96, 192)
    assert decode(maps_of(target), Letterbox(1.0, 72, 192), 0.5) == []


def test_network_keeps_the_strides_for_any_multiple_of_32():
    net = networks.Config().build().eval()
    for h, w in ((96, 192), (192, 64)):
        assert net(torch.zeros(2, 3, h, w)).shape == (2, 6, h // 8, w // 8)
    with pytest.raises(ConfigError, match="expected five numbers of channels"):
        networks.Config((8, 16, 32, 0, 8))


@pytest.fixture(scope="module")
def scenes():
    made = SceneSynthesizer(seed=11, split="test", cards=24)
    return [made.scene(index, 144, 192) for index in range(60)]


@pytest.fixture(scope="module")
def find():
    return Finder()


def test_shipped_weights_find_most_hands_and_little_else(find, scenes):
    hands = hits = false = 0
    for scene in scenes:
        hands += int(scene.clear.sum())
        for one in find(scene.image):
            overlaps = [iou(np.array(one.box_px), box) for box in scene.boxes]
            best = int(np.argmax(overlaps)) if overlaps else -1
            if best < 0 or overlaps[best] < 0.3:
                false += 1
            else:
                hits += bool(scene.clear[best])
    assert hands > 40
    assert hits > 0.6 * hands
    assert false < len(scenes)


def test_an_empty_picture_has_no_hand(find):
    assert find(np.full((240, 320, 3), 90, np.uint8)) == []


def test_several_hands_in_one_picture(find, scenes):
    """Pairs of scenes side by side, at half their size to the network: clear hands of 40 pixels and more."""
    large = several = hits = 0
    for pair in zip(scenes[::2], scenes[1::2], strict=True):
        found = find(np.hstack([scene.image for scene in pair]))
        boxes = [
            box + np.array([192 * k, 0, 0, 0])
            for k, scene in enumerate(pair)
            for box, clear in zip(scene.boxes, scene.clear, strict=True)
            if clear and box[2:].max() > 40
        ]
        there = sum(any(iou(np.array(one.box_px), box) > 0.3 for one in found) for box in boxes)
        large, hits, several = large + len(boxes), hits + there, several + (there > 1)
    assert large > 30
    assert hits > 0.6 * large
    assert several > 5


def test_weights_are_small_and_say_what_they_are(tmp_path):
    assert shipped().stat().st_size < 0.8e6
    net = networks.Config((4, 4, 8, 8, 8)).build()
    save_weights(tmp_path / "f.safetensors", net, "finder", net.config, half=True)
    again = networks.load(tmp_path / "f.safetensors")
    torch.testing.assert_close(again.head[-1].weight, net.head[-1].weight.half().float(), rtol=0, atol=0)
    assert Finder(tmp_path / "f")(np.zeros((40, 40, 3), np.uint8)) == []
    with pytest.raises(CheckpointError, match="expected the hand finder's weights"):
        Finder(finding.files("handgraph") / "weights" / "siapose.safetensors")
    with pytest.raises(CheckpointError, match="no such weights file"):
        Finder(tmp_path / "other")


@pytest.mark.slow
def test_both_runtimes_find_the_same(tmp_path, monkeypatch, find, scenes):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("HANDGRAPH_CACHE", str(tmp_path))
    other = Finder(runtime="onnx")
    seen = 0
    for image in [scene.image for scene in scenes[:20]] + [np.zeros((50, 333, 3), np.uint8)]:
        for a, b in zip(find(image), other(image), strict=True):
            seen += 1
            np.testing.assert_allclose(a.box_px, b.box_px, atol=0.05)
            assert (a.side, a.score) == (b.side, pytest.approx(b.score, abs=1e-3))
    assert seen > 5
