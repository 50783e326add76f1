"""Train the hand finder on synthetic scenes, and choose its least score on scenes of other subjects.

    python tools/train_finder.py runs/finder --minutes 25
    python tools/train_finder.py runs/finder --ship "synthetic scenes alone, …"

The first run draws the cards that scenes are made of (8,000 and 600 for validation, about six minutes of a
core) into the folder; later ones read them. `last.safetensors` and `log.jsonl` follow every five minutes.
"""

import argparse
import json
import pickle
import time
from collections import deque
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from handgraph.finder import SIZE, Found, Letterbox, decode, encode, iou, padded, shipped
from handgraph.images import to_network
from handgraph.networks.finder import Config, FinderNet, load, loss
from handgraph.synthetic.scenes import Scene, SceneSynthesizer
from handgraph.training.checkpoint import read_meta, save_weights

SHAPES = ((1.0, 1.0), (0.75, 1.0), (1.0, 0.75), (0.5625, 1.0), (1.0, 0.5625), (0.83, 1.0))
"""Height and width of the scenes over the longer side, one kind a batch."""
SMALL, SMALL_UNTIL = 128, 0.5
"""Longer side at first, px, and the share of the time that it lasts; then `finder.SIZE`."""
SMALLEST_PX = 10
"""A smaller hand need not be found."""
BATCH = 16
WAITING = 8
"""Batches between a batch and its mirror image: every scene is used twice."""
RATE = 2e-3
WEIGHTS = {"score": 1.0, "box": 2.0, "side": 0.5}
VALIDATION = 600
"""Cards, and scenes."""


def synthesizer(folder: Path, split: str, cards: int) -> SceneSynthesizer:
    """A synthesizer whose cards are all drawn, now or by an earlier run."""
    scenes = SceneSynthesizer(0, split, cards)
    file = folder / f"cards_{split}.pickle"
    if file.is_file():
        with file.open("rb") as opened:
            scenes._kept = pickle.load(opened)
    else:
        start = time.perf_counter()
        for index in range(cards):
            scenes.card(index)
            if index % 500 == 499:
                print(f"{split}: {index + 1} cards in {time.perf_counter() - start:.0f} s", flush=True)
        with file.open("wb") as opened:
            pickle.dump(scenes._kept, opened, protocol=5)
    return scenes


def batch(scenes: SceneSynthesizer, number: int, size: int) -> tuple[Tensor, Tensor]:
    """Pictures (b, 3, h, w), padded, and the targets of their maps."""
    height, width = (round(size * part) for part in SHAPES[number % len(SHAPES)])
    drawn = [scenes.scene(number * BATCH + k, height, width) for k in range(BATCH)]
    pictures = padded(to_network(np.stack([one.image for one in drawn])))
    targets = []
    for one in drawn:
        clear = one.clear & (one.boxes[:, 2:].max(axis=1, initial=0.0) >= SMALLEST_PX)
        targets.append(encode(one.boxes, one.sides, clear, *pictures.shape[2:]))
    return torch.from_numpy(pictures), torch.from_numpy(np.stack(targets))


def mirrored(pictures: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """A batch as its mirror shows it: left hands are right ones."""
    pictures, targets = pictures.flip(3), targets.flip(3)
    targets[:, 3] *= -1
    targets[:, 7] = 1 - targets[:, 7]
    return pictures, targets


def answers(net: FinderNet, scenes: list[Scene], least: float) -> list[list[Found]]:
    """What the network finds in scenes of one size."""
    height, width = scenes[0].image.shape[:2]
    found = []
    with torch.inference_mode():
        for start in range(0, len(scenes), BATCH):
            pictures = padded(to_network(np.stack([one.image for one in scenes[start : start + BATCH]])))
            maps = net(torch.from_numpy(pictures)).numpy()
            found += [decode(one, Letterbox(1.0, height, width), least) for one in maps]
    return found


def measured(scenes: list[Scene], found: list[list[Found]], least: float) -> dict[str, float]:
    """Precision and recall at a least score, sides, and how well boxes fit (IoU ≥ 0.3 counts as found)."""
    hands = hits = false = sides = 0
    overlaps = []
    for scene, answer in zip(scenes, found, strict=True):
        free = set(range(len(scene.boxes)))
        hands += int(scene.clear.sum())
        for one in answer:
            if one.score < least:
                continue
            best = max(free, key=lambda k: iou(scene.boxes[k], np.array(one.box_px)), default=None)
            if best is None or iou(scene.boxes[best], np.array(one.box_px)) < 0.3:
                false += 1
                continue
            free.discard(best)
            if scene.clear[best]:
                hits += 1
                sides += one.side == scene.sides[best]
                overlaps.append(iou(scene.boxes[best], np.array(one.box_px)))
    return {
        "least": least,
        "hands": hands,
        "recall": hits / max(hands, 1),
        "precision": hits / max(hits + false, 1),
        "false_per_picture": false / len(scenes),
        "side_right": sides / max(hits, 1),
        "iou": float(np.mean(overlaps)) if overlaps else 0.0,
    }


def validate(net: FinderNet, scenes: SceneSynthesizer, most: int = VALIDATION) -> list[dict[str, float]]:
    """`measured` for several least scores on `most` validation scenes of every shape."""
    net.eval()
    drawn: list[Scene] = []
    found: list[list[Found]] = []
    for place, shape in enumerate(SHAPES):
        height, width = (round(SIZE * part) for part in shape)
        part = [scenes.scene(index, height, width) for index in range(place, most, len(SHAPES))]
        drawn, found = drawn + part, found + answers(net, part, 0.1)
    net.train()
    return [measured(drawn, found, least) for least in (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)]


def train(folder: Path, minutes: float, cards: int, begun: Path | None) -> None:
    """Learn for that long; the rate falls with the time that is left."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    scenes = synthesizer(folder, "train", cards)
    unseen = synthesizer(folder, "validation", VALIDATION)
    config = Config()
    net = (config.build() if begun is None else load(begun)).train().to(memory_format=torch.channels_last)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}], lr=RATE
    )
    start = saved = time.monotonic()
    log = (folder / "log.jsonl").open("w")
    sums, since, drawn = dict.fromkeys(WEIGHTS, 0.0), 0, 0
    waiting: deque[tuple[Tensor, Tensor]] = deque()
    for step in count(1):
        done = min((time.monotonic() - start) / (60 * minutes), 1.0)
        if step % 2 == 0 and len(waiting) > WAITING:
            pictures, targets = mirrored(*waiting.popleft())
        else:
            pictures, targets = batch(scenes, drawn, SMALL if done < SMALL_UNTIL else SIZE)
            waiting.append((pictures, targets))
            drawn += 1
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(step / 100, 0.5 + 0.5 * np.cos(np.pi * done))
        terms = loss(net(pictures.to(memory_format=torch.channels_last)), targets)
        optimizer.zero_grad()
        sum(WEIGHTS[name] * term for name, term in terms.items()).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        since += 1
        for name, term in terms.items():
            sums[name] += float(term.detach())
        if time.monotonic() - saved > 300 or done >= 1.0:
            row = {
                "step": step,
                "scenes": drawn * BATCH,
                "minutes": round((time.monotonic() - start) / 60, 2),
            }
            row |= {name: round(total / since, 4) for name, total in sums.items()}
            row["validation"] = validate(net, unseen, 180 if done < 1.0 else VALIDATION)
            print(json.dumps(row), flush=True)
            log.write(json.dumps(row) + "\n")
            log.flush()
            sums, since = dict.fromkeys(WEIGHTS, 0.0), 0
            save_weights(folder / "last.safetensors", net, "finder", config, meta={"metrics": row})
            saved = time.monotonic()
        if done >= 1.0:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--start", type=Path, metavar="FILE", help="weights to begin with")
    parser.add_argument("--cards", type=int, default=8000)
    parser.add_argument("--ship", metavar="WORDS", help="put the trained weights into the package instead")
    options = parser.parse_args()
    if options.ship is None:
        train(options.folder, options.minutes, options.cards, options.start)
        return
    file = options.folder / "last.safetensors"
    net, about = load(file), read_meta(file)
    meta = {"trained_on": options.ship, "metrics": about.get("metrics")}
    save_weights(shipped(), net, "finder", net.config, half=True, meta=meta)
    print(f"{shipped()}: {shipped().stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
