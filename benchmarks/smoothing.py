"""Jitter of a hand at rest and lag of one that moves, raw and with each smoothing.

    python benchmarks/smoothing.py --json

The shipped sample frames stand still, or sway from side to side once a second (a tenth of the picture's width
to each side), at 30 frames a second; every frame has sensor noise of its own. Depth: Gaussian noise of
1.2 + 1.9 (z - 0.4)² mm (z in m; Nguyen, Izadi, Lovell: Modeling Kinect sensor noise, 3DIMPVT 2012), readings
dropped at a tenth of the depth edges, whole millimetres. Photographs: shot noise of a dim room, 7 of 255 grey
levels at middle grey. The hands are found and tracked as `predict` does it.

Before both come the filters alone, on keypoints of which each coordinate errs by itself.

Jitter is the rms distance of a joint's places to their mean, after the first second. Lag is the phase of the
joints' sway against that of the picture, amplitude their sway over the picture's.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import cv2
from _bench import arguments, machine, report

import handgraph
from handgraph.camera import PinholeCamera
from handgraph.formats.lines import FrameHands
from handgraph.hand import Hand
from handgraph.images import read_depth, read_image
from handgraph.smoothing import NAMES, describe, smooth
from handgraph.tracking import Follower

FPS = 30
STILL, MOVING = 90, 90
SWAY_HZ = 1.0
SAMPLES = Path(handgraph.__file__).parent / "samples"
EDGE_MM = 20.0


def depth_noise(depth_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The frame with axial noise of its own, and holes at depth edges."""
    sigma = 1.2 + 1.9 * (depth_mm / 1000 - 0.4) ** 2
    noisy = np.round(depth_mm + sigma * rng.normal(size=depth_mm.shape))
    kernel = np.ones((3, 3), np.uint8)
    edges = cv2.dilate(depth_mm, kernel) - cv2.erode(depth_mm, kernel) > EDGE_MM
    holes = edges & (rng.uniform(size=depth_mm.shape) < 0.1)
    return np.where((depth_mm > 0) & ~holes, np.maximum(noisy, 1), 0).astype(np.float32)


def photo_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture with shot noise of its own."""
    sigma = 7.0 * np.sqrt((image + 4.0) / 132.0)
    return np.clip(np.round(image + sigma * rng.normal(size=image.shape)), 0, 255).astype(np.uint8)


def shifted(frame: np.ndarray, right_px: float) -> np.ndarray:
    """The frame moved to the right; what comes in at the edge repeats it."""
    matrix = np.array([[1.0, 0.0, right_px], [0.0, 1.0, 0.0]])
    way = cv2.INTER_NEAREST if frame.ndim == 2 else cv2.INTER_LINEAR
    return cv2.warpAffine(frame, matrix, frame.shape[1::-1], flags=way, borderMode=cv2.BORDER_REPLICATE)


def followed(estimate, frame, shifts, noise, camera, side, seed) -> list[FrameHands]:
    """What the estimator finds in the frame, shifted and spoilt anew each time."""
    rng = np.random.default_rng(seed)
    follower = Follower(enlarged=1.4 if estimate.input == "depth" else 1.1, least_score=estimate.least_score)
    found = []
    for k, shift in enumerate(shifts):
        image = noise(shifted(frame, shift), rng)
        hands, tracks = follower(
            image,
            k / FPS,
            lambda box, _: estimate(image, camera=camera, box=box, side=side),  # noqa: B023
        )
        found.append(FrameHands(k, k / FPS, hands, tracks))
    return found


def main_track(frames: list[FrameHands], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times and places (t, 21, d) of the hand seen most often."""
    numbers = [track for frame in frames for track in frame.tracks]
    track = max(set(numbers), key=numbers.count)
    rows = [
        (frame.time_s, getattr(hand, name))
        for frame in frames
        for hand, number in zip(frame.hands, frame.tracks, strict=True)
        if number == track and getattr(hand, name) is not None
    ]
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


def jitter(frames: list[FrameHands], name: str) -> float | None:
    """Rms distance of the joints to their mean places, after the first second."""
    times, places = main_track(frames, name)
    places = places[times >= 1]
    if not len(places):
        return None
    return float(np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=-1).mean()))


def sway(times: np.ndarray, places: np.ndarray) -> complex:
    """The complex amplitude of a sway, by least squares, without the first and last half second."""
    keep = (times >= 0.5) & (times <= times[-1] - 0.5)
    wave = np.exp(2j * np.pi * SWAY_HZ * times[keep])
    design = np.column_stack([wave.real, wave.imag, np.ones(keep.sum())])
    (a, b, _), *_ = np.linalg.lstsq(design, places[keep], rcond=None)
    return complex(a, -b)


def measure(kind: str, files: list[str]) -> list[dict[str, object]]:
    """A row for each smoothing: means over the files."""
    estimate = handgraph.load("jgr_p2o" if kind == "depth" else "siapose")
    noise = depth_noise if kind == "depth" else photo_noise
    sides = {}
    if kind == "colour":
        lines = (SAMPLES / "photos.jsonl").read_text().splitlines()
        sides = {record["image"]: record["side"] for record in map(json.loads, lines)}
    every: dict[str, list[dict[str, float | None]]] = {name: [] for name in NAMES}
    for seed, file in enumerate(files):
        camera: PinholeCamera | None = None
        if kind == "depth":
            image = read_depth(SAMPLES / file)
            frame, camera = image.depth_mm, image.camera
        else:
            frame = read_image(SAMPLES / file)
            if frame.shape[1] > 640:
                frame = cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        width = frame.shape[1]
        side = sides.get(file, "right")
        times = np.arange(MOVING) / FPS
        moves = 0.1 * width * np.sin(2 * np.pi * SWAY_HZ * times)
        still = followed(estimate, frame, np.zeros(STILL), noise, camera, side, seed)
        moving = followed(estimate, frame, moves, noise, camera, side, 100 + seed)
        for name in NAMES:
            calm, swaying = list(smooth(still, name)), list(smooth(moving, name))
            seen, places = main_track(swaying, "keypoints_px")
            phase = sway(seen, places[..., 0].mean(axis=1)) / sway(times, moves)
            every[name].append(
                {
                    "jitter_px": jitter(calm, "keypoints_px"),
                    "jitter_mm": jitter(calm, "joints_mm"),
                    "lag_ms": float(-1e3 * np.angle(phase) / (2 * np.pi * SWAY_HZ)),
                    "lag_frames": float(-FPS * np.angle(phase) / (2 * np.pi * SWAY_HZ)),
                    "amplitude": float(abs(phase)),
                    "found": len(seen) / MOVING,
                }
            )
    return [
        {"input": kind, "smooth": name}
        | {
            key: None if rows[0][key] is None else round(float(np.mean([row[key] for row in rows])), 4)
            for key in rows[0]
        }
        for name, rows in every.items()
    ]


def white_noise(noise_px: float) -> list[dict[str, object]]:
    """The filters alone: a hand 180 px long, of whose keypoints each coordinate errs by itself."""
    rng = np.random.default_rng(0)
    shape = rng.uniform(-1, 1, (21, 2)) * [45, 90] + [320, 240]
    times = np.arange(MOVING) / FPS
    moves = 64 * np.sin(2 * np.pi * SWAY_HZ * times)

    def clip(shifts: np.ndarray) -> list[FrameHands]:
        return [
            FrameHands(
                k,
                k / FPS,
                (Hand("right", 0.9, shape + [x, 0] + noise_px * rng.normal(size=(21, 2)), np.zeros(4)),),
                (1,),
            )
            for k, x in enumerate(shifts)
        ]

    still, moving = clip(np.zeros(STILL)), clip(moves)
    rows = []
    for name in NAMES:
        calm = jitter(list(smooth(still, name)), "keypoints_px")
        _, places = main_track(list(smooth(moving, name)), "keypoints_px")
        phase = sway(times, places[..., 0].mean(axis=1)) / sway(times, moves)
        lag_s = float(-np.angle(phase) / (2 * np.pi * SWAY_HZ))
        row: dict[str, object] = {"input": f"{noise_px:g} px of noise", "smooth": name}
        row |= {"jitter_px": round(calm or 0.0, 4), "jitter_mm": None, "lag_ms": round(1e3 * lag_s, 4)}
        rows.append(
            row
            | {"lag_frames": round(FPS * lag_s, 4), "amplitude": round(float(abs(phase)), 4), "found": 1.0}
        )
    return rows


def main() -> None:
    """Measure both kinds of picture and print."""
    args = arguments(str(__doc__).partition("\n")[0])
    depth = sorted(path.name for path in SAMPLES.glob("depth_*.png"))
    photos = sorted(path.name for path in SAMPLES.glob("image_*.jpg"))
    files = {
        "depth": depth[: max(1, round(2 * args.repeats))],
        "colour": photos[: max(1, round(2 * args.repeats))],
    }
    document = {
        "benchmark": "smoothing",
        "machine": machine(),
        "fps": FPS,
        "files": files,
        "settings": {name: describe(name) for name in NAMES},
        "rows": [
            *white_noise(1.0),
            *(row for kind, names in files.items() for row in measure(kind, names)),
        ],
    }
    report(document, args.json)


if __name__ == "__main__":
    main()
