"""`predict` on clips and folders: files, tracks, smoothing, damage, interruption and resuming."""

import gc
import json
import os
import signal
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

from handgraph import cli, predicting
from handgraph.formats import read_json, read_lines, read_parquet
from handgraph.frames import Video
from tests.clips import SHAPE, DepthSquares, SquareEstimator, picture, write_clip

MOVES = [{"right": (20 + 4 * k, 30), "left": (76 - 4 * k, 40)} for k in range(14)]
"""Two hands that cross."""


@pytest.fixture
def squares(monkeypatch) -> SquareEstimator:
    """Stands for the system of every call."""
    estimator = SquareEstimator()
    monkeypatch.setattr("handgraph.estimator.load", lambda *_, **__: estimator)
    monkeypatch.setattr(predicting, "_warned", set())
    return estimator


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return str(write_clip(path, [picture(places) for places in MOVES]))


def run(capfd, *arguments: str) -> tuple[int, str, str]:
    try:
        code = cli.main(["predict", *arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capfd.readouterr()
    return code, out, err


def frames(folder: Path):
    return list(read_lines(folder / "predictions.jsonl")[1])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_clip_gives_lines_a_table_and_a_video(capfd, squares, clip, tmp_path):
    out = tmp_path / "out"
    code, said, err = run(capfd, clip, "--out", str(out), "--format", "parquet", "--camera", "90,90,48,32")
    assert (code, err) == (0, "")
    assert files(out) == {"predictions.jsonl", "predictions.parquet", "overlay.mp4"}
    assert "14 frames, 14 with a hand; 1: right hand from 0.0 to 1.3 s; 2: left hand" in said
    header, _ = read_lines(out / "predictions.jsonl")
    assert (header.model, header.source, header.fps, header.size_px) == ("squares", clip, 10.0, (96, 64))
    assert header.smoothing == {"name": "none"}
    assert header.camera.fx == 90
    found = frames(out)
    assert [frame.index for frame in found] == list(range(14))
    np.testing.assert_allclose([frame.time_s for frame in found], np.arange(14) / 10, atol=2e-3)
    for frame in found:
        assert frame.tracks == (1, 2)
        assert [hand.side for hand in frame.hands] == ["right", "left"]
    # Apart from the frames in which they overlap, the hands are where they were drawn.
    np.testing.assert_allclose(found[0].hands[0].keypoints_px, SHAPE + np.array([20, 30]), atol=0.8)
    np.testing.assert_allclose(found[12].hands[1].keypoints_px, SHAPE + np.array([28, 40]), atol=0.8)
    table = read_parquet(out / "predictions.parquet")
    np.testing.assert_array_equal(table.images[5].hands[1].keypoints_px, found[5].hands[1].keypoints_px)
    assert len(table.images) == 14
    shots = list(Video(out / "overlay.mp4"))
    assert len(shots) == 14
    np.testing.assert_allclose([shot.time_s for shot in shots], np.arange(14) / 10, atol=2e-3)
    drawn = shots[2].pixels()
    assert drawn.shape[1] == 672, "seven times as wide, with a legend below"
    assert drawn.shape[0] > 7 * 64


def test_the_table_has_times_and_tracks(capfd, squares, clip, tmp_path):
    import pyarrow.parquet

    assert (
        run(capfd, clip, "--out", str(tmp_path), "--format", "parquet", "--every", "2", "--no-overlay")[0]
        == 0
    )
    table = pyarrow.parquet.read_table(tmp_path / "predictions.parquet").to_pydict()
    assert table["index"] == [k for k in range(0, 14, 2) for _ in range(2)]
    assert table["track"] == [1, 2] * 7
    np.testing.assert_allclose(table["time_s"][::2], np.arange(0, 14, 2) / 10, atol=2e-3)
    assert files(tmp_path) == {"predictions.jsonl", "predictions.parquet"}


def test_one_document_on_standard_output(capfd, squares, clip, tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), picture({"left": (40, 30)})[..., ::-1])
    code, out, err = run(capfd, clip, str(tmp_path / "photo.png"), "--json", "--smooth", "one-euro")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["model"] == "squares"
    assert document["smoothing"]["name"] == "one-euro"
    photo, *rest = document["images"]
    assert (photo["file"], photo["size_px"], len(photo["hands"])) == (
        str(tmp_path / "photo.png"),
        [96, 64],
        1,
    )
    assert "track" not in photo["hands"][0]
    assert [image["index"] for image in rest] == list(range(14))
    assert {image["file"] for image in rest} == {clip}
    assert rest[3]["hands"][0]["track"] == 1
    assert rest[3]["size_px"] == [96, 64]
    assert {"joint_names", "frame", "order", "units"} <= set(rest[3]["hands"][0]) | set(document)


def test_boxes_of_the_last_frame_save_the_search(capfd, squares, clip):
    assert run(capfd, clip, "--json")[0] == 0
    whole = squares.boxes.count(None)
    assert 1 <= whole <= 4, "at the beginning and every half second"
    assert len(squares.boxes) - whole >= 20


def test_a_box_of_the_user_s_wins(capfd, squares, clip):
    code, out, _ = run(capfd, clip, "--json", "--box", "0,0,96,36", "--side", "right")
    assert code == 0
    assert set(squares.boxes) == {(0.0, 0.0, 96.0, 36.0)}
    sides = {hand["side"] for image in json.loads(out)["images"] for hand in image["hands"]}
    assert sides == {"right"}


@pytest.mark.parametrize("name", ["one-euro", "two-pass"])
def test_smoothing_is_recorded_and_no_default(capfd, squares, clip, tmp_path, name):
    assert run(capfd, clip, "--out", str(tmp_path / "raw"), "--no-overlay")[0] == 0
    assert run(capfd, clip, "--out", str(tmp_path / "soft"), "--no-overlay", "--smooth", name)[0] == 0
    header, _ = read_lines(tmp_path / "soft" / "predictions.jsonl")
    assert header.smoothing["name"] == name
    assert header.smoothing["min_cutoff_hz"] == 1.0
    raw, soft = frames(tmp_path / "raw"), frames(tmp_path / "soft")
    moved = max(
        np.abs(a.hands[0].keypoints_px - b.hands[0].keypoints_px).max()
        for a, b in zip(raw, soft, strict=True)
    )
    assert 1e-3 < moved < 15


def test_meshes_are_fitted_to_the_smoothed_joints(capfd, monkeypatch, squares, clip, tmp_path):
    fitted = []

    def with_mesh(hand, shape=None):
        fitted.append(hand.keypoints_px)
        return replace(hand, vertices_mm=np.zeros((4, 3)), pose=np.full(48, 0.25))

    monkeypatch.setattr("handgraph.meshes.with_mesh", with_mesh)
    assert run(capfd, clip, "--out", str(tmp_path), "--no-overlay", "--mesh", "--smooth", "one-euro")[0] == 0
    found = [hand for frame in frames(tmp_path) for hand in frame.hands]
    assert len(found) == 28
    for hand, joints in zip(found, fitted, strict=True):
        assert hand.pose[0] == 0.25
        np.testing.assert_allclose(hand.keypoints_px, joints, atol=1e-3)


class Killed(Exception):
    """Stands for the power going."""


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Killed])
def test_an_interrupted_run_goes_on_where_it_stopped(capfd, monkeypatch, clip, tmp_path, stop):
    """Also with half a line at the end of the file, as a machine that goes down leaves it."""

    def stops(count: int) -> None:
        if count == 13:
            raise stop

    whole, begun = SquareEstimator(), SquareEstimator(stops)
    chosen = {"whole": whole, "begun": begun, "rest": (rest := SquareEstimator())}
    options = (clip, "--smooth", "two-pass", "--format", "parquet")

    def predict(name: str, *more: str) -> tuple[int, str, str]:
        monkeypatch.setattr("handgraph.estimator.load", lambda *_, **__: chosen[name])
        folder = tmp_path / ("whole" if name == "whole" else "resumed")
        return run(capfd, *options, "--out", str(folder), *more)

    assert predict("whole")[0] == 0
    code, _, err = predict("begun")
    assert code == (130 if stop is KeyboardInterrupt else 1)
    out = tmp_path / "resumed"
    assert files(out) == {".predictions.raw.jsonl.part"}
    if stop is KeyboardInterrupt:
        assert "--resume goes on where it stopped" in err
    part = out / ".predictions.raw.jsonl.part"
    lines = part.read_bytes()
    assert 3 < lines.count(b"\n") < 12
    part.write_bytes(lines + b'{"index": 9, "time_s": 0.9, "ha')
    assert predict("rest", "--resume")[0] == 0
    assert 0 < rest.calls < whole.calls
    assert whole.calls <= 13 + rest.calls <= whole.calls + 2
    assert files(out) == files(tmp_path / "whole")
    for name in ("predictions.jsonl", "predictions.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(list(Video(out / "overlay.mp4"))) == 14


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_run_goes_on_where_it_was_killed(capfd, squares, clip, tmp_path):
    """Killed outright in another process, which can tidy up nothing."""

    def dies(count: int) -> None:
        if count == 9:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        squares.before = dies
        cli.main(["predict", clip, "--out", str(tmp_path / "out"), "--no-overlay"])
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert files(tmp_path / "out") == {".predictions.raw.jsonl.part"}
    assert run(capfd, clip, "--out", str(tmp_path / "out"), "--no-overlay", "--resume")[0] == 0
    assert run(capfd, clip, "--out", str(tmp_path / "whole"), "--no-overlay")[0] == 0
    found = [(tmp_path / name / "predictions.jsonl").read_bytes() for name in ("out", "whole")]
    assert found[0] == found[1]
    assert files(tmp_path / "out") == {"predictions.jsonl"}


def test_an_interruption_while_drawing_costs_no_second_look(capfd, monkeypatch, squares, clip, tmp_path):
    draw = predicting._draw

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(predicting, "_draw", interrupted)
    assert run(capfd, clip, "--out", str(tmp_path))[0] == 130
    assert not {"predictions.jsonl", "overlay.mp4"} & files(tmp_path)
    calls = squares.calls
    monkeypatch.setattr(predicting, "_draw", draw)
    assert run(capfd, clip, "--out", str(tmp_path), "--resume")[0] == 0
    assert squares.calls == calls
    assert files(tmp_path) == {"predictions.jsonl", "overlay.mp4"}
    # A finished run is not done again either, and answers the same.
    before = (tmp_path / "predictions.jsonl").stat().st_mtime_ns
    code, out, _ = run(capfd, clip, "--out", str(tmp_path), "--resume", "--json")
    assert (code, squares.calls) == (0, calls)
    assert len(json.loads(out)["images"]) == 14
    assert (tmp_path / "predictions.jsonl").stat().st_mtime_ns == before


def test_only_the_same_run_can_be_resumed(capfd, squares, clip, tmp_path):
    def stops(count: int) -> None:
        if count == 6:
            raise KeyboardInterrupt

    squares.before = stops
    assert run(capfd, clip, "--out", str(tmp_path))[0] == 130
    squares.before = lambda count: None
    code, _, err = run(capfd, clip, "--out", str(tmp_path), "--resume", "--every", "2")
    assert code == 2
    assert "was begun with other settings" in err
    assert len(err.splitlines()) == 1
    other = write_clip(tmp_path / "other.mp4", [picture({})] * 3)
    assert run(capfd, str(other), "--out", str(tmp_path), "--resume")[0] == 2
    # Without --resume it simply starts over.
    assert run(capfd, clip, "--out", str(tmp_path))[0] == 0
    assert len(frames(tmp_path)) == 14


def test_pictures_go_on_too(capfd, squares, tmp_path):
    names = [str(tmp_path / f"p{k}.png") for k in range(6)]
    for k, name in enumerate(names):
        cv2.imwrite(name, picture({"right": (20 + 9 * k, 30)})[..., ::-1])
    Path(names[1]).write_bytes(b"no picture")

    def stops(count: int) -> None:
        if count == 3:
            raise KeyboardInterrupt

    squares.before = stops
    out = tmp_path / "out"
    assert run(capfd, *names, "--out", str(out))[0] == 130
    squares.before, calls = (lambda count: None), squares.calls
    assert run(capfd, *names, "--out", str(out), "--resume")[0] == 2
    assert squares.calls == calls + 2, "four of the six pictures had been done"
    found = read_json(out / "predictions.json")
    assert [image.file for image in found.images] == names
    assert [len(image.hands) for image in found.images] == [1, 0, 1, 1, 1, 1]
    assert "predictions.json" in files(out)
    assert not [name for name in files(out) if name.startswith(".") or "raw" in name]


def test_damaged_frames_are_told_counted_and_skipped(capfd, squares, tmp_path):
    path = write_clip(tmp_path / "clip.mp4", [picture({"right": (20 + k, 30)}) for k in range(30)], gop=1)
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    size = int.from_bytes(content[begin - 8 : begin - 4], "big") - 8
    for place in range(5):
        at = begin + size * (place + 2) // 8
        content[at : at + 40] = bytes(40)
    path.write_bytes(content)
    code, said, err = run(capfd, str(path), "--out", str(tmp_path / "out"))
    assert code == 2
    found = frames(tmp_path / "out")
    damaged = [frame.index for frame in found if frame.error]
    assert 4 <= len(damaged) <= 12
    assert f"{len(damaged)} damaged" in said
    assert len(err.splitlines()) == 4
    assert err.splitlines()[-1].endswith(f"clip.mp4: {len(damaged) - 3} more damaged frames")
    good = [frame for frame in found if not frame.error]
    assert len(found) == 30
    assert all(frame.tracks == (1,) for frame in good)
    assert len(list(Video(tmp_path / "out" / "overlay.mp4"))) == len(good)


def test_bad_clips_do_not_keep_good_ones_from_their_answers(capfd, squares, clip, tmp_path):
    short = tmp_path / "short.mp4"
    short.write_bytes(Path(clip).read_bytes()[:900])
    second = write_clip(tmp_path / "second.mp4", [picture({"left": (30, 30)})] * 4)
    code, out, err = run(
        capfd,
        str(short),
        clip,
        str(tmp_path / "none.mp4"),
        str(second),
        "--json",
        "--out",
        str(tmp_path / "out"),
    )
    assert code == 2
    assert len(err.splitlines()) == 2
    assert "short.mp4: no video that can be opened" in err
    assert "none.mp4: no such file" in err
    images = json.loads(out)["images"]
    assert sum("error" in image for image in images) == 2
    assert sum(image["file"] == str(second) for image in images) == 4
    assert files(tmp_path / "out") == {"clip", "second"}
    assert files(tmp_path / "out" / "second") == {"predictions.jsonl", "overlay.mp4"}


def test_a_folder_of_good_and_bad_pictures(capfd, squares, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in (1, 2, 10):
        cv2.imwrite(str(folder / f"f{k}.png"), picture({"right": (20 + k, 30)})[..., ::-1])
    (folder / "f3.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (folder / "notes.txt").write_text("left alone")
    code, said, err = run(capfd, str(folder), "--out", str(tmp_path / "out"))
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "f3.png: the PNG is cut short" in err
    found = read_json(tmp_path / "out" / "predictions.json")
    assert [Path(image.file).name for image in found.images] == ["f1.png", "f2.png", "f3.png", "f10.png"]
    assert [len(image.hands) for image in found.images] == [1, 1, 0, 1]
    assert {"f1.png", "f1.html", "f10.png", "predictions.json"} <= files(tmp_path / "out")
    assert said.count("right hand") == 3
    code, out, _ = run(
        capfd, str(folder / "f1*.png"), "--json", "--no-overlay", "--out", str(tmp_path / "bare")
    )
    assert code == 0
    assert [Path(image["file"]).name for image in json.loads(out)["images"]] == ["f1.png", "f10.png"]
    assert files(tmp_path / "bare") == {"predictions.json"}


def test_depth_frames_of_a_folder_are_a_clip_at_a_rate(capfd, monkeypatch, tmp_path):
    estimator = DepthSquares()
    monkeypatch.setattr("handgraph.estimator.load", lambda *_, **__: estimator)
    folder = tmp_path / "depth"
    folder.mkdir()
    for k in range(8):
        depth = np.full((64, 96), 800, np.uint16)
        depth[24:37, 10 + 6 * k : 23 + 6 * k] = 400
        cv2.imwrite(str(folder / f"{k}.png"), depth if k != 4 else depth * 0)
    code, said, err = run(
        capfd, str(folder), "--fps", "20", "--camera", "90,90,48,32", "--out", str(tmp_path / "out")
    )
    assert code == 2
    assert "4.png: no pixel has a reading" in err
    assert "8 frames, 7 with a hand; 1 damaged; 1: right hand from 0.0 to 0.3 s" in said
    found = frames(tmp_path / "out")
    assert [frame.tracks for frame in found] == [(1,)] * 4 + [()] + [(1,)] * 3
    assert [frame.time_s for frame in found] == [k / 20 for k in range(8)]
    assert [Path(frame.file).name for frame in found] == [f"{k}.png" for k in range(8)]
    assert len(list(Video(tmp_path / "out" / "overlay.mp4"))) == 7


def test_what_is_named_first_chooses_the_model(capfd, monkeypatch, clip, tmp_path):
    asked = []

    def load(name, **_):
        asked.append(name)
        return SquareEstimator()

    monkeypatch.setattr("handgraph.estimator.load", load)
    depth, photo = str(tmp_path / "depth.png"), str(tmp_path / "photo.png")
    cv2.imwrite(depth, np.full((64, 96), 500, np.uint16))
    cv2.imwrite(photo, picture({})[..., ::-1])
    for files in ([depth, clip], [clip, depth], [photo, depth]):
        run(capfd, *files)
    assert asked == ["jgr_p2o", "siapose", "siapose"]


def test_a_depth_system_refuses_a_video(capfd, monkeypatch, clip):
    monkeypatch.setattr("handgraph.estimator.load", lambda *_, **__: DepthSquares())
    code, _, err = run(capfd, clip)
    assert code == 2
    assert "clip.mp4: squares takes depth frames; give a --model for photographs" in err


class Camera:
    """A camera that a test holds before the lens of."""

    alive: ClassVar[list[weakref.ref]] = []
    most = 0
    frames = 12
    interrupt_at: int | None = None

    def __init__(self, number: int) -> None:
        self.count = 0
        Camera.alive.clear()

    def isOpened(self) -> bool:
        return True

    def get(self, _: int) -> float:
        return 25.0

    def read(self):
        self.count += 1
        if self.count == self.interrupt_at:
            raise KeyboardInterrupt
        if self.count > self.frames:
            return False, None
        pixels = picture({"right": (20 + self.count % 50, 30)})[..., ::-1].copy()
        gc.collect(0)
        Camera.alive.append(weakref.ref(pixels))
        Camera.most = max(Camera.most, sum(one() is not None for one in Camera.alive))
        return True, pixels

    def release(self) -> None:
        pass


def test_a_webcam_until_it_is_stopped(capfd, monkeypatch, squares, tmp_path):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(Camera, "interrupt_at", 8)
    code, _, err = run(capfd, "--webcam", "0", "--out", str(tmp_path), "--smooth", "one-euro")
    assert code == 0
    assert "stopped" in err
    assert files(tmp_path) == {"predictions.jsonl", "overlay.mp4"}
    found = frames(tmp_path)
    assert [frame.index for frame in found] == list(range(7))
    assert all(frame.tracks == (1,) for frame in found)
    assert len(list(Video(tmp_path / "overlay.mp4"))) == 7


def test_a_webcam_tells_line_by_line_and_forgets_its_frames(capfd, monkeypatch, squares):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(sys, "__stdout__", sys.stdout)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(Camera, "frames", 60)
    code, out, err = run(capfd, "--webcam", "0")
    assert code == 0
    header, *lines = [json.loads(line) for line in out.splitlines() if line]
    assert header["model"] == "squares"
    assert [line["index"] for line in lines] == list(range(60))
    assert lines[5]["hands"][0]["track"] == 1
    assert "60 frames" in err
    assert Camera.most <= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "CLIP"], "--resume: give --out"),
        (["--webcam", "0", "--smooth", "two-pass"], "--smooth two-pass: looks ahead"),
        (["--webcam", "0", "--resume", "--out", "OUT"], "--resume: what a webcam saw is gone"),
        (["--webcam", "9", "--out", "OUT"], "--webcam 9: cannot be opened"),
        (["CLIP", "--format", "parquet"], "--format parquet: give --out"),
        (["a.png", "--smooth", "one-euro"], "--smooth: is for clips; give --fps"),
        (["a.png", "--every", "2"], "--every: is for clips"),
        (["CLIP", "--every", "0"], "'0' is not a whole number above zero"),
        (["CLIP", "--fps", "0"], "'0' is not a number above zero"),
        (["CLIP", "--start", "-1"], "'-1' is not a time in seconds"),
        (["CLIP", "--end", "nan"], "'nan' is not a number"),
        (["CLIP", "--smooth", "kalman"], "argument --smooth: invalid choice"),
    ],
)
def test_options_that_cannot_be_met_are_one_line(capfd, squares, clip, tmp_path, arguments, message):
    words = {"CLIP": clip, "OUT": str(tmp_path / "out")}
    code, out, err = run(capfd, *(words.get(word, word) for word in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("handgraph")]) == 1


def test_the_overlay_never_takes_the_place_of_the_clip(capfd, squares, clip, tmp_path):
    path = tmp_path / "overlay.mp4"
    path.write_bytes(Path(clip).read_bytes())
    code, _, err = run(capfd, str(path), "--out", str(tmp_path))
    assert code == 2
    assert "would be overwritten by the overlay" in err
    assert path.read_bytes() == Path(clip).read_bytes()


def test_without_pyav_a_line_says_what_to_install(capfd, monkeypatch, squares, clip):
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, err = run(capfd, clip)
    assert code == 2
    assert "videos need PyAV: pip install handgraph[video]" in err
