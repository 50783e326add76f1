"""The synthetic colour images: determinism, labels that fit the picture, frames, folders."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from handgraph.datasets import open_dataset
from handgraph.errors import ConfigError, InputError
from handgraph.hand_model.files import load_open_hand
from handgraph.hand_model.layer import HandLayer
from handgraph.images import IMAGENET_MEAN, IMAGENET_STD
from handgraph.synthetic.dataset import write_dataset
from handgraph.synthetic.photo import Chances
from handgraph.synthetic.rgb import RgbSynthesizer

NOTHING_ELSE = Chances(*[0.0] * len(Chances._fields))
TENSORS = (
    "image", "uv", "known", "relative_mm", "wrist_mm", "crop_camera", "joints_mm", "pose", "shape",
)  # fmt: skip


@pytest.fixture(scope="module")
def bare() -> RgbSynthesizer:
    """Hands with forearms and nothing else."""
    return RgbSynthesizer(1, size=64, chances=NOTHING_ELSE)


def test_an_image_depends_on_seed_split_and_index_alone() -> None:
    one, two = RgbSynthesizer(3, size=48), RgbSynthesizer(3, size=48, threads=2)
    indices = [5, 0, 9, 5, 123456]
    alone, together = one.batch(indices), two.batch(indices)
    for key in TENSORS:
        assert torch.equal(alone[key], together[key]), key
    sample = one.sample(9)
    again = (alone["image"][2].numpy().transpose(1, 2, 0) * IMAGENET_STD + IMAGENET_MEAN) * 255
    assert np.abs(again - sample.image).max() < 0.01
    assert np.allclose(alone["uv"][2], sample.uv, atol=1e-5)
    assert (alone["image"][0] != alone["image"][1]).any()
    for other in (RgbSynthesizer(4, size=48), RgbSynthesizer(3, "validation", 48)):
        assert (other.sample(5).image != one.sample(5).image).any()


def test_splits_share_no_subject() -> None:
    shapes = {
        split: {tuple(RgbSynthesizer(0, split, 16).sample(i).shape) for i in range(4)}
        for split in ("train", "validation", "test")
    }
    assert not shapes["train"] & shapes["validation"]
    assert not shapes["train"] & shapes["test"]
    assert not shapes["validation"] & shapes["test"]


def test_the_batch_is_one_geometry() -> None:
    """uv = K X, X is the turned camera-frame joint, and the hand model gives the same hand in that frame."""
    batch = RgbSynthesizer(0, size=48).batch(range(12))
    assert batch["known"].all()
    in_crop = batch["relative_mm"] + batch["wrist_mm"][:, None]
    projected = torch.einsum("bij,bkj->bki", batch["crop_camera"], in_crop)
    assert torch.allclose(projected[..., :2] / projected[..., 2:], batch["uv"], atol=1e-4)
    for place, crop in enumerate(batch["crops"]):
        joints = batch["joints_mm"][place].numpy()
        assert not crop.mirrored
        assert np.allclose(joints @ crop.crop_from_camera.T, in_crop[place], atol=0.01)
        pixels = crop.crop_px(crop.camera.uvd_from_xyz(joints)[:, :2])
        assert np.allclose(pixels / 47, batch["uv"][place], atol=1e-3)
    hand = HandLayer(load_open_hand())(batch["shape"], batch["pose"])
    relative = hand.joints_mm - hand.joints_mm[:, :1]
    assert torch.allclose(relative, batch["relative_mm"], atol=0.01)


def test_labels_lie_on_the_hand(bare: RgbSynthesizer) -> None:
    """Nearly every joint projects into the mask; joints lie behind the skin, visible ones just behind."""
    inside, behind, hidden, tips = [], [], [], (4, 8, 12, 16, 20)
    for index in range(24):
        sample = bare.sample(index)
        assert sample.image.shape == (64, 64, 3)
        assert sample.image.dtype == np.uint8
        assert np.ptp(sample.image) > 30
        assert (sample.depth_mm[sample.mask] > 0).all()
        shown = cv2.dilate(sample.mask.astype(np.uint8), np.ones((3, 3)))
        for j, (u, v) in enumerate(np.rint(sample.uv * 63).astype(int)):
            if 0 <= u < 64 and 0 <= v < 64:
                inside.append(shown[v, u] > 0)
                if sample.mask[v, u]:
                    gap = sample.joints_mm[j, 2] - sample.depth_mm[v, u]
                    # A fingertip is a point of the outline: its pixel may show what is far behind it.
                    if j not in tips:
                        (behind if sample.visible[j] else hidden).append(gap)
            else:
                assert not sample.visible[j]
    assert np.mean(inside) > 0.93  # the wrist lies at the mask's end
    assert min(behind) > 0
    assert max(behind) < 33
    assert np.median(behind) < 14 < np.median(hidden)


def test_depth_and_mask_are_those_of_the_mesh(bare: RgbSynthesizer) -> None:
    front = []
    for index in range(6):
        sample = bare.sample(index)
        projected = sample.camera.uvd_from_xyz(sample.vertices_mm)[:, :2]
        pixels = np.rint(sample.crop.crop_px(projected)).astype(int)
        z = sample.vertices_mm[:, 2]
        ok = ((pixels >= 1) & (pixels < 63)).all(1)
        u, v = pixels[ok].T
        patches = np.stack([sample.depth_mm[v + j, u + i] for i in (-1, 0, 1) for j in (-1, 0, 1)])
        near = np.where(patches > 0, patches, np.inf).min(0)
        assert (z[ok] - near > -4).all()  # nothing is drawn behind its place
        front.append(np.mean(np.abs(z[ok] - near) < 6))
    # And the front is where it should be; a fist shows least of its points.
    assert min(front) > 0.15
    assert np.mean(front) > 0.25


def test_occluded_joints_are_not_called_visible() -> None:
    covered = NOTHING_ELSE._replace(occluder=1.0)
    free, behind = (RgbSynthesizer(1, size=64, chances=chances) for chances in (NOTHING_ELSE, covered))
    seen = [(free.sample(i).visible.sum(), behind.sample(i).visible.sum()) for i in range(12)]
    assert sum(b for _, b in seen) < sum(a for a, _ in seen)


@pytest.mark.slow
def test_frames_hold_hands_of_both_sides_or_none() -> None:
    synthesizer = RgbSynthesizer(0)
    layers = {side: HandLayer(load_open_hand(), side=side) for side in ("left", "right")}
    counts = set()
    for index in range(24):
        frame = synthesizer.frame(index)
        counts.add((len(frame.hands), *sorted(frame.sides)))
        assert frame.image.shape == (480, 640, 3)
        assert frame.boxes.shape == (len(frame.hands), 4)
        for hand in frame.hands:
            found = layers[hand.side](
                torch.from_numpy(hand.shape)[None],
                torch.from_numpy(hand.pose)[None],
                torch.from_numpy(hand.translation_mm)[None],
            )
            assert np.abs(found.joints_mm[0].numpy() - hand.joints_mm).max() < 0.05
            assert np.abs(found.vertices_mm[0].numpy() - hand.vertices_mm).max() < 0.05
        if frame.hands:
            assert (frame.label == 1).sum() > 100
    assert (0,) in counts
    assert {1, 2} <= {count[0] for count in counts}
    assert any("left" in count for count in counts)
    assert any("right" in count for count in counts)


@pytest.mark.slow
def test_written_colour_and_depth_read_back(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", 3, seed=4, modality="both")
    data = open_dataset("synthetic", tmp_path / "set")
    synthesizer = RgbSynthesizer(4, "test", chances=Chances()._replace(empty=0.0))
    frames = [synthesizer.frame(index) for index in range(3)]
    truth = [(frame, hand) for frame in frames for hand in frame.hands]
    assert len(data) == len(truth)
    for index, (frame, hand) in enumerate(truth):
        sample = data[index]
        assert np.abs(sample.joints_mm - hand.joints_mm).max() < 1e-3
        assert sample.side == hand.side
        assert np.abs(sample.image.astype(int) - frame.image).mean() < 6
        both = (frame.label == 1) & (sample.depth_mm > 0)
        assert np.median(np.abs(sample.depth_mm[both] - frame.depth_mm[both])) < 8
    record = json.loads((tmp_path / "set" / "labels.jsonl").read_text().splitlines()[0])
    assert (record["image"], record["file"]) == ("image_000000.jpg", "depth_000000.png")
    assert len(record["boxes"]) == len(record["sides"]) == len(frames[0].hands)
    with pytest.raises(InputError, match=r"holds 6 frames and their labels\.jsonl already"):
        write_dataset(tmp_path / "set", 1, modality="both")
    assert (tmp_path / "set" / "labels.jsonl").exists()


def test_bad_requests_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split 'dev'"):
        RgbSynthesizer(0, "dev")
    with pytest.raises(ConfigError, match="threads 0"):
        RgbSynthesizer(0, threads=0)
    with pytest.raises(InputError, match="no photograph"):
        RgbSynthesizer(0, backgrounds=tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        RgbSynthesizer(0, backgrounds=tmp_path / "missing")
    with pytest.raises(ConfigError, match="modality 'colour'"):
        write_dataset(tmp_path, 1, modality="colour")
    with pytest.raises(ConfigError, match="at least one"):
        write_dataset(tmp_path, 0)


def test_photographs_stand_behind_the_hand(tmp_path: Path) -> None:
    green = np.zeros((40, 60, 3), np.uint8)
    green[..., 1] = 200
    cv2.imwrite(str(tmp_path / "a.png"), green)
    synthesizer = RgbSynthesizer(0, size=32, chances=NOTHING_ELSE, backgrounds=tmp_path)
    greenest = 0
    for index in range(10):
        sample = synthesizer.sample(index)
        behind = sample.image[sample.depth_mm == 0].astype(int)
        greenest += bool(len(behind)) and (behind[:, 1] > behind[:, 0] + 10).mean() > 0.7
    assert greenest >= 6
    (tmp_path / "b.png").write_bytes(b"nothing")
    synthesizer = RgbSynthesizer(0, size=16, chances=NOTHING_ELSE, backgrounds=tmp_path)
    with pytest.raises(InputError, match=r"b\.png: cannot be read"):
        synthesizer.batch(range(40))
