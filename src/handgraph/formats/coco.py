"""COCO keypoints: the annotation file, and the flat list of results that COCO evaluators take.

A hand is one annotation of the one category `hand`, whose `keypoints` name the 21 joints in order and whose
`skeleton` lists the bones, counted from 1 as COCO does. Each keypoint is u, v, visibility. What COCO has no
key for (side, joints_mm, camera, frame, …) stands beside under the names of `Hand`, so nothing is lost.

Visibility is 2 for every joint: a `Hand` has an estimate of all of them and does not know which are hidden.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handgraph.errors import FormatError, InputError
from handgraph.formats.predictions import (
    ROOT,
    UNITS,
    ImageHands,
    Predictions,
    need,
    place,
    read_text_json,
    write_text_json,
)
from handgraph.hand import ORDER, Hand
from handgraph.skeleton import BONES, JOINT_NAMES

CATEGORY = {
    "id": 1,
    "name": "hand",
    "supercategory": "person",
    "keypoints": list(JOINT_NAMES),
    "skeleton": [[parent + 1, child + 1] for parent, child in BONES],
}
VISIBLE = 2


def write_coco(path: str | Path, predictions: Predictions) -> None:
    """Write a COCO annotation file, whole or not at all. Raises InputError where it cannot be written."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(predictions.images, start=1):
        record: dict[str, Any] = {"id": image_id, "file_name": image.file}
        if image.size_px is not None:
            record["width"], record["height"] = image.size_px
        if image.error is not None:
            record["error"] = image.error
        images.append(record)
        for hand in image.hands:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **_annotation(hand)})
    info = {
        "description": "hands found by handgraph",
        "model": predictions.model,
        "units": UNITS,
        "order": ORDER,
        "root": ROOT,
        "visibility": f"{VISIBLE} for every joint: all are estimated, none is marked as hidden",
    }
    write_text_json(
        path, {"info": info, "images": images, "annotations": annotations, "categories": [CATEGORY]}
    )


def write_coco_results(path: str | Path, predictions: Predictions, image_ids: Mapping[str, int]) -> None:
    """Write the flat list of detections that COCO's evaluation loads beside a truth file.

    `image_ids` gives the truth file's id of every image file. Raises InputError for an image without an id.
    """
    results = []
    for image in predictions.images:
        if image.file not in image_ids:
            raise InputError(f"{path}: {image.file} has no image id, give one for every image")
        results += [{"image_id": image_ids[image.file], **_annotation(hand)} for hand in image.hands]
    write_text_json(path, results)


def _annotation(hand: Hand) -> dict[str, Any]:
    record = hand.to_dict()
    keypoints, box = record.pop("keypoints_px"), record.pop("box_px")
    return {
        "category_id": CATEGORY["id"],
        "keypoints": [number for u, v in keypoints for number in (u, v, VISIBLE)],
        "num_keypoints": len(keypoints),
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
        **record,
    }


def read_coco(path: str | Path) -> Predictions:
    """Read a COCO annotation file of 21-joint hands that states side, frame and order of each.

    An annotation without a score (a truth file) gets score 1. Raises InputError where the file cannot be
    read, FormatError where the joints are named otherwise, one is not labelled, or a key is missing or wrong.
    """
    document = read_text_json(path)
    with place(str(path)):
        return _predictions(document)


def _predictions(document: Any) -> Predictions:
    categories = set()
    for index, category in enumerate(need(document, "categories", list)):
        with place(f"category {index}"):
            _check_joints(need(category, "keypoints", list))
            categories.add(need(category, "id", int))
    images = {}
    for index, image in enumerate(need(document, "images", list)):
        with place(f"image {index}"):
            image_id = need(image, "id", int)
            sized = "width" in image and "height" in image
            images[image_id] = ImageHands(
                need(image, "file_name", str),
                size_px=(need(image, "width", int), need(image, "height", int)) if sized else None,
                error=need(image, "error", str) if "error" in image else None,
            )
    info = need(document, "info", dict) if "info" in document else {}
    if info.get("units", UNITS) != UNITS:
        raise FormatError(f"'units' is {info['units']!r}, this handgraph reads {UNITS!r}")
    hands: dict[int, list[Hand]] = {image_id: [] for image_id in images}
    for index, annotation in enumerate(need(document, "annotations", list)):
        with place(f"annotation {index}"):
            if need(annotation, "category_id", int) not in categories:
                raise FormatError(f"category_id {annotation['category_id']} is none of the file's categories")
            if need(annotation, "image_id", int) not in hands:
                raise FormatError(f"image_id {annotation['image_id']} is none of the file's images")
            hands[annotation["image_id"]].append(_hand(annotation))
    return Predictions(
        need(info, "model", str) if "model" in info else "unknown",
        tuple(
            ImageHands(image.file, tuple(hands[image_id]), image.size_px, image.error)
            for image_id, image in images.items()
        ),
    )


def _check_joints(names: list[Any]) -> None:
    if len(names) != len(JOINT_NAMES):
        raise FormatError(f"{len(names)} keypoints are named, expected {len(JOINT_NAMES)}")
    for index, (found, expected) in enumerate(zip(names, JOINT_NAMES, strict=True)):
        if found != expected:
            raise FormatError(
                f"keypoint {index} is {found!r}, expected {expected!r}: bring the joints into canonical order"
            )


def _hand(annotation: dict[str, Any]) -> Hand:
    keypoints = need(annotation, "keypoints", list)
    if len(keypoints) != 3 * len(JOINT_NAMES):
        raise FormatError(f"{len(keypoints)} numbers in 'keypoints', expected {3 * len(JOINT_NAMES)}")
    hidden = [name for name, seen in zip(JOINT_NAMES, keypoints[2::3], strict=True) if not seen]
    if hidden:
        raise FormatError(f"{hidden[0]} is not labelled (visibility 0), a hand needs all its joints")
    return Hand.from_dict(
        {
            "score": 1.0,
            "joint_names": JOINT_NAMES,
            **annotation,
            "keypoints_px": list(zip(keypoints[0::3], keypoints[1::3], strict=True)),
            "box_px": need(annotation, "bbox", list),
        }
    )
