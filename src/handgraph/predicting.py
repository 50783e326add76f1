"""`handgraph predict`: hands in pictures, folders, videos and before a webcam.

Pictures are answered one by one. A clip is gone through twice: first the estimator looks at every frame, and
each answer is a line in `.predictions.raw.jsonl.part` the moment it is known, so that an interrupted run can
go on; then the lines are smoothed, where that is asked for, and become the files that were wanted. Neither
pass ever holds more than some seconds of the clip.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handgraph.camera import PinholeCamera
from handgraph.console import Answer, folder, numbers, progress, say, traceback_if_wanted
from handgraph.errors import ConfigError, FormatError, HandgraphError, InputError, MissingExtraError
from handgraph.files import atomic_write
from handgraph.frames import Clip, Part, Pictures, Shot, Unusable, Video, Webcam, sources
from handgraph.hand import CAMERA_FRAME, Hand, Side
from handgraph.images import DepthImage, assumed_camera, is_photo, read_depth, read_image

if TYPE_CHECKING:
    from handgraph.formats.lines import ClipHeader, FrameHands, LinesWriter
    from handgraph.report import Frame
    from handgraph.subject import Subject
    from handgraph.tracking import Follower

DEFAULT_DEPTH, DEFAULT_COLOUR = "jgr_p2o", "siapose"

SMOOTHING = ("none", "one-euro", "two-pass")
RAW = "predictions.raw.jsonl"
"""What the estimator said, before smoothing; it goes when the run is finished."""
LINES, TABLE, VIDEO = "predictions.jsonl", "predictions.parquet", "overlay.mp4"
_SAID_AT_MOST = 3
"""Damaged frames of a clip that are reported one by one; the others are counted."""
_DEPTH_ROOM = 1.4
"""A depth frame is looked at in a wider box: the finder sees nothing outside."""

Box = tuple[float, float, float, float]


def run(args: argparse.Namespace) -> Answer:
    """Hands in pictures and clips. What cannot be used does not keep the others from their answers."""
    _check(args)
    job = _Job(args)
    groups = sources(args.files, args.fps)
    clips: list[Clip | Unusable] = []
    pictures: list[str] = []
    for group in groups:
        if isinstance(group, Pictures) and args.fps is None:
            pictures += group.files
        else:
            clips.append(_opened(group))
    if args.webcam is not None:
        clips.append(Webcam(args.webcam))
    if not any(not isinstance(clip, Unusable) for clip in clips):
        _only_for_clips(args)
    job.load(groups)
    spool = tempfile.TemporaryDirectory(prefix="handgraph-")
    try:
        results = [_unusable(clip, args) for clip in clips if isinstance(clip, Unusable)]
        if pictures:
            results.insert(0, _pictures(job, pictures, Path(spool.name)))
        usable = [clip for clip in clips if not isinstance(clip, Unusable)]
        for clip, stem in zip(usable, _stems([_clip_name(clip) for clip in usable]), strict=True):
            alone = len(usable) == 1 and not pictures
            here = job.out if alone else None if job.out is None else job.out / stem
            results.append(_clip(job, clip, here, Path(spool.name) / f"clip {len(results)}"))
    except KeyboardInterrupt:
        spool.cleanup()
        if job.out is not None:
            say("predict", f"interrupted; the same command with --resume goes on where it stopped: {job.out}")
        raise
    except BaseException:
        spool.cleanup()
        raise
    lines = [line for result in results for line in result.text]
    code = 2 if any(result.failed for result in results) else 0
    if args.json:
        return Answer(_document(job, results, spool), "", code)
    spool.cleanup()
    return Answer(None, "\n".join(lines), code)


@dataclass
class _Result:
    """What came of one group: how to tell it, and its images' records, to be read while the spool exists."""

    images: Callable[[], Iterator[dict[str, Any]]]
    text: list[str] = field(default_factory=list)
    failed: bool = False
    smoothing: dict[str, Any] | None = None


class _Job:
    """What holds for all pictures and clips of a call: the estimator and what it is told."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.camera = PinholeCamera(*numbers(args.camera, "camera", "fx,fy,cx,cy")) if args.camera else None
        self.box: Box | None = numbers(args.box, "box", "x,y,w,h") if args.box else None
        self.out = folder(args.out) if args.out else None
        self.person: Subject | None = None

    def load(self, groups: Sequence[Pictures | Unusable | str]) -> None:
        """Load the model that is named, or the one that what comes first calls for."""
        from handgraph.colour import ColourEstimator
        from handgraph.estimator import load

        args = self.args
        name = args.model
        if name is None and args.checkpoint is None:
            first = next((group for group in groups if not isinstance(group, Unusable)), None)
            name = default_model(first.files[0]) if isinstance(first, Pictures) else DEFAULT_COLOUR
        self.estimate: Any = load(name, checkpoint=args.checkpoint, runtime=args.runtime)
        if args.optimise is not None:
            colour = isinstance(self.estimate, ColourEstimator)
            if colour and args.optimise and self.camera is None:
                raise ConfigError("--optimise: lays the 3D hand on its 2D keypoints, give --camera")
            self.estimate.optimise = args.optimise
        if args.looks != 1:
            self.estimate.looks = args.looks
        if args.subject:
            from handgraph.subject import read_subject

            self.person = read_subject(args.subject)
        if args.hands is not None and args.hands < 1:
            raise ConfigError(f"--hands {args.hands}: expected how many hands there may be, at least 1")
        if args.explain and self.estimate.name != "hybrid_gcn":
            raise ConfigError(
                f"--explain: draws the classes and relations of hybrid_gcn, not of {self.estimate.name}"
            )
        if args.explain and self.out is None:
            raise ConfigError("--explain: draws pictures, give --out, the folder to write them to")
        if self.person and self.estimate.input == "depth" and not (args.mesh or self.estimate.optimise):
            raise ConfigError(
                f"--subject: {self.estimate.name} measures the hand itself; give --mesh or --optimise to "
                "use its shape"
            )

    def read(self, file: str) -> tuple["Frame", PinholeCamera | None]:
        """A picture file's pixels, or millimetres and the camera that took them."""
        if self.estimate.input == "colour":
            return read_image(file), self.camera
        image = read_depth(file, self.args.depth_scale)
        camera = self.camera or image.camera
        if camera is None:
            _warn_camera(image)
        return image.depth_mm, camera

    def look(
        self, frame: "Frame", camera: PinholeCamera | None, box: Box | None, side: Side | None
    ) -> list[Hand]:
        """Ask the estimator. What the user has said of box and side wins."""
        box, side = self.box or box, self.args.side or side
        if self.estimate.input == "colour":
            hands = self.estimate(frame, camera=camera, box=box, side=side, subject=self.person)
            return list(hands)[: self.args.hands]
        # A depth frame does not say which hand it shows.
        most = self.args.hands or 1
        return list(
            self.estimate(frame, camera=camera, box=box, side=side or "right", most=most, subject=self.person)
        )

    def with_mesh(self, hands: Sequence[Hand]) -> list[Hand]:
        """With the hand model fitted to the joints, where that is asked for."""
        if not self.args.mesh:
            return list(hands)
        from handgraph.meshes import with_mesh

        shape = None if self.person is None else self.person.shape
        return [with_mesh(hand, shape=shape) for hand in hands]

    def settings(self) -> dict[str, Any]:
        """What the estimator's answers depend on, beside the frames; a resumed run must have the same."""
        args = self.args
        said = {
            "checkpoint": args.checkpoint and Path(args.checkpoint).name,
            "side": args.side,
            "box_px": self.box,
            "depth_scale": args.depth_scale,
            "subject": args.subject and Path(args.subject).name,
            "optimise": args.optimise,
            "looks": None if args.looks == 1 else args.looks,
            "every": None if args.every == 1 else args.every,
            "start_s": args.start or None,
            "end_s": args.end,
        }
        return {name: value for name, value in said.items() if value is not None}


def default_model(file: str) -> str:
    """The system to use where none is named: what the file calls for."""
    return DEFAULT_COLOUR if is_photo(file) else DEFAULT_DEPTH


def model_for(args: argparse.Namespace) -> str | None:
    """The system to use where none is named: what the first file calls for, or what the checkpoint holds."""
    return None if args.checkpoint is not None else default_model(args.files[0])


def _check(args: argparse.Namespace) -> None:
    if not args.files and args.webcam is None:
        raise ConfigError("the following arguments are required: FILE")
    if args.resume and not args.out:
        raise ConfigError("--resume: give --out, the folder of the interrupted run")
    if args.webcam is not None and args.resume:
        raise ConfigError("--resume: what a webcam saw is gone; run without it")
    if args.webcam is not None and args.smooth == "two-pass":
        raise ConfigError("--smooth two-pass: looks ahead, which a webcam does not allow; use one-euro")
    if args.format == "parquet" and not args.out:
        raise ConfigError("--format parquet: give --out, the folder to write to")


def _only_for_clips(args: argparse.Namespace) -> None:
    """Options that mean nothing for pictures are refused, not ignored."""
    for option, used in (
        ("every", args.every != 1),
        ("start", args.start != 0),
        ("end", args.end is not None),
        ("smooth", args.smooth != "none"),
    ):
        if used:
            raise ConfigError(
                f"--{option}: is for clips; give --fps to take pictures for the frames of one, or a video"
            )


def _opened(group: Pictures | Unusable | str) -> Pictures | Video | Unusable:
    """A group, a video opened; what cannot be used says why."""
    if not isinstance(group, str):
        return group
    try:
        return Video(group)
    except HandgraphError as error:
        traceback_if_wanted()
        return Unusable(group, str(error))


def _unusable(clip: Unusable, args: argparse.Namespace) -> _Result:
    say("predict", clip.reason)
    record = {"file": clip.name, "hands": [], "error": clip.reason}
    return _Result(lambda: iter([record]), [], failed=True)


# Pictures, one by one ---------------------------------------------------------------------------------------


def _pictures(job: _Job, files: Sequence[str], spool: Path) -> _Result:
    """Every picture's hands; with --out its overlay, page and mesh, and `predictions.json` of all."""
    from handgraph.formats.lines import ClipHeader, FrameHands, read_lines

    args, model = job.args, job.estimate.name
    here = job.out or spool
    header = ClipHeader(model, camera=job.camera, extra={"settings": job.settings(), "pictures": len(files)})
    with _Begun(here / RAW, header, resume=args.resume) as begun:
        items = list(zip(files, _stems(files), strict=True))
        for index, (file, stem) in enumerate(progress(items, "predict")):
            if begun.has(index, 0.0, file):
                continue
            try:
                hands, size = _picture(job, file, stem)
                record = FrameHands(index, 0.0, hands, (None,) * len(hands), None, file, size)
            except HandgraphError as error:
                reason = str(error) if file in str(error) else f"{file}: {error}"
                say("predict", reason)
                traceback_if_wanted()
                record = FrameHands(index, 0.0, error=reason, file=file)
            begun.write(record)
    raw = here / RAW
    result = _Result(lambda: (_image(frame) for frame in read_lines(raw)[1]))
    for frame in read_lines(raw)[1]:
        result.failed |= frame.error is not None
        if frame.error is None and not args.json:
            result.text.append(_describe(str(frame.file), frame.hands))
    if job.out is not None:
        with atomic_write(job.out / "predictions.json") as part, part.open("w", encoding="utf-8") as written:
            written.writelines(_pieces(model, result.images()))
            written.write("\n")
        if args.format == "parquet":
            from handgraph.formats.parquet_clip import write_parquet_clip

            write_parquet_clip(job.out / TABLE, header, lambda: read_lines(raw)[1])
        drawn = "pictures, pages and " if result.text and not args.no_overlay else ""
        result.text.append(f"{drawn}predictions.json: {job.out}")
        raw = Path(shutil.move(raw, spool))  # from where `images` will read it
    return result


def _picture(job: _Job, file: str, stem: str) -> tuple[tuple[Hand, ...], tuple[int, int]]:
    """The hands of one picture, and its size; writes what --out asks for."""
    args = job.args
    frame, camera = job.read(file)
    hands = job.look(frame, camera, None, None)
    if args.explain and hands:
        from handgraph.explain import write_picture

        assert job.out is not None  # run has refused otherwise
        write_picture(
            job.out / f"{stem}_explained.png", frame, *job.estimate.output(frame, hands[0], job.person)
        )
    hands = job.with_mesh(hands)
    if job.out is not None:
        if any(hand.vertices_mm is not None for hand in hands):
            from handgraph.meshes import write_mesh

            write_mesh(job.out / f"{stem}.glb", hands)
        if not args.no_overlay:
            from handgraph.report import write_overlay, write_page

            write_overlay(job.out / f"{stem}.png", frame, hands)
            write_page(job.out / f"{stem}.html", Path(file).name, job.estimate.name, frame, hands)
    return tuple(hands), (frame.shape[1], frame.shape[0])


# Clips ------------------------------------------------------------------------------------------------------


def _clip(job: _Job, clip: Clip, out: Path | None, spool: Path) -> _Result:
    """A clip's hands, tracked and smoothed; a clip that cannot be used says why."""
    try:
        return _finished(job, clip, out, spool)
    except HandgraphError as error:
        traceback_if_wanted()
        reason = str(error) if clip.name in str(error) else f"{clip.name}: {error}"
        return _unusable(Unusable(clip.name, reason), job.args)


def _finished(job: _Job, clip: Clip, out: Path | None, spool: Path) -> _Result:
    from handgraph.formats.lines import ClipHeader, LinesWriter, read_lines
    from handgraph.smoothing import describe, smooth
    from handgraph.tracking import LOST_S, SEARCH_S

    args = job.args
    if job.estimate.input == "depth" and not isinstance(clip, Pictures):
        raise ConfigError(
            f"{clip.name}: {job.estimate.name} takes depth frames; give a --model for photographs"
        )
    if args.explain:
        raise ConfigError("--explain: draws single pictures; leave --fps out")
    here = out or spool
    if out is not None and (out / VIDEO).resolve() == Path(clip.name).resolve():
        raise InputError(f"{clip.name}: would be overwritten by the overlay; choose another --out")
    part = Part(clip, args.every, args.start, float("inf") if args.end is None else args.end)
    header = ClipHeader(
        job.estimate.name,
        camera=job.camera,
        source=clip.name,
        fps=part.fps,
        extra={"settings": job.settings(), "tracking": {"lost_s": LOST_S, "search_s": SEARCH_S}},
    )
    final = replace(header, smoothing=describe(args.smooth))
    raw, lines = here / RAW, here / LINES
    if not (args.resume and lines.is_file() and _same(lines, final)):
        if isinstance(clip, Webcam):
            _watch(job, part, header, here, draw=out is not None)
        else:
            _look_through(job, part, header, raw)

        def smoothed() -> "Iterator[FrameHands]":
            for frame in smooth(read_lines(raw)[1], args.smooth):
                yield replace(frame, hands=tuple(job.with_mesh(frame.hands))) if args.mesh else frame

        sizes = (frame.size_px for frame in read_lines(raw)[1])
        final = replace(final, size_px=next((size for size in sizes if size is not None), None))
        written = here / f".new.{LINES}"
        with LinesWriter(written, final) as writer:
            for frame in smoothed():
                writer.write(frame)
        if out is not None and args.format == "parquet":
            from handgraph.formats.parquet_clip import write_parquet_clip

            write_parquet_clip(out / TABLE, final, lambda: read_lines(written)[1])
        if out is not None and not args.no_overlay and not isinstance(clip, Webcam):
            _draw(job, part, read_lines(written)[1], out / VIDEO)
        os.replace(written, lines)
        raw.unlink()
    result = _summary(clip.name, lines)
    result.smoothing = describe(args.smooth)
    if out is not None:
        there = [name for name in (LINES, TABLE, VIDEO) if (out / name).is_file()]
        result.text.append(f"{', '.join(there)}: {out}")
    elif isinstance(clip, Webcam) and not args.json:  # standard output holds the lines
        say("predict", " ".join(result.text))
        result.text = []
    return result


def _same(lines: Path, header: "ClipHeader") -> bool:
    """Whether a finished file holds what a run with this header would write."""
    from handgraph.formats.lines import read_lines

    found = replace(read_lines(lines)[0], size_px=None)
    # As JSON, which knows no tuples.
    return json.dumps(found.to_dict()) == json.dumps(header.to_dict())


class _Begun:
    """The lines of the first pass, written as they are known; those of an interrupted run are kept.

    When the block ends without an error the file has its name, and stays until the second pass is done.
    """

    def __init__(self, raw: Path, header: "ClipHeader", *, resume: bool) -> None:
        self._raw, self._header, self._resume = raw, header, resume
        self._writer: LinesWriter | None = None
        self._known: Iterator[FrameHands] = iter(())
        self.last: FrameHands | None = None

    def __enter__(self) -> "_Begun":
        from handgraph.formats.lines import LinesWriter, read_lines

        part = self._raw.with_name(f".{self._raw.name}.part")
        if not self._resume:
            self._raw.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
        if self._raw.is_file():  # interrupted in the second pass
            if not _same(self._raw, self._header):
                raise ConfigError(f"{self._raw}: was begun with other settings; run without --resume")
            self._known = read_lines(self._raw)[1]
            return self
        self._writer = LinesWriter(self._raw, self._header, resume=True)
        self._writer.__enter__()
        if self._writer.last_index is not None:
            self._known = read_lines(self._writer.part)[1]
        return self

    def has(self, index: int, time_s: float, file: str | None) -> bool:
        """Whether the next frame is known already; it is `last` then. Raises ConfigError for another clip."""
        self.last = next(self._known, None)
        if self.last is None:
            return False
        if (self.last.index, self.last.time_s, self.last.file) != (index, time_s, file):
            where = file or f"frame {index}"
            raise ConfigError(f"{where}: is not what the interrupted run saw there; run without --resume")
        return True

    def write(self, frame: "FrameHands") -> None:
        """Add a frame."""
        assert self._writer is not None, "the clip has more frames than before"
        self._writer.write(frame)

    def __exit__(self, *error: Any) -> None:
        if self._writer is not None:
            self._writer.__exit__(*error)


def _follower(job: _Job) -> "Follower":
    from handgraph.tracking import Follower

    colour = job.estimate.input == "colour"
    return Follower(
        everywhere=job.box is not None,
        enlarged=1.1 if colour else _DEPTH_ROOM,
        least_score=job.estimate.least_score,
        most=job.args.hands if colour else job.args.hands or 1,
    )


def _look_through(job: _Job, part: Part, header: "ClipHeader", raw: Path) -> None:
    """The first pass: a line for every frame of a clip."""
    follower = _follower(job)
    with _Begun(raw, header, resume=job.args.resume) as begun:
        for shot in progress(part, "predict", part.length):
            if begun.has(shot.index, shot.time_s, shot.file):
                assert begun.last is not None
                follower.skip(begun.last)
            else:
                begun.write(_hands(job, follower, shot, header.source)[0])


def _hands(
    job: _Job, follower: "Follower", shot: Shot, clip: str | None
) -> tuple["FrameHands", "Frame | None"]:
    """A frame's record, and its pixels where it has any."""
    from handgraph.formats.lines import FrameHands

    try:
        frame, camera = job.read(shot.file) if shot.file else (shot.pixels(), job.camera)
        hands, tracks = follower(frame, shot.time_s, lambda box, side: job.look(frame, camera, box, side))
    except MissingExtraError:
        raise
    except HandgraphError as error:
        traceback_if_wanted()
        where = shot.file or clip or ""
        reason = str(error) if where in str(error) else f"{where}: frame {shot.index}: {error}"
        return FrameHands(shot.index, shot.time_s, error=reason, file=shot.file), None
    size = (frame.shape[1], frame.shape[0])
    return FrameHands(shot.index, shot.time_s, hands, tracks, None, shot.file, size), frame


def _draw(job: _Job, part: Part, frames: Iterator["FrameHands"], path: Path) -> None:
    """The second pass over a clip's frames, with their hands drawn on them."""
    from handgraph.video import Overlays, write_video

    overlays = Overlays()
    with write_video(path, part.fps) as add:
        for shot, record in zip(progress(part, "draw", part.length), frames, strict=False):
            if shot.index != record.index:
                raise FormatError(
                    f"{part.name}: frame {shot.index} was frame {record.index} before; it changed"
                )
            if record.error is None:
                frame = job.read(shot.file)[0] if shot.file else shot.pixels()
                add(overlays(frame, record.hands, record.tracks, shot.time_s), shot.time_s)


def _watch(job: _Job, part: Part, header: "ClipHeader", here: Path, *, draw: bool) -> None:
    """The first pass before a webcam: seen live where there is a display, until it is stopped."""
    from handgraph.formats.lines import LinesWriter
    from handgraph.smoothing import LiveSmoother
    from handgraph.video import Overlays, open_window, write_video

    assert isinstance(part.clip, Webcam)
    args, follower, overlays = job.args, _follower(job), Overlays()
    live = LiveSmoother() if args.smooth == "one-euro" else None
    lines_out = sys.__stdout__ if not args.json and job.out is None else None
    if lines_out is not None:
        print(json.dumps(header.to_dict()), file=lines_out, flush=True)
    window = open_window(f"handgraph: {job.estimate.name}")
    with ExitStack() as stack:
        stack.callback(part.clip.close)
        if window is not None:
            stack.callback(window.close)
        writer = stack.enter_context(LinesWriter(here / RAW, header))
        video = draw and not args.no_overlay
        add = stack.enter_context(write_video(here / VIDEO, part.fps)) if video else None
        try:
            for shot in part:
                record, frame = _hands(job, follower, shot, header.source)
                writer.write(record)
                shown = live(record) if live is not None else record
                if lines_out is not None:
                    print(json.dumps(_image(shown, header.source)), file=lines_out, flush=True)
                if frame is None or (add is None and window is None):
                    continue
                picture = overlays(frame, shown.hands, shown.tracks, shot.time_s)
                if add is not None:
                    add(picture, shot.time_s)
                if window is not None:
                    window.show(picture)
                    if window.closed:
                        break
        except KeyboardInterrupt:
            say("predict", "stopped")


def _summary(name: str, lines: Path) -> _Result:
    """How many frames, hands and tracks a clip has; damaged frames are reported here, at its end."""
    from handgraph.formats.lines import read_lines

    size = read_lines(lines)[0].size_px
    result = _Result(lambda: (_image(frame, name, size) for frame in read_lines(lines)[1]))
    count = with_hands = damaged = 0
    tracks: dict[int, tuple[Counter[Side], float, float]] = {}
    for frame in read_lines(lines)[1]:
        count += 1
        with_hands += bool(frame.hands)
        if frame.error is not None:
            damaged += 1
            if damaged <= _SAID_AT_MOST:
                say("predict", frame.error)
        for hand, track in zip(frame.hands, frame.tracks, strict=True):
            if track is not None:
                sides, begin, _ = tracks.get(track, (Counter(), frame.time_s, 0.0))
                sides[hand.side] += 1
                tracks[track] = (sides, begin, frame.time_s)
    if damaged > _SAID_AT_MOST:
        say("predict", f"{name}: {damaged - _SAID_AT_MOST} more damaged frames")
    parts = [f"{count} frames, {with_hands} with a hand"]
    parts += [f"{damaged} damaged"] if damaged else []
    longest = sorted(tracks.items(), key=lambda item: -sum(item[1][0].values()))[:8]
    for track, (sides, begin, end) in sorted(longest):
        parts.append(f"{track}: {sides.most_common(1)[0][0]} hand from {begin:.1f} to {end:.1f} s")
    parts += [f"{len(tracks) - len(longest)} more"] if len(tracks) > len(longest) else []
    result.text.append(f"{name}: {'; '.join(parts)}")
    result.failed = damaged > 0
    return result


# What is told -----------------------------------------------------------------------------------------------


def _document(
    job: _Job, results: Sequence[_Result], spool: "tempfile.TemporaryDirectory[str]"
) -> Iterator[str]:
    """The JSON document of all results, a piece for each image; the spool goes when it has been told."""
    smoothing = next((result.smoothing for result in results if result.smoothing is not None), None)
    with spool:
        images = (image for result in results for image in result.images())
        yield from _pieces(job.estimate.name, images, smoothing)


def _pieces(
    model: str, images: Iterable[dict[str, Any]], smoothing: dict[str, Any] | None = None
) -> Iterator[str]:
    """`formats.to_document` as text, image by image."""
    from handgraph.formats import Predictions, to_document

    head = to_document(Predictions(model, ()))
    del head["images"]
    if smoothing is not None:
        head["smoothing"] = smoothing
    yield json.dumps(head, allow_nan=False)[:-1] + ', "images": ['
    for number, image in enumerate(images):
        yield (", " if number else "") + json.dumps(image, allow_nan=False)
    yield "]}"


def _image(
    frame: "FrameHands", clip: str | None = None, size_px: tuple[int, int] | None = None
) -> dict[str, Any]:
    """A picture's or frame's record in the document."""
    record: dict[str, Any] = {"file": frame.file or clip}
    if clip is not None:
        record |= {"index": frame.index, "time_s": frame.time_s}
    record["hands"] = [
        hand.to_dict() | ({} if track is None else {"track": track})
        for hand, track in zip(frame.hands, frame.tracks, strict=True)
    ]
    size_px = frame.size_px or (size_px if frame.error is None else None)
    if size_px is not None:
        record["size_px"] = list(size_px)
    if frame.error is not None:
        record["error"] = frame.error
    return record


def _clip_name(clip: Clip) -> str:
    """What the folder of a clip's results is called after."""
    if isinstance(clip, Pictures) and not Path(clip.name).exists():  # a pattern
        return str(Path(clip.files[0]).resolve().parent)
    return clip.name


def _stems(files: Sequence[str]) -> list[str]:
    """Names for these files' results, all different: the file's own, or with its folder's or a number."""
    plain = [Path(file).stem for file in files]
    named = [
        stem if plain.count(stem) == 1 else f"{Path(file).resolve().parent.name}_{stem}"
        for file, stem in zip(files, plain, strict=True)
    ]
    return [
        stem if named.count(stem) == 1 else f"{stem}_{named[:index].count(stem) + 1}"
        for index, stem in enumerate(named)
    ]


def _describe(file: str, hands: Sequence[Hand]) -> str:
    if not hands:
        return f"{file}: no hand found"
    parts = []
    for hand in hands:
        if hand.joints_mm is not None and hand.frame.startswith(CAMERA_FRAME):
            x, y, z = hand.joints_mm[0]
            place = f"({x:.0f}, {y:.0f}, {z:.0f}) mm"
        else:
            u, v = hand.keypoints_px[0]
            place = f"({u:.0f}, {v:.0f}) px"
        parts.append(f"{hand.side} hand, score {hand.score:.2f}, wrist at {place}")
    return f"{file}: {'; '.join(parts)}"


_warned: set[tuple[int, ...]] = set()


def _warn_camera(image: DepthImage) -> None:
    """Say once for each size of frame which camera is assumed."""
    if image.depth_mm.shape in _warned:
        return
    _warned.add(image.depth_mm.shape)
    height, width = image.depth_mm.shape
    assumed = assumed_camera(width, height)
    say(
        "predict",
        f"{image.source}: no camera is known, so one is assumed for {width}x{height} pixels: "
        f"--camera {assumed.fx:g},{assumed.fy:g},{assumed.cx:g},{assumed.cy:g}; "
        "give yours for true millimetres",
    )
