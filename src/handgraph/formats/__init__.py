"""Predictions in files: handgraph's own JSON document, COCO keypoints, Parquet; clips as JSON Lines.

The first three hold the same `Predictions` and give them back; each file states units, frame, joint order,
root, side and camera itself. Readers raise FormatError, in one line, for anything else. Files in other
conventions, and of other makers, are the business of `handgraph.convert`.
"""

from handgraph.formats.coco import read_coco, write_coco, write_coco_results
from handgraph.formats.document import from_document, read_json, to_document, write_json
from handgraph.formats.lines import ClipHeader, FrameHands, LinesWriter, read_lines
from handgraph.formats.parquet import read_parquet, write_parquet
from handgraph.formats.predictions import ImageHands, Predictions

__all__ = [
    "ClipHeader",
    "FrameHands",
    "ImageHands",
    "LinesWriter",
    "Predictions",
    "from_document",
    "read_coco",
    "read_json",
    "read_lines",
    "read_parquet",
    "to_document",
    "write_coco",
    "write_coco_results",
    "write_json",
    "write_parquet",
]
