"""What a request has done in a worker thread: read, estimate, fit, write, by the package's own functions."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from handgraph.camera import Crop, PinholeCamera
from handgraph.colour import ColourEstimator
from handgraph.errors import CheckpointError, HandgraphError, InputError
from handgraph.estimator import Estimator, load, weights_path
from handgraph.formats import (
    ImageHands,
    Predictions,
    from_document,
    to_document,
    write_coco,
    write_json,
    write_parquet,
)
from handgraph.hand import RELATIVE_FRAME, Hand, Side
from handgraph.images import assumed_camera, is_photo, read_depth, read_image
from handgraph.meshes import with_mesh, write_mesh
from handgraph.report import depth_picture, write_overlay
from handgraph.runtime import Runtime
from handgraph.server.clips import read_frames
from handgraph.server.jobs import Deadline
from handgraph.server.limits import Limits, Refused, check_upload
from handgraph.subject import Subject, personalize_files, read_subject, write_subject
from handgraph.tracking import Box, Follower

PREVIEW_WIDTH = 960
"""Pixels; a depth frame is shown as a picture of at most this width."""

PERSONAL_PHOTO_MODEL = "identity_mesh"
"""The system that tells the size of a hand from photographs."""

MEDIA_TYPES = {
    "json": "application/json",
    "coco": "application/json",
    "parquet": "application/vnd.apache.parquet",
    "obj": "model/obj",
    "ply": "application/octet-stream",
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "png": "image/png",
}
"""Every format that predictions can be had in."""
MESHES = ("obj", "ply", "glb", "gltf")
Format = Literal["json", "coco", "parquet", "obj", "ply", "glb", "gltf", "png"]


def _four(value: Any) -> Any:
    """`1,2,3,4` as four numbers; an empty field is none."""
    if isinstance(value, str):
        return tuple(value.split(",")) if value.strip() else None
    return value


def _none(value: Any) -> Any:
    return None if value == "" else value


Four = Annotated[tuple[float, float, float, float] | None, BeforeValidator(_four)]


class Settings(BaseModel):
    """What may stand beside an upload, as form fields or in the address. All of it is optional."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: Annotated[str | None, BeforeValidator(_none)] = Field(
        None, max_length=100, description="system to use; else the one for this kind of picture"
    )
    side: Annotated[Literal["left", "right"] | None, BeforeValidator(_none)] = Field(
        None, description="which hand it is (depth: right unless told; photographs: tried)"
    )
    box: Four = Field(None, description="x,y,w,h in pixels: look for the hand only here")
    camera: Four = Field(None, description="fx,fy,cx,cy in pixels of the camera that took it")
    depth_scale: Annotated[float | None, BeforeValidator(_none)] = Field(
        None, gt=0, description="millimetres a unit of a depth file"
    )
    hands: Annotated[int | None, BeforeValidator(_none)] = Field(
        None, ge=1, le=20, description="how many hands there may be (photographs: all; depth frames: one)"
    )
    mesh: bool = Field(False, description="fit the hand model to the joints: vertices, pose and shape")
    subject: Annotated[str | None, BeforeValidator(_none)] = Field(
        None, description="whose hand it is: the JSON that /api/personalize answers under `subject`"
    )
    format: Format = Field("json", description="of the answer")
    preview: bool = Field(False, description="add a picture of a depth frame to the JSON")
    name: str = Field("", max_length=200, description="file name of an upload that is the body itself")


@dataclass
class Models:
    """The estimators, each loaded once by each worker thread, so that no two threads share a network.

    `checkpoint` is used wherever its system is asked for, and `model` for its kind of picture where none is.
    """

    model: str | None = None
    checkpoint: str | None = None
    runtime: Runtime = "torch"
    _own: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        self.defaults = {"depth": "jgr_p2o", "photo": "siapose"}
        self._checkpoint_name: str | None = None
        if self.checkpoint is not None:
            self._checkpoint_name = load(checkpoint=self.checkpoint, runtime=self.runtime).name
        for name in (self.model, self._checkpoint_name):
            if name is not None:
                self.defaults[_kind(self.get(name))] = name

    def get(self, name: str) -> "Estimator | ColourEstimator":
        """The estimator of a system. Raises Refused (404) for one that is unknown or has no weights here."""
        loaded: dict[str, Estimator | ColourEstimator] = self._own.__dict__.setdefault("loaded", {})
        if name not in loaded:
            try:
                own = self.checkpoint if name == self._checkpoint_name else None
                loaded[name] = load(name, checkpoint=own, runtime=self.runtime)
            except HandgraphError as error:
                raise Refused(404, str(error)) from error
        return loaded[name]

    def usable(self) -> list[dict[str, str]]:
        """Systems with weights, and the kind of picture each takes."""
        from handgraph import systems

        kinds = {name: getattr(systems, name).INPUT for name in systems.names()}
        return [
            {"name": name, "input": "depth" if kind == "depth" else "photo"}
            for name, kind in kinds.items()
            if name == self._checkpoint_name or weights_path(name).is_file()
        ]

    def warm_up(self) -> None:
        """Load what is used by default in this thread, and let it look at an empty picture."""
        depth = np.full((64, 64), 500, np.float32)
        depth[16:48, 16:48] = 450
        for kind, name in self.defaults.items():
            if not weights_path(name).is_file() and name != self._checkpoint_name:
                continue
            frame = depth if kind == "depth" else np.zeros((64, 64, 3), np.uint8)
            self.get(name)(frame, box=(8.0, 8.0, 48.0, 48.0))


def compile_fitting() -> None:
    """Fit a mesh, lay a hand: what numba compiles once per installation takes longer than a request may."""
    import torch

    from handgraph.hand_model import HandLayer, load_open_hand
    from handgraph.hand_model.surface import fit_surface

    joints = HandLayer()(torch.zeros(1, 10), torch.zeros(1, 48), torch.tensor([[0.0, 0.0, 500.0]])).joints_mm
    with_mesh(Hand("right", 1.0, np.zeros((21, 2)), np.zeros(4), joints_mm=joints[0].numpy()))
    crop = Crop.cube(np.array([0.0, 0.0, 500.0]), 250.0, PinholeCamera(500.0, 500.0, 0.0, 0.0))
    fit_surface(load_open_hand(), np.zeros((1, crop.size, crop.size)), [crop], joints.numpy())


@dataclass(frozen=True)
class Result:
    """Predictions of one upload, with what only the server says about them."""

    predictions: Predictions
    kind: str
    notes: tuple[str, ...] = ()
    frame: np.ndarray | None = None
    times_s: tuple[float, ...] | None = None
    tracks: tuple[tuple[int, ...], ...] | None = None
    """Of a clip, for each hand of each image."""

    def document(self, *, preview: bool = False) -> dict[str, Any]:
        """What `handgraph predict --json` prints, and `input`, `notes`; of clips `times_s` and `track`."""
        document = to_document(self.predictions) | {"input": self.kind, "notes": list(self.notes)}
        if self.times_s is not None:
            document["times_s"] = [round(time_s, 4) for time_s in self.times_s]
        if self.tracks is not None:
            for image, tracks in zip(document["images"], self.tracks, strict=True):
                for hand, track in zip(image["hands"], tracks, strict=True):
                    hand["track"] = track
        if preview and self.kind == "depth" and self.frame is not None:
            document["preview"] = _preview(self.frame, self.predictions.images[0].hands)
        return document


def predict(
    models: Models, path: Path, settings: Settings, limits: Limits, folder: Path, deadline: Deadline
) -> Result:
    """Hands in one uploaded file. Raises Refused and the package's own errors."""
    kind = _kind_of(path, limits)
    estimate = models.get(settings.model or models.defaults[kind if kind == "depth" else "photo"])
    if (kind == "depth") != (_kind(estimate) == "depth"):
        wants = "depth frames" if _kind(estimate) == "depth" else "photographs"
        found = {"depth": "a depth frame", "photo": "a photograph", "clip": "a clip"}[kind]
        raise Refused(422, f"{path.name}: {found}, but {estimate.name} takes {wants}")
    subject = _subject(settings.subject, folder)
    deadline.check()
    if kind == "clip":
        return _predict_clip(estimate, path, settings, subject, limits, deadline)
    camera = PinholeCamera(*settings.camera) if settings.camera else None
    notes: list[str] = []
    frame: np.ndarray
    hands: list[Hand]
    if isinstance(estimate, ColourEstimator):
        frame = read_image(path)
        deadline.check()
        hands = _look(estimate, frame, camera, settings, subject, None, None)
    else:
        image = read_depth(path, settings.depth_scale)
        frame, camera = image.depth_mm, camera or image.camera
        deadline.check()
        side, most = settings.side or "right", settings.hands or 1
        hands = estimate(frame, camera=camera, box=settings.box, side=side, most=most, subject=subject)
        if camera is None:
            notes.append(_assumed(frame))
        if subject is not None and not (settings.mesh or estimate.optimise):
            notes.append(f"{estimate.name} measures the hand itself: the subject only shapes the mesh")
    hands = _finished(hands, settings, subject, notes)
    height, width = frame.shape[:2]
    image_hands = ImageHands(path.name, tuple(hands), size_px=(width, height))
    return Result(Predictions(estimate.name, (image_hands,)), kind, tuple(notes), frame)


def _predict_clip(
    estimate: "Estimator | ColourEstimator",
    path: Path,
    settings: Settings,
    subject: Subject | None,
    limits: Limits,
    deadline: Deadline,
) -> Result:
    assert isinstance(estimate, ColourEstimator)
    camera = PinholeCamera(*settings.camera) if settings.camera else None
    images: list[ImageHands] = []
    times: list[float] = []
    tracks: list[tuple[int, ...]] = []
    notes: list[str] = []
    follower = Follower(
        everywhere=settings.box is not None, least_score=estimate.least_score, most=settings.hands
    )
    for index, (time_s, frame) in enumerate(read_frames(path, limits)):
        deadline.check()
        if times and deadline.nearly_over:
            notes.append(
                f"only the clip's first {times[-1]:.1f} s were looked at: a request may take no longer"
            )
            break
        look = partial(_look, estimate, frame, camera, settings, subject)
        found, numbers = follower(frame, time_s, look)
        hands = _finished(list(found), settings, subject, notes)
        height, width = frame.shape[:2]
        images.append(ImageHands(f"{path.name}#{index}", tuple(hands), size_px=(width, height)))
        times.append(time_s)
        tracks.append(numbers)
    return Result(
        Predictions(estimate.name, tuple(images)),
        "clip",
        tuple(dict.fromkeys(notes)),
        times_s=tuple(times),
        tracks=tuple(tracks),
    )


def _look(
    estimate: ColourEstimator,
    frame: np.ndarray,
    camera: PinholeCamera | None,
    settings: Settings,
    subject: Subject | None,
    box: Box | None,
    side: Side | None,
) -> list[Hand]:
    """Hands of a photograph or a clip's frame; what the client says of box and side wins over a track's."""
    hands = estimate(
        frame, camera=camera, box=settings.box or box, side=settings.side or side, subject=subject
    )
    return hands[: settings.hands]


def _finished(hands: list[Hand], settings: Settings, subject: Subject | None, notes: list[str]) -> list[Hand]:
    if not (settings.mesh or settings.format in MESHES):
        return hands
    if any(not _metric(hand) for hand in hands):
        notes.append("a mesh needs joints in millimetres, which this system does not give")
    shape = None if subject is None else subject.shape
    return [with_mesh(hand, shape=shape) if _metric(hand) else hand for hand in hands]


def _metric(hand: Hand) -> bool:
    known = hand.joints_mm is not None and not hand.frame.startswith(RELATIVE_FRAME)
    return known or hand.vertices_mm is not None


def personalize(
    models: Models,
    paths: Sequence[Path],
    settings: Settings,
    limits: Limits,
    folder: Path,
    deadline: Deadline,
) -> dict[str, Any]:
    """One person's hand from several pictures: the document of `handgraph personalize`, and problems."""
    kinds = {_kind_of(path, limits) for path in paths}
    if len(kinds) > 1 or "clip" in kinds:
        raise Refused(
            422, f"{', '.join(sorted(kinds))}: expected pictures of one kind, all depth or all photo"
        )
    kind = kinds.pop()
    deadline.check()
    name = settings.model or (models.defaults["depth"] if kind == "depth" else PERSONAL_PHOTO_MODEL)
    try:
        estimate = models.get(name)
    except Refused as refused:
        if settings.model is None and isinstance(refused.__cause__, CheckpointError):
            raise Refused(
                404,
                f"photographs tell the size of a hand only through {name}, whose weights are not shipped "
                "with this installation; use depth frames, or start the server with --checkpoint",
            ) from refused
        raise
    camera = PinholeCamera(*settings.camera) if settings.camera else None
    subject, problems = personalize_files(
        paths, estimate, camera=camera, side=settings.side, depth_scale=settings.depth_scale
    )
    subject = replace(subject, files=tuple(Path(file).name for file in subject.files))
    write_subject(folder / "subject.json", subject)
    document = json.loads((folder / "subject.json").read_text(encoding="utf-8"))
    return {"subject": document, "problems": [without_folder(line, folder) for line in problems]}


def convert(
    document_path: Path, picture: Path | None, settings: Settings, limits: Limits, folder: Path
) -> tuple[bytes, str]:
    """A document that `/api/predict` has answered, in another format; a picture is needed for `png` only."""
    try:
        predictions = from_document(json.loads(document_path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise InputError(f"predictions: not JSON ({str(error).splitlines()[0][:120]})") from None
    frame = None
    if settings.format == "png":
        if picture is None:
            raise Refused(400, "png: draws on the picture; send it as `file` beside `predictions`")
        kind = _kind_of(picture, limits)
        if kind == "clip":
            raise Refused(422, f"{picture.name}: a clip; send one picture")
        frame = read_image(picture) if kind == "photo" else read_depth(picture, settings.depth_scale).depth_mm
    return encode(predictions, settings.format, frame, folder)


def encode(
    predictions: Predictions, form: Format, frame: np.ndarray | None, folder: Path
) -> tuple[bytes, str]:
    """Predictions as the bytes of a file, and what to call it. The package's own writers write them."""
    file = folder / f"hands.{'json' if form == 'coco' else form}"
    hands = [hand for image in predictions.images for hand in image.hands]
    if form == "json":
        write_json(file, predictions)
    elif form == "coco":
        write_coco(file, predictions)
    elif form == "parquet":
        write_parquet(file, predictions)
    else:
        if len(predictions.images) != 1:
            raise Refused(422, f"{form}: holds one picture, this is a clip; take json, coco or parquet")
        if form == "png":
            assert frame is not None
            write_overlay(file, frame, hands)
        else:
            if not any(_metric(hand) for hand in hands):
                what = "joints in millimetres" if hands else "hand"
                raise Refused(
                    422, f"{form}: a mesh needs a {what}, and this answer has none".replace("a j", "j")
                )
            write_mesh(file, [with_mesh(hand) for hand in hands if _metric(hand)])
    stem = Path(predictions.images[0].file.partition("#")[0]).stem if predictions.images else "hands"
    tail = {"coco": "_coco.json", "png": "_hands.png"}.get(form, f".{form}")
    return file.read_bytes(), f"{stem}{tail}"


def without_folder(message: str, folder: Path) -> str:
    """A message without the temporary folder's name, which tells the client nothing."""
    parts = message.split(f"{folder}/")
    return parts[0] + "".join(part.partition("/")[2] if part[:1].isdigit() else part for part in parts[1:])


def _kind_of(path: Path, limits: Limits) -> str:
    """depth, photo or clip. Raises Refused before anything is decoded."""
    upload = check_upload(path.name, path.read_bytes(), limits)
    if upload == "png":
        return "photo" if is_photo(path) else "depth"
    return upload


def _kind(estimate: Any) -> str:
    return "photo" if isinstance(estimate, ColourEstimator) else "depth"


def _subject(text: str | None, folder: Path) -> Subject | None:
    if text is None:
        return None
    path = folder / "subject.json"
    path.write_text(text, encoding="utf-8")
    return read_subject(path)


def _assumed(frame: np.ndarray) -> str:
    height, width = frame.shape
    camera = assumed_camera(width, height)
    return (
        f"no camera is known, so one is assumed: {camera.fx:g},{camera.fy:g},{camera.cx:g},{camera.cy:g}; "
        "give yours for true millimetres"
    )


def _preview(depth_mm: np.ndarray, hands: Sequence[Hand]) -> str:
    """A depth frame as a data address of a PNG."""
    import base64

    picture = depth_picture(depth_mm, hands)
    if picture.shape[1] > PREVIEW_WIDTH:
        scale = PREVIEW_WIDTH / picture.shape[1]
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    encoded: np.ndarray = cv2.imencode(".png", picture[..., ::-1])[1]
    return f"data:image/png;base64,{base64.b64encode(encoded.tobytes()).decode('ascii')}"
