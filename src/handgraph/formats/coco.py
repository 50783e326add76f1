"""COCO keypoints: the annotation file, and the flat list of results that COCO evaluators take.

A hand is one annotation of the one category `hand`, whose `keypoints` name the 21 joints in order and whose
`skeleton` lists the bones, counted from 1 as COCO does. Each keypoint is u, v, visibility. What COCO has no
key for (side, joints_mm, camera, frame, …) stands beside under the names of `Hand`, so nothing is lost.

Visibility is 2 for every joint: a `Hand` has an estimate of all of them and does not know which are hidden.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from handgraph.errors import FormatError, InputError
from handgraph.formats.clip import ORDERS, Clip, ClipFrame, ClipHand, Conventions, hand_of
from handgraph.formats.converted import (
    check_stated,
    clip_from_predictions,
    conventions_from,
    frame_record,
    hand_from_record,
    hand_record,
    header_of,
    own_document,
    parse,
    read_text,
    size_of,
)
from handgraph.formats.document import from_document, to_document
from handgraph.formats.joint_names import order_of
from handgraph.formats.lines import number
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
        info = document.get("info") if isinstance(document, dict) else None
        if isinstance(info, dict) and "handgraph" in info:
            return from_document(own_document(_clip(document, info["handgraph"], Conventions())))
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


# Clips in any convention ------------------------------------------------------------------------------------


def write_clip_coco(path: str | Path, clip: Clip) -> None:
    """Write a clip as a COCO annotation file; the category names the joints of the clip's order.

    A joint that is not there has visibility 0. What COCO has no key for stands in `hand` and in the file's
    `handgraph`. Raises FormatError for hands without pixels, side or order, InputError.
    """
    order = clip.conventions.joints
    check_stated(clip)
    places = {meaning: index for index, meaning in enumerate(order.names)}
    bones = [
        [places[JOINT_NAMES[a]] + 1, places[JOINT_NAMES[b]] + 1]
        for a, b in BONES
        if JOINT_NAMES[a] in places and JOINT_NAMES[b] in places
    ]
    category = CATEGORY | {"keypoints": list(order.names), "skeleton": bones}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, frame in enumerate(clip.frames, start=1):
        about = frame_record(frame)
        del about["hands"]
        size = {} if frame.size_px is None else {"width": frame.size_px[0], "height": frame.size_px[1]}
        images.append(
            {"id": image_id, "file_name": frame.file or f"frame {frame.index}", **size, "frame": about}
        )
        for hand in frame.hands:
            record = hand_record(hand)
            rows = hand.need("points_px")
            there = ~np.isnan(rows).any(axis=1)
            keypoints = [
                number_
                for row, seen in zip(record.pop("points_px"), there, strict=True)
                for number_ in ((*row, VISIBLE) if seen else (0, 0, 0))
            ]
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": CATEGORY["id"]}
            annotation |= {"keypoints": keypoints, "num_keypoints": int(there.sum()), "iscrowd": 0}
            box = record.pop("box_px", None)
            if box is not None:
                annotation |= {"bbox": box, "area": box[2] * box[3]}
            if hand.score is not None:
                annotation["score"] = hand.score
            annotations.append(annotation | {"side": hand.side, "hand": record})
    info = {"description": "hands, converted by handgraph", "handgraph": header_of(clip)}
    write_text_json(
        path, {"info": info, "images": images, "annotations": annotations, "categories": [category]}
    )


def read_clip_coco(path: str | Path, said: Conventions) -> Clip:
    """Read COCO annotations of hands: ours, or of others whose category names its joints in a known order.

    `said.order` is the order where names are of another kind. Raises InputError, FormatError.
    """
    document = parse(read_text(path), path)
    with place(str(path)):
        info = document.get("info") if isinstance(document, dict) else None
        if isinstance(info, dict) and "units" in info:
            return clip_from_predictions(to_document(_predictions(document)))
        header = info.get("handgraph") if isinstance(info, dict) else None
        return _clip(document, header, said)


def _clip(document: Any, header: Any, said: Conventions) -> Clip:
    orders: dict[int, str] = {}
    names: dict[int, str] = {}
    for index, category in enumerate(need(document, "categories", list)):
        with place(f"category {index}"):
            joints = category.get("keypoints") if isinstance(category, dict) else None
            if not joints:
                continue
            found = order_of([str(name) for name in joints]) or said.order
            if found is None or len(ORDERS[found].names) != len(joints):
                raise FormatError(
                    f"order is missing: {len(joints)} keypoints from {str(joints[0])[:30]!r} on are in no "
                    "order known here, name it with --order"
                )
            orders[need(category, "id", int)] = found
            names[category["id"]] = str(category.get("name", ""))
    if len(set(orders.values())) != 1:
        raise FormatError(f"{len(set(orders.values()))} joint orders among the categories, expected one")
    says = Conventions(order=next(iter(orders.values())))
    if header is not None:
        says = conventions_from(need(header, "conventions", dict))
    frames: dict[int, ClipFrame] = {}
    for index, image in enumerate(need(document, "images", list)):
        with place(f"image {index}"):
            about = image.get("frame") if isinstance(image, dict) else None
            about = about if isinstance(about, dict) else {}
            size = [image["width"], image["height"]] if "width" in image and "height" in image else None
            time_s = about.get("time_s")
            frames[need(image, "id", int)] = ClipFrame(
                about["index"] if type(about.get("index")) is int else index,
                (),
                None if about and "file" not in about else need(image, "file_name", str),
                None if time_s is None else number(about, "time_s"),
                size_of(size),
                need(about, "error", str) if "error" in about else None,
            )
    for index, annotation in enumerate(need(document, "annotations", list)):
        with place(f"annotation {index}"):
            if need(annotation, "category_id", int) not in orders:
                continue
            image_id = need(annotation, "image_id", int)
            if image_id not in frames:
                raise FormatError(f"image_id {image_id} is none of the file's images")
            hand = _clip_hand(annotation, names[annotation["category_id"]], said)
            frames[image_id] = replace(frames[image_id], hands=(*frames[image_id].hands, hand))
    if header is None:
        return Clip(says.stated(replace(said, order=None)), tuple(frames.values()))
    return Clip(
        says.stated(said),
        tuple(frames.values()),
        need(header, "model", str),
        None if header.get("fps") is None else number(header, "fps"),
        need(header, "about", dict) if header.get("about") else {},
    )


def _clip_hand(annotation: dict[str, Any], category: str, said: Conventions) -> ClipHand:
    keypoints = need(annotation, "keypoints", list)
    try:
        rows = np.array(keypoints, dtype=np.float64).reshape(-1, 3)
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"'keypoints' is not a list of three numbers a joint ({error})") from error
    if not np.isfinite(rows).all():
        raise FormatError("'keypoints' holds a number that is not finite")
    record = annotation.get("hand")
    hand = hand_from_record(record) if isinstance(record, dict) else ClipHand()
    sides = [side for side in ("left", "right") if side in category.lower()]
    side: Any = annotation.get("side") or hand.side or (sides[0] if len(sides) == 1 else None)
    stated = {field.name: getattr(hand, field.name) for field in fields(hand)}
    return hand_of(
        stated
        | {
            "points_px": np.where(rows[:, 2:] > 0, rows[:, :2], np.nan),
            "side": side,
            "score": annotation.get("score"),
            "box_px": annotation.get("bbox"),
        }
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
