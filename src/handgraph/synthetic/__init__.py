"""Synthetic hands: subjects, poses, scenes and depth images from a seed."""

from handgraph.synthetic.depth import DepthFrame, DepthSample, DepthSynthesizer

__all__ = ["DepthFrame", "DepthSample", "DepthSynthesizer"]
