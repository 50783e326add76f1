"""handgraph's own JSON document: what `handgraph predict --json` prints."""

from pathlib import Path
from typing import Any

from handgraph.errors import FormatError
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

VERSION = 1


def to_document(predictions: Predictions) -> dict[str, Any]:
    """Plain Python for JSON: `{model, images: [{file, hands: [Hand]}]}` and what the numbers mean.

    Each hand is `Hand.to_dict()`, which names its side, camera, frame and order. `size_px` and `error` stand
    beside `hands` where they are known.
    """
    images = []
    for image in predictions.images:
        record: dict[str, Any] = {"file": image.file, "hands": [hand.to_dict() for hand in image.hands]}
        if image.size_px is not None:
            record["size_px"] = list(image.size_px)
        if image.error is not None:
            record["error"] = image.error
        images.append(record)
    return document_of(predictions.model, images)


def document_of(model: str, images: list[dict[str, Any]]) -> dict[str, Any]:
    """The document of these images' records, with what its numbers mean."""
    return {
        "version": VERSION,
        "model": model,
        "units": UNITS,
        "order": ORDER,
        "root": ROOT,
        "images": images,
    }


def from_document(document: Any) -> Predictions:
    """The inverse of `to_document`. Raises FormatError naming image, hand and key."""
    model = need(document, "model", str)
    if document.get("version", VERSION) != VERSION:
        raise FormatError(f"version {document['version']} of the document, this handgraph reads {VERSION}")
    for key, expected in (("units", UNITS), ("order", ORDER), ("root", ROOT)):
        if document.get(key, expected) != expected:
            raise FormatError(f"{key!r} is {document[key]!r}, this handgraph reads {expected!r}")
    images = []
    for index, record in enumerate(need(document, "images", list)):
        with place(f"image {index}"):
            images.append(_image(record))
    return Predictions(model, tuple(images))


def _image(record: Any) -> ImageHands:
    file = need(record, "file", str)
    hands = []
    for index, hand in enumerate(need(record, "hands", list)):
        with place(f"hand {index}"):
            hands.append(Hand.from_dict(hand))
    size = need(record, "size_px", list) if "size_px" in record else None
    if size is not None and not (len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise FormatError(f"'size_px' is {size}, expected [width, height] in whole pixels")
    return ImageHands(
        file,
        tuple(hands),
        size_px=None if size is None else (size[0], size[1]),
        error=need(record, "error", str) if "error" in record else None,
    )


def write_json(path: str | Path, predictions: Predictions) -> None:
    """Write the document to a file, whole or not at all. Raises InputError where it cannot be written."""
    write_text_json(path, to_document(predictions))


def read_json(path: str | Path) -> Predictions:
    """Read a document written by `write_json` or `handgraph predict --json`.

    Raises InputError where the file cannot be read, FormatError naming file, image, hand and key.
    """
    document = read_text_json(path)
    with place(str(path)):
        return from_document(document)
