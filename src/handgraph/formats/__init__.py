"""Predictions in files: handgraph's own JSON document, COCO keypoints, Parquet.

All three hold the same `Predictions` and give them back; each states units, frame, joint order, root, side
and camera in the file itself. Readers raise FormatError, in one line, for anything else.
"""

from handgraph.formats.coco import read_coco, write_coco, write_coco_results
from handgraph.formats.document import from_document, read_json, to_document, write_json
from handgraph.formats.parquet import read_parquet, write_parquet
from handgraph.formats.predictions import ImageHands, Predictions

__all__ = [
    "ImageHands",
    "Predictions",
    "from_document",
    "read_coco",
    "read_json",
    "read_parquet",
    "to_document",
    "write_coco",
    "write_coco_results",
    "write_json",
    "write_parquet",
]
