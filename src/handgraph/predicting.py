"""`handgraph predict`: hands in pictures."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from handgraph.camera import PinholeCamera
from handgraph.console import Answer, folder, numbers, progress, say, traceback_if_wanted
from handgraph.errors import ConfigError, HandgraphError
from handgraph.hand import CAMERA_FRAME
from handgraph.images import DepthImage, assumed_camera, is_photo, read_depth, read_image

if TYPE_CHECKING:
    from handgraph.colour import ColourEstimator
    from handgraph.estimator import Estimator
    from handgraph.formats import ImageHands

DEFAULT_DEPTH, DEFAULT_COLOUR = "jgr_p2o", "siapose"


def run(args: argparse.Namespace) -> Answer:
    """Hands in image files. A file that cannot be used does not keep the others from their answers."""
    from handgraph.estimator import load
    from handgraph.formats import ImageHands, Predictions, to_document, write_json
    from handgraph.subject import read_subject
    from handgraph.training.checkpoint import find_system

    camera = PinholeCamera(*numbers(args.camera, "camera", "fx,fy,cx,cy")) if args.camera else None
    box = numbers(args.box, "box", "x,y,w,h") if args.box else None
    out = folder(args.out) if args.out else None
    estimate = load(args.model or model_for(args), checkpoint=args.checkpoint)
    args.person = read_subject(args.subject) if args.subject else None
    if args.explain and estimate.name != "hybrid_gcn":
        raise ConfigError(f"--explain: draws the classes and relations of hybrid_gcn, not of {estimate.name}")
    if args.explain and out is None:
        raise ConfigError("--explain: draws pictures, give --out, the folder to write them to")
    if args.person and not args.mesh and find_system(estimate.name).INPUT == "depth":
        raise ConfigError(
            f"--subject: {estimate.name} measures the hand itself; give --mesh to use its shape"
        )
    images: list[ImageHands] = []
    for file, stem in progress(list(zip(args.files, _stems(args.files), strict=True)), "predict"):
        try:
            images.append(_predict_file(estimate, file, stem, camera, box, args, out))
        except HandgraphError as error:
            reason = str(error) if file in str(error) else f"{file}: {error}"
            say("predict", reason)
            traceback_if_wanted()
            images.append(ImageHands(file, error=reason))
    predictions = Predictions(estimate.name, tuple(images))
    if out is not None:
        write_json(out / "predictions.json", predictions)
    lines = [_describe(image) for image in images if image.error is None]
    if out is not None:
        what = "pictures, pages and predictions.json" if lines else "predictions.json"
        lines.append(f"{what}: {out}")
    failed = any(image.error is not None for image in images)
    return Answer(to_document(predictions), "\n".join(lines), 2 if failed else 0)


def model_for(args: argparse.Namespace) -> str | None:
    """The system to use where none is named: what the first file calls for."""
    if args.checkpoint is not None:
        return None
    return DEFAULT_COLOUR if is_photo(args.files[0]) else DEFAULT_DEPTH


def _predict_file(
    estimate: "Estimator | ColourEstimator",
    file: str,
    stem: str,
    camera: PinholeCamera | None,
    box: tuple[float, float, float, float] | None,
    args: argparse.Namespace,
    out: Path | None,
) -> "ImageHands":
    from handgraph.colour import ColourEstimator
    from handgraph.formats import ImageHands
    from handgraph.meshes import with_mesh, write_mesh
    from handgraph.report import write_overlay, write_page

    if isinstance(estimate, ColourEstimator):
        frame = read_image(file)
        hands = estimate(frame, camera=camera, box=box, side=args.side, subject=args.person)
        if args.explain and hands:
            assert out is not None  # run has refused otherwise
            from handgraph.explain import write_picture

            write_picture(
                out / f"{stem}_explained.png", frame, *estimate.output(frame, hands[0], args.person)
            )
    else:
        image = read_depth(file, args.depth_scale)
        frame, camera = image.depth_mm, camera or image.camera
        if camera is None:
            _warn_camera(image)
        hands = estimate(frame, camera=camera, box=box, side=args.side or "right")
    if args.mesh:
        hands = [with_mesh(hand, shape=None if args.person is None else args.person.shape) for hand in hands]
    if out is not None:
        if any(hand.vertices_mm is not None for hand in hands):
            write_mesh(out / f"{stem}.glb", hands)
        write_overlay(out / f"{stem}.png", frame, hands)
        write_page(out / f"{stem}.html", Path(file).name, estimate.name, frame, hands)
    height, width = frame.shape[:2]
    return ImageHands(file, tuple(hands), size_px=(width, height))


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


def _describe(image: "ImageHands") -> str:
    if not image.hands:
        return f"{image.file}: no hand found"
    parts = []
    for hand in image.hands:
        if hand.joints_mm is not None and hand.frame.startswith(CAMERA_FRAME):
            x, y, z = hand.joints_mm[0]
            place = f"({x:.0f}, {y:.0f}, {z:.0f}) mm"
        else:
            u, v = hand.keypoints_px[0]
            place = f"({u:.0f}, {v:.0f}) px"
        parts.append(f"{hand.side} hand, score {hand.score:.2f}, wrist at {place}")
    return f"{image.file}: {'; '.join(parts)}"


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
