"""Synthetic hands: subjects, poses, scenes, depth and colour images from a seed."""

from handgraph.synthetic.dataset import write_dataset
from handgraph.synthetic.depth import DepthFrame, DepthSample, DepthSynthesizer
from handgraph.synthetic.rgb import RgbFrame, RgbHand, RgbSample, RgbSynthesizer

__all__ = [
    "DepthFrame",
    "DepthSample",
    "DepthSynthesizer",
    "RgbFrame",
    "RgbHand",
    "RgbSample",
    "RgbSynthesizer",
    "write_dataset",
]
