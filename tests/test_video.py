"""Overlay videos: their times and size, tracks' numbers, a contrast that does not flicker."""

import numpy as np
import pytest

from handgraph import Hand, InputError
from handgraph.frames import Video
from handgraph.report import overlay
from handgraph.video import MOST_COLUMNS, Overlays, open_window, write_video

HAND = Hand("left", 0.9, np.random.default_rng(0).uniform(40, 120, (21, 2)), np.zeros(4))


def test_a_track_s_number_stands_at_the_wrist_and_in_the_legend():
    image = np.full((480, 640, 3), 90, np.uint8)
    plain, numbered = overlay(image, [HAND]), overlay(image, [HAND], tracks=[7])
    rows, columns = np.nonzero((plain != numbered).any(axis=-1))
    in_picture = rows < 480
    away = np.hypot(columns[in_picture] - HAND.keypoints_px[0, 0], rows[in_picture] - HAND.keypoints_px[0, 1])
    assert 20 < in_picture.sum() < 900
    assert away.max() < 45
    assert (~in_picture).any()
    np.testing.assert_array_equal(overlay(image, [HAND], tracks=[None]), plain)


def test_depth_keeps_its_contrast_when_a_hand_goes():
    depth = np.tile(np.linspace(400, 2000, 64, dtype=np.float32), (48, 1))
    joints = np.column_stack([np.zeros((21, 2)), np.full(21, 500.0)])
    near = Hand("right", 0.9, np.full((21, 2), -500.0), np.zeros(4), joints)
    seen, alone = overlay(depth, [near])[:480], overlay(depth, [])[:480]
    overlays = Overlays()
    first = overlays(depth, [near], [1], 0.0)[:480]
    later = overlays(depth, [], [], 1 / 30)[:480]
    np.testing.assert_array_equal(first, seen)
    jump = np.abs(later.astype(int) - first).mean()
    assert jump < 0.2 * np.abs(alone.astype(int) - seen).mean()


def test_pictures_have_one_even_size():
    overlays = Overlays()
    wide = overlays(np.zeros((301, 2 * MOST_COLUMNS + 2, 3), np.uint8), [], [], 0.0)
    assert wide.shape[1] == MOST_COLUMNS
    assert wide.shape[0] % 2 == 0
    assert overlays(np.zeros((200, 700, 3), np.uint8), [], [], 0.1).shape == wide.shape


def test_a_video_has_the_times_it_was_given_and_is_there_whole_or_not_at_all(tmp_path):
    path, picture = tmp_path / "a.mp4", np.zeros((64, 96, 3), np.uint8)
    with write_video(path, 30.0) as add:
        for time_s in (0.0, 0.1, 0.1, 0.5):
            add(picture, time_s)
    np.testing.assert_allclose([shot.time_s for shot in Video(path)], [0, 0.1, 0.1, 0.5], atol=1e-3)
    with pytest.raises(ZeroDivisionError), write_video(tmp_path / "b.mp4", 30.0) as add:
        add(picture, 1 / 0)
    with write_video(tmp_path / "empty.mp4", 30.0):
        pass
    assert {file.name for file in tmp_path.iterdir()} == {"a.mp4", "empty.mp4"}
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"), write_video(tmp_path / "file" / "c.mp4", 30.0):
        pass


def test_without_a_display_there_is_no_window(monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert open_window("title") is None
