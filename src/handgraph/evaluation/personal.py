"""What the identity-aware mesh's tables measure: people's hands, given, regressed or calibrated.

Kong, dissertation, section 6.4. Errors of images are about the wrist, mm; errors of a person's hand are those
of the shape, of index to ring knuckle (width) and of wrist to middle fingertip (length) at the flat pose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped

from handgraph.errors import InputError
from handgraph.hand_model import HandLayer
from handgraph.hand_model.calibration import calibrate, distances_mm
from handgraph.hand_model.fitting import axis_angles_of
from handgraph.systems import identity_mesh

LENGTH, WIDTH = (0, 12), (5, 13)
PERSON_METRICS = ("beta_mse", "w_error_mm", "l_error_mm", "length_spread_mm")


@dataclass(frozen=True)
class Said:
    """What a network that regresses shapes says of every image, and the truth."""

    subjects: Shaped[np.ndarray, " b"]
    shapes: Float[np.ndarray, "b 10"]
    poses: Float[np.ndarray, "b 48"]
    confidence: Float[np.ndarray, " b"]
    true_shapes: Float[np.ndarray, "b 10"]

    def people(self) -> dict[Any, np.ndarray]:
        """The images of each person, as indices."""
        return {one: np.flatnonzero(self.subjects == one) for one in np.unique(self.subjects)}


@torch.inference_mode()
def ask(module: Any, batches: Iterable[Mapping[str, Any]], subjects: Shaped[np.ndarray, " b"]) -> Said:
    """The baseline's shapes, poses and confidences. Raises InputError for a network that regresses none."""
    rows: dict[str, list[np.ndarray]] = {"shapes": [], "poses": [], "confidence": [], "true": []}
    for batch in batches:
        output = module(*identity_mesh.inputs(batch))
        if output.regressed is None:
            raise InputError("this network regresses no shapes: train it with shape 'regressed'")
        rows["shapes"].append(output.regressed.double().numpy())
        rows["poses"].append(axis_angles_of(output.rotations.double().numpy()).reshape(-1, 48))
        rows["confidence"].append(output.confidence.double().numpy())
        rows["true"].append(batch["shape"].double().numpy())
    joined = {name: np.concatenate(values) for name, values in rows.items()}
    return Said(subjects, joined["shapes"], joined["poses"], joined["confidence"], joined["true"])


def calibrated(said: Said, k: int, *, attention: bool = True) -> dict[Any, Float[np.ndarray, " 10"]]:
    """Each person's shape from their first `k` images (Eq. 6.7). Raises InputError where one has fewer."""
    shapes = {}
    for person, images in said.people().items():
        if len(images) < k:
            raise InputError(f"person {person}: {len(images)} images, {k} are to be calibrated from")
        first = images[:k]
        confidence = said.confidence[first] if attention else None
        shapes[person] = calibrate(_layer(), said.shapes[first], said.poses[first], confidence).shape
    return shapes


def person_errors(
    said: Said, metric: str, shapes: Mapping[Any, Float[np.ndarray, " 10"]]
) -> Float[np.ndarray, " p"]:
    """One figure for each person: how far their calibrated hand is from their own."""
    errors = []
    for person, images in said.people().items():
        true = said.true_shapes[images[0]]
        if metric == "beta_mse":
            errors.append(np.square(shapes[person] - true).mean())
        else:
            pair = [LENGTH if metric == "l_error_mm" else WIDTH]
            off = distances_mm(_layer(), shapes[person], pair)[0] - distances_mm(_layer(), true, pair)[0]
            errors.append(abs(off[0]))
    return np.array(errors)


def length_spread(said: Said) -> Float[np.ndarray, " p"]:
    """Largest less smallest length of each person's hand over their images, by what was regressed, mm."""
    spread = []
    for images in said.people().values():
        lengths = [distances_mm(_layer(), said.shapes[image], [LENGTH])[0][0] for image in images]
        spread.append(max(lengths) - min(lengths))
    return np.array(spread)


@torch.inference_mode()
def length_spread_of_subjects(
    module: Any,
    batches: Iterable[Mapping[str, Any]],
    said: Said,
    shapes: Mapping[Any, Float[np.ndarray, " 10"]],
) -> Float[np.ndarray, " p"]:
    """The same of a network that was told whose hand it is, by the shapes of its own answers."""
    answered = []
    for batch, subjects in _with_subjects(batches, said.subjects):
        answers = np.empty((len(subjects), 10))
        for person in np.unique(subjects):
            module.set_subject(shapes[person])
            mine = torch.from_numpy(subjects == person)
            answers[mine.numpy()] = module(batch["image"][mine], batch["shape"][mine]).shape.double().numpy()
        answered.append(answers)
    module.set_subject(None)
    return length_spread(replace(said, shapes=np.concatenate(answered)))


@torch.inference_mode()
def image_errors(
    module: Any,
    batches: Iterable[Mapping[str, Any]],
    *,
    optimise: bool,
    subjects: Shaped[np.ndarray, " b"] | None = None,
    shapes: Mapping[Any, Float[np.ndarray, " 10"]] | None = None,
) -> dict[str, Float[np.ndarray, " b"]]:
    """`mpjpe_mm` and `mpvpe_mm` of every image. `shapes`, by person, are given instead of the true ones."""
    errors: dict[str, list[np.ndarray]] = {"mpjpe_mm": [], "mpvpe_mm": []}
    for batch, people in _with_subjects(batches, subjects):
        image, shape = identity_mesh.inputs(batch)
        if shapes is not None:
            shape = torch.from_numpy(np.stack([shapes[person] for person in people])).float()
        solved = identity_mesh.solve(module(image, shape), batch["crops"], optimise=optimise)
        hand = _layer()(batch["shape"].float(), batch["pose"].float())
        mesh = (hand.vertices_mm - hand.joints_mm[:, :1]).double().numpy()
        joints = batch["relative_mm"].double().numpy()
        errors["mpjpe_mm"].append(np.linalg.norm(solved.joints_mm - joints, axis=-1).mean(axis=1))
        errors["mpvpe_mm"].append(np.linalg.norm(solved.vertices_mm - mesh, axis=-1).mean(axis=1))
    return {name: np.concatenate(values) for name, values in errors.items()}


def _with_subjects(
    batches: Iterable[Mapping[str, Any]], subjects: Shaped[np.ndarray, " b"] | None
) -> Iterable[tuple[Mapping[str, Any], Any]]:
    start = 0
    for batch in batches:
        count = len(batch["image"])
        yield batch, None if subjects is None else subjects[start : start + count]
        start += count


@lru_cache(maxsize=1)
def _layer() -> HandLayer:
    return HandLayer()
