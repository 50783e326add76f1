"""Backgrounds without photographs: a pool of textures, and pictures heaped up from them and from shapes."""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from handgraph.errors import InputError
from handgraph.synthetic.hands import chance, compiled, integer, normal, uniform

TEXTURE_PX = 256
TEXTURES = 96


@lru_cache(maxsize=1)
def texture_pool() -> np.ndarray:
    """(96, 256, 256, 3) uint8 textures, always the same: cloth, wood, bricks, shelves, print, leaves…"""
    rng = np.random.default_rng(20)
    return np.stack([_texture(rng, index % 12) for index in range(TEXTURES)])


def _colour(rng: np.random.Generator) -> np.ndarray:
    """An RGB colour 0-255; most things are not colourful."""
    grey = rng.uniform(15, 245)
    tint = rng.normal(0, 1, 3)
    tint -= tint.mean()
    return np.clip(grey + tint * rng.choice([6, 22, 60], p=[0.45, 0.42, 0.13]), 0, 255)


def _fractal(rng: np.random.Generator, first: int = 3, slope: float = 0.6) -> np.ndarray:
    """Noise of several octaves, 0-1, (256, 256)."""
    out, weight = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float32), 1.0
    cells = first
    while cells <= 128:
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        out += weight * cv2.resize(coarse, (TEXTURE_PX, TEXTURE_PX), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * slope
    low, high = np.percentile(out, [1, 99])
    return np.clip((out - low) / (high - low), 0, 1)


def _blend(t: np.ndarray, *colours: np.ndarray) -> np.ndarray:
    """A map of 0-1 through a row of colours."""
    places = np.linspace(0, 1, len(colours))
    table = np.stack(colours)
    return np.stack([np.interp(t, places, table[:, c]) for c in range(3)], -1)


def _texture(rng: np.random.Generator, kind: int) -> np.ndarray:
    n = TEXTURE_PX
    y, x = np.mgrid[0:n, 0:n].astype(np.float32)
    a, b, c = _colour(rng), _colour(rng), _colour(rng)
    rough = _fractal(rng, 8, rng.uniform(0.5, 0.95))
    if kind == 0:  # cloud, plaster, stone
        out = _blend(_fractal(rng, 2, rng.uniform(0.4, 0.9)), a, b, c)
    elif kind == 1:  # stripes, checks, tartan
        u = 0.5 + 0.5 * np.sign(np.sin(x * 2 * np.pi / rng.uniform(6, 60)) + rng.uniform(-0.6, 0.6))
        v = 0.5 + 0.5 * np.sign(np.sin(y * 2 * np.pi / rng.uniform(6, 60)) + rng.uniform(-0.6, 0.6))
        share = rng.choice([0.0, 0.5])
        out = _blend(np.clip((1 - share) * u + share * v, 0, 1), a, b) * (0.85 + 0.3 * rough[..., None])
    elif kind == 2:  # wood
        bent = y + 14 * _fractal(rng, 2)
        grain = 0.5 + 0.5 * np.sin(bent * rng.uniform(0.2, 0.6) + 5 * _fractal(rng, 2, 0.4))
        brown = np.array([rng.uniform(70, 210)]) * np.array(
            [1.0, rng.uniform(0.6, 0.85), rng.uniform(0.3, 0.65)]
        )
        out = _blend(0.6 * grain + 0.4 * rough, 0.6 * brown, brown)
    elif kind == 3:  # bricks or tiles
        h, w = rng.integers(14, 60), rng.integers(20, 90)
        row = np.floor(y / h)
        shift = (row % 2) * (w / 2) * rng.integers(0, 2)
        column = np.floor((x + shift) / w)
        own = rng.uniform(0, 1, (40, 40))[(row.astype(int)) % 40, (column.astype(int)) % 40]
        joint = ((y % h) < 2.5) | (((x + shift) % w) < 2.5)
        out = _blend(0.7 * own + 0.3 * rough, a, 0.7 * a + 0.3 * b)
        out[joint] = c
    elif kind == 4:  # shelves with rows of things
        out = np.zeros((n, n, 3)) + 0.4 * a
        top = 0
        while top < n:
            height = int(rng.integers(28, 80))
            left = 0
            while left < n:
                width = int(rng.integers(6, 34))
                tall = int(height * rng.uniform(0.5, 0.95))
                colour = _colour(rng)
                shade = 0.55 + 0.45 * np.sin(np.linspace(0.2, 2.9, width))[None, :, None]
                block = np.broadcast_to(colour * shade, (tall, width, 3)).copy()
                for _ in range(rng.integers(0, 3)):
                    band = int(rng.integers(0, max(tall - 4, 1)))
                    block[band : band + int(rng.integers(2, 10))] = _colour(rng) * shade
                bottom = min(top + height - 4, n)
                piece = out[max(bottom - tall, 0) : bottom, left : left + width]
                piece[:] = block[-piece.shape[0] :, : piece.shape[1]] if piece.shape[0] else piece
                left += width + int(rng.integers(0, 4))
            out[max(min(top + height - 4, n), 0) : min(top + height, n)] = c
            top += height
    elif kind == 5:  # print: lines of text-like marks
        out = np.zeros((n, n, 3)) + _blend(np.array(0.9 + 0.1 * rough), a, b)
        line = int(rng.integers(5, 18))
        for top in range(3, n - line, line):
            left = int(rng.integers(0, 30))
            while left < n - 4:
                word = int(rng.integers(2, 16))
                mark = rng.uniform(0, 1, (max(line - 3, 2), word)) < 0.6
                piece = out[top : top + mark.shape[0], left : left + word]
                piece[mark[: piece.shape[0], : piece.shape[1]]] = c
                left += word + int(rng.integers(1, 5))
    elif kind == 6:  # leaves and twigs
        out = _blend(rough, 0.4 * a, 0.8 * a)
        green = np.array([rng.uniform(40, 130), rng.uniform(80, 180), rng.uniform(20, 90)])
        for _ in range(700):
            tone = green * rng.uniform(0.3, 1.5) + rng.normal(0, 10, 3)
            center = tuple(int(value) for value in rng.integers(0, n, 2))
            axes = (int(rng.integers(2, 13)), int(rng.integers(1, 6)))
            cv2.ellipse(out, center, axes, float(rng.uniform(0, 360)), 0, 360, tone.tolist(), -1)
    elif kind == 7:  # blobs
        out = _blend(rough, a, b)
        for _ in range(int(rng.integers(20, 160))):
            center = tuple(int(value) for value in rng.integers(0, n, 2))
            cv2.circle(out, center, int(rng.integers(2, 26)), _colour(rng).tolist(), -1)
    elif kind == 8:  # cloth: fine weave over folds
        weave = np.sin(x * rng.uniform(1, 2.5)) * np.sin(y * rng.uniform(1, 2.5))
        folds = _fractal(rng, 2, 0.35)
        out = a * (0.55 + 0.7 * folds + 0.1 * weave)[..., None]
    elif kind == 9:  # planks, panels, windows, frames
        out = np.zeros((n, n, 3)) + a
        for _ in range(int(rng.integers(8, 40))):
            p, q = rng.integers(0, n, 2), rng.integers(8, 110, 2)
            corner, other = (int(p[0]), int(p[1])), (int(p[0] + q[0]), int(p[1] + q[1]))
            thick = -1 if rng.uniform() < 0.6 else int(rng.integers(1, 7))
            cv2.rectangle(out, corner, other, _colour(rng).tolist(), thick)
        out *= (0.8 + 0.35 * rough)[..., None]
    elif kind == 10:  # cables, branches, edges
        out = _blend(_fractal(rng, 2, 0.5), a, b)
        for _ in range(int(rng.integers(15, 70))):
            p = rng.integers(-20, n + 20, (4, 2))
            t = np.linspace(0, 1, 24)[:, None]
            curve = (
                (1 - t) ** 3 * p[0] + 3 * t * (1 - t) ** 2 * p[1] + 3 * t**2 * (1 - t) * p[2] + t**3 * p[3]
            )
            points = [curve.astype(np.int32).reshape(-1, 1, 2)]
            cv2.polylines(out, points, False, _colour(rng).tolist(), int(rng.integers(1, 9)))
    else:  # sharp patches of colour: what a crowded room is from afar
        seeds = rng.uniform(0, n, (int(rng.integers(40, 200)), 2))
        owner = np.zeros((n, n), np.int64)
        best = np.full((n, n), np.inf)
        for i, (u, v) in enumerate(seeds):
            d = np.abs(x - u) * rng.uniform(0.5, 2) + np.abs(y - v)
            owner[d < best] = i
            best = np.minimum(best, d)
        out = np.stack([_colour(rng) for _ in seeds])[owner] * (0.75 + 0.5 * rough)[..., None]
    return np.clip(out, 0, 255).astype(np.uint8)


@compiled
def random_colour(state: np.ndarray, out: np.ndarray) -> None:
    """A display colour, 0-1: mostly dull, sometimes strong."""
    grey = uniform(state, 0.04, 0.96)
    spread = 0.03
    kind = uniform(state, 0.0, 1.0)
    if kind > 0.86:
        spread = 0.28
    elif kind > 0.4:
        spread = 0.09
    for c in range(3):
        out[c] = min(max(grey + normal(state, 0.0, spread), 0.0), 1.0)


@compiled
def _skin_like(state: np.ndarray, out: np.ndarray) -> None:
    light = uniform(state, 0.25, 0.9)
    out[0], out[1], out[2] = (light, light * uniform(state, 0.62, 0.8), light * uniform(state, 0.45, 0.7))


@compiled
def heap(state: np.ndarray, pool: np.ndarray, amount: float, out: np.ndarray) -> None:
    """Fill `out` (h, w, 3) float32 0-1 with a background; `amount` 0-1 is how crowded it is."""
    h, w = out.shape[0], out.shape[1]
    span = np.float32(max(h, w))
    layers = 1 + (integer(state, 20) if chance(state, amount) else integer(state, 5))
    one, two = np.empty(3), np.empty(3)
    for layer in range(layers):
        # The first layer fills the picture; the others are half-planes, boxes, ellipses and bars.
        kind = 0 if layer == 0 else 1 + integer(state, 12)
        textured = chance(state, 0.75 if layer == 0 else 0.45)
        texture = integer(state, len(pool))
        turn = uniform(state, 0.0, 2 * np.pi) if chance(state, 0.4) else 0.05 * normal(state, 0.0, 1.0)
        zoom = np.float32(np.exp(uniform(state, -1.3, 1.1)) * 256.0 / span)
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        du, dv = (np.float32(uniform(state, 0.0, 256.0)), np.float32(uniform(state, 0.0, 256.0)))
        random_colour(state, one)
        random_colour(state, two)
        if chance(state, 0.08):
            _skin_like(state, one)
            two[:] = 0.8 * one
        if not textured and chance(state, 0.6):
            two[:] = one
        contrast = np.float32(uniform(state, 0.4, 1.1))
        gain = np.empty(3, np.float32)
        for c in range(3):
            gain[c] = uniform(state, 0.88, 1.12) * contrast / 255.0
        lift = np.float32(uniform(state, 0.0, 1.0)) * (np.float32(1.0) - contrast)
        cu, cv = (np.float32(uniform(state, -0.1, 1.1) * w), np.float32(uniform(state, -0.1, 1.1) * h))
        size = np.float32(np.exp(uniform(state, -3.2, -0.4)) * span)
        ratio = np.float32(np.exp(normal(state, 0.0, 0.6)))
        if kind > 10:
            ratio, size = np.float32(uniform(state, 12.0, 40.0)), size * np.float32(2.0)
        ru, rv = size * np.sqrt(ratio), size / np.sqrt(ratio)
        tilt = uniform(state, -np.pi, np.pi) if chance(state, 0.4) else 0.05 * normal(state, 0.0, 1.0)
        tc, ts = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        reach_u, reach_v = abs(ru * tc) + abs(rv * ts), abs(ru * ts) + abs(rv * tc)
        u0, u1, v0, v1 = 0, w, 0, h
        if kind > 1:
            u0, u1 = max(int(cu - reach_u), 0), min(int(cu + reach_u) + 2, w)
            v0, v1 = max(int(cv - reach_v), 0), min(int(cv + reach_v) + 2, h)
        slope = np.float32(uniform(state, -1.0, 1.0))
        for v in range(v0, v1):
            for u in range(u0, u1):
                x, y = np.float32(u) - cu, np.float32(v) - cv
                p, q = tc * x + ts * y, tc * y - ts * x
                if kind == 1:
                    if q < 0:
                        continue
                elif kind > 1:
                    a, b = p / ru, q / rv
                    if kind in (2, 3, 4):
                        if a * a + b * b > 1:
                            continue
                    elif abs(a) > 1 or abs(b) > 1 or (kind == 5 and a + b > 0):
                        continue
                if textured:
                    i = int(np.float32(4096.0) + zoom * (sin * x + cos * y) + dv) & 255
                    j = int(np.float32(4096.0) + zoom * (cos * x - sin * y) + du) & 255
                    for c in range(3):
                        out[v, u, c] = min(gain[c] * pool[texture, i, j, c] + lift, np.float32(1.0))
                else:
                    t = np.float32(0.5) + slope * (p / ru if kind > 1 else q / span)
                    t = min(max(t, np.float32(0.0)), np.float32(1.0))
                    for c in range(3):
                        out[v, u, c] = one[c] + t * (two[c] - one[c])
    # A room is lit unevenly: one slow gradient over everything.
    gu, gv = (np.float32(normal(state, 0.0, 0.5) / w), np.float32(normal(state, 0.0, 0.5) / h))
    for v in range(h):
        for u in range(w):
            k = np.float32(1.0) + gu * (u - np.float32(0.5) * w) + gv * (v - np.float32(0.5) * h)
            k = min(max(k, np.float32(0.3)), np.float32(1.6))
            for c in range(3):
                out[v, u, c] = min(out[v, u, c] * k, np.float32(1.0))


class Photos:
    """A folder of photographs as backgrounds, cut at random.

    Raises:
        InputError: no such folder, no photograph in it, or one that cannot be read (when it is drawn).
    """

    SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
    SIDE_PX = 640
    KEPT = 256

    def __init__(self, folder: str | Path) -> None:
        root = Path(folder)
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; expected one with photographs for backgrounds")
        self.files = sorted(path for path in root.rglob("*") if path.suffix.lower() in self.SUFFIXES)
        if not self.files:
            raise InputError(f"{root}: no photograph; expected {', '.join(self.SUFFIXES)} files")
        self._read = lru_cache(maxsize=self.KEPT)(self._photo)

    def _photo(self, index: int) -> np.ndarray:
        """One photograph, RGB, its longer side at most 640 pixels."""
        photo = cv2.imread(str(self.files[index]), cv2.IMREAD_COLOR)
        if photo is None:
            raise InputError(
                f"{self.files[index]}: cannot be read as a photograph; remove it from the folder"
            )
        scale = self.SIDE_PX / max(photo.shape[:2])
        if scale < 1:
            size = (max(round(photo.shape[1] * scale), 8), max(round(photo.shape[0] * scale), 8))
            photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)

    def fill(self, state: np.ndarray, out: np.ndarray) -> bool:
        """Nine times in ten a random cut of a random photograph into `out` (h, w, 3) float32, 0-1."""
        if not chance(state, 0.9):
            return False
        photo = self._read(int(integer(state, len(self.files))))
        h, w = out.shape[:2]
        share = np.sqrt(uniform(state, 0.08, 1.0))
        zoom = share * min(photo.shape[0] / h, photo.shape[1] / w)
        left = uniform(state, 0.0, max(photo.shape[1] - zoom * w, 0.0))
        top = uniform(state, 0.0, max(photo.shape[0] - zoom * h, 0.0))
        flip = -1.0 if chance(state, 0.5) else 1.0
        matrix = np.array([[flip * zoom, 0.0, left if flip > 0 else left + zoom * (w - 1)], [0.0, zoom, top]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cut = cv2.warpAffine(photo, matrix, (w, h), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        out[:] = cut.astype(np.float32) / 255
        return True
