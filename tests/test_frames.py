"""Frames: their order and times, rotation, and what is damaged, cut short or no video at all."""

import wave
from pathlib import Path

import cv2
import numpy as np
import pytest

from handgraph import FormatError, HandgraphError, InputError
from handgraph.frames import Part, Pictures, Unusable, Video, Webcam, natural, sources
from tests.clips import picture, write_clip

PICTURES = [picture({"right": (20 + 5 * k, 30)}) for k in range(12)]


def reds(clip) -> list[float]:
    """Columns of the red square's middle, frame by frame; NaN for a damaged frame."""
    found = []
    for shot in clip:
        try:
            pixels = shot.pixels().astype(int)
        except FormatError:
            found.append(np.nan)
            continue
        red = (pixels[..., 0] > 180) & (pixels[..., 2] < 90)
        found.append(float(np.nonzero(red)[1].mean()))
    return found


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", PICTURES)


def test_numbers_in_names_count():
    names = ["b1", "a10.png", "a2.png", "A3.png", "a01.png"]
    assert sorted(names, key=natural) == ["a01.png", "a2.png", "A3.png", "a10.png", "b1"]
    assert sorted(["1.png", "x", "10.png", "2.png"], key=natural) == ["1.png", "2.png", "10.png", "x"]


def test_a_video_gives_its_frames_with_number_time_and_pixels(clip):
    video = Video(clip)
    assert (video.fps, video.length) == (10.0, 12)
    shots = list(video)
    assert [shot.index for shot in shots] == list(range(12))
    np.testing.assert_allclose([shot.time_s for shot in shots], np.arange(12) / 10, atol=2e-3)
    np.testing.assert_allclose(reds(video), 20 + 5 * np.arange(12), atol=0.6)
    assert shots[0].pixels().dtype == np.uint8


def test_times_are_the_file_s_own(tmp_path):
    """A phone slows down in the dark."""
    times = [0.0, 0.1, 0.2, 0.5, 0.9, 1.0]
    video = Video(write_clip(tmp_path / "clip.mp4", PICTURES[:6], times_s=times))
    np.testing.assert_allclose([shot.time_s for shot in video], times, atol=2e-3)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_frames_are_turned_as_the_file_says(tmp_path, clip, turn):
    """Phones write upright clips as lying ones with a matrix in the track's header."""
    content = bytearray(clip.read_bytes())
    at = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    # Clockwise by `turn`, as the QuickTime format stores it: rows a, b, u; c, d, v.
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    matrix = np.array([a, b, 0, -b, a, 0], np.float64) * 65536
    content[at : at + 24] = matrix.astype(">i4").tobytes()
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content)
    upright = next(iter(Video(clip))).pixels()
    found = next(iter(Video(turned))).pixels()
    np.testing.assert_array_equal(found, np.rot90(upright, -turn // 90))


def test_a_damaged_packet_costs_its_frames_and_no_others(tmp_path):
    # All frames are key frames here, so that damage does not spread.
    path = write_clip(tmp_path / "clip.mp4", PICTURES, gop=1)
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    size = int.from_bytes(content[begin - 8 : begin - 4], "big") - 8
    middle = begin + size // 2
    content[middle : middle + 60] = bytes(60)
    path.write_bytes(content)
    found = np.array(reds(Video(path)))
    assert len(found) == 12
    assert 1 <= np.isnan(found).sum() <= 3
    good = ~np.isnan(found)
    np.testing.assert_allclose(found[good], (20 + 5 * np.arange(12))[good], atol=0.6)


def test_a_video_that_ends_too_early_says_so_after_its_last_frame(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", PICTURES * 3, options={"movflags": "faststart"}, gop=1)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    shots = list(Video(path))
    assert 10 < len(shots) < 36
    with pytest.raises(FormatError, match=r"clip.mp4: frame \d+: the file ends after \d+ of 36 frames"):
        shots[-1].pixels()
    shots[3].pixels()


def no_pictures(path: Path) -> bytes:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(8000))
    return path.read_bytes()


def test_what_is_no_video_is_said_in_one_line(tmp_path, clip):
    content = clip.read_bytes()
    sound = no_pictures(tmp_path / "sound.wav")
    cases = {
        "empty.mp4": (b"", "the file is empty, expected a video"),
        "text.mp4": (b"hello world" * 20, "no video that can be opened"),
        "head.mp4": (content[: len(content) // 2], "no video that can be opened"),
        "sound.mkv": (sound, "holds audio, expected a video stream"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match=f"{name}: {message}") as caught:
            Video(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"none\.mp4: no such file"):
        Video(tmp_path / "none.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match="not a plain file"):
        Video(tmp_path / "folder.mp4")


def test_random_damage_never_does_worse_than_an_error(tmp_path, clip):
    rng = np.random.default_rng(0)
    content = clip.read_bytes()
    for trial in range(40):
        bad = bytearray(content)
        for at in rng.integers(0, len(bad), 8):
            bad[at] = rng.integers(256)
        path = tmp_path / "bad.mp4"
        path.write_bytes(bad[: len(bad) if trial % 2 else int(rng.integers(1, len(bad)))])
        said = []
        try:
            for shot in Video(path):
                try:
                    assert shot.pixels().ndim == 3
                except FormatError as error:
                    said.append(str(error))
        except HandgraphError as error:
            said.append(str(error))
        assert all("bad.mp4" in message and "\n" not in message for message in said)


def test_a_part_keeps_numbers_and_times(clip):
    part = Part(Video(clip), every=3, start_s=0.25, end_s=0.95)
    assert [(shot.index, round(shot.time_s, 2)) for shot in part] == [(3, 0.3), (6, 0.6), (9, 0.9)]
    assert part.fps == pytest.approx(10 / 3)
    assert list(Part(Video(clip), start_s=5.0)) == []


def test_folders_patterns_and_files_in_their_order(tmp_path, clip):
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in ("f10.png", "f2.png", "f1.PNG", "notes.txt", ".hidden.png"):
        (folder / name).write_bytes(b"x")
    (folder / "below.png").mkdir()
    ordered = [str(folder / name) for name in ("f1.PNG", "f2.png", "f10.png")]
    (inside,) = sources([str(folder)])
    assert inside == Pictures(str(folder), tuple(ordered))
    (matched,) = sources([str(folder / "f*.png")], fps=5.0)
    assert matched == Pictures(str(folder / "f*.png"), tuple(ordered[1:]), 5.0)
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    groups = sources(["a.png", "b.png", str(clip), str(folder), str(tmp_path / "*.gif"), "c.png"])
    assert groups == [
        Pictures("a.png", ("a.png", "b.png")),
        str(clip),
        str(folder / "clip.mp4"),
        Pictures(str(folder), tuple(ordered)),
        Unusable(str(tmp_path / "*.gif"), f"{tmp_path / '*.gif'}: no file is called so"),
        Pictures("c.png", ("c.png",)),
    ]
    assert sources([str(clip), "a.png"]) == [str(clip), Pictures("a.png", ("a.png",))]
    (tmp_path / "empty").mkdir()
    (nothing,) = sources([str(tmp_path / "empty")])
    assert "the folder holds no picture, depth frame or video" in nothing.reason
    odd = tmp_path / "a[1].png"
    odd.write_bytes(b"x")
    assert sources([str(odd)]) == [Pictures(str(odd), (str(odd),))], "a file that is there is no pattern"


def test_pictures_with_a_rate_are_a_clip(tmp_path):
    files = []
    for k in range(3):
        files.append(str(tmp_path / f"{k}.png"))
        cv2.imwrite(files[-1], PICTURES[k][..., ::-1])
    shots = list(Pictures("x", tuple(files), 4.0))
    assert [(shot.index, shot.time_s, shot.file) for shot in shots] == [
        (0, 0.0, files[0]),
        (1, 0.25, files[1]),
        (2, 0.5, files[2]),
    ]
    np.testing.assert_array_equal(shots[1].pixels(), PICTURES[1])


class Camera:
    """What OpenCV gives for a camera, without one."""

    def __init__(self, number: int, frames: int = 3, there: bool = True) -> None:
        self.left, self.there, self.released = frames, there, False

    def isOpened(self) -> bool:
        return self.there

    def get(self, _: int) -> float:
        return 0.0  # as many drivers say

    def read(self):
        self.left -= 1
        return (False, None) if self.left < 0 else (True, PICTURES[0][..., ::-1].copy())

    def release(self) -> None:
        self.released = True


def test_a_webcam_gives_frames_as_they_come(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    webcam = Webcam(0)
    assert webcam.fps == 30.0
    shots = list(webcam)
    assert [shot.index for shot in shots] == [0, 1, 2]
    assert shots[0].time_s == 0 <= shots[1].time_s <= shots[2].time_s
    np.testing.assert_array_equal(shots[2].pixels(), PICTURES[0])
    webcam.close()
    assert webcam._capture.released
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Camera(number, there=False))
    with pytest.raises(InputError, match="--webcam 3: cannot be opened"):
        Webcam(3)
