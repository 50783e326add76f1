"""The mesh of the demonstration lies on the joints it was given, in glTF's frame."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import handgraph as hg
from handgraph.hand_model import HandLayer, load_open_hand

pytest.importorskip("trimesh")


@pytest.fixture(scope="module")
def demo():
    file = Path(__file__).parents[1] / "tools" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("side", ["right", "left"])
def test_mesh_fits_the_joints(demo, side):
    layer = HandLayer(load_open_hand(), side=side)
    pose = torch.zeros(1, 48)
    pose[0, :3] = torch.tensor([0.4, 1.2, -0.8])
    pose.view(1, 16, 3)[:, 1:13, 2] = 0.6 if side == "right" else -0.6  # fingers half closed
    truth = layer(torch.full((1, 10), 0.5), pose, torch.tensor([[20.0, -30.0, 600.0]]))
    joints_mm = truth.joints_mm[0].numpy()
    mesh = demo.mesh_of(hg.Hand(side, 1.0, np.zeros((21, 2)), np.zeros(4), joints_mm=joints_mm))
    assert mesh.volume > 0  # faces look outwards for both sides
    vertices_mm = mesh.vertices * np.array([1000, -1000, -1000])  # metres, y up, z backwards → ours
    error = np.linalg.norm(vertices_mm - truth.vertices_mm[0].numpy(), axis=1)
    assert error.mean() < 3
