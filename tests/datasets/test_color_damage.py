"""Damaged copies of the colour datasets: each is refused in one line, or what came through is still true.

Flipped bits and cut files, of every kind of file that a reader opens. Pickles, JSON, text and JPEG carry no
checksums: what is allowed through there must still be a hand that projects where the labels say.
"""

from pathlib import Path

import numpy as np
import pytest
from damage import outcomes

from handgraph.datasets import Sample, open_dataset
from handgraph.datasets.files import projection_residual
from handgraph.datasets.layouts import WRITERS
from handgraph.skeleton import BONES

TOP = {"mhp": "multiview_hand_pose_dataset_uploaded_v2", "humbi": "Hand_1_80_updat/subject_1/hand"}
FRAME = "00000001"
# name: options of layout and reader, and the files to damage with how often of a hundred they must be refused
CASES = {
    "rhd": (
        {"samples": 2, "parts": ("evaluation",)},
        {"split": "test", "depth": True},
        {
            "RHD_published_v2/evaluation/anno_evaluation.pickle": 60,
            "RHD_published_v2/evaluation/color/00000.png": 100,
            "RHD_published_v2/evaluation/mask/00000.png": 100,
            "RHD_published_v2/evaluation/depth/00000.png": 100,
        },
    ),
    "stb": (
        {},
        {"split": "test"},
        {"labels/B1Counting_SK.mat": 80, "images/B1Counting/SK_color_0.png": 100},
    ),
    "freihand": (
        {},
        {"split": "test", "vertices": True},
        {
            "FreiHAND_pub_v2/evaluation_xyz.json": 60,
            "FreiHAND_pub_v2/evaluation_K.json": 60,
            "FreiHAND_pub_v2/evaluation_mano.json": 60,
            "FreiHAND_pub_v2/evaluation_verts.json": 50,
            "FreiHAND_pub_v2/evaluation/rgb/00000000.jpg": 50,
        },
    ),
    "dexycb": (
        {"subjects": (6,)},
        {"split": "s1_val", "depth": True, "sequences": 1},
        {
            "20200928-subject-07/20200928_141500/836212060125/labels_000001.npz": 50,
            "20200928-subject-07/20200928_141500/836212060125/color_000001.jpg": 50,
            "20200928-subject-07/20200928_141500/836212060125/aligned_depth_to_color_000001.png": 100,
            "20200928-subject-07/20200928_141500/pose.npz": 50,
            "20200928-subject-07/20200928_141500/meta.yml": 30,
            "calibration/intrinsics/836212060125_640x480.yml": 30,
        },
    ),
    "mhp": (
        {"frames": (0,)},
        {"split": "test", "protocol": "recordings"},
        {
            f"{TOP['mhp']}/annotated_frames/data_1/0_joints.txt": 45,
            f"{TOP['mhp']}/annotated_frames/data_1/0_webcam_1.jpg": 50,
            f"{TOP['mhp']}/calibrations/data_1/webcam_1/rvec.pkl": 50,
            f"{TOP['mhp']}/calibrations/data_1/webcam_1/tvec.pkl": 50,
        },
    ),
    "humbi": (
        {"subjects": (1,)},
        {"split": "all", "subjects": None, "vertices": True},
        {
            f"{TOP['humbi']}/{FRAME}/image_cropped/right/image0000004.png": 100,
            f"{TOP['humbi']}/{FRAME}/image_cropped/right/list.txt": 20,
            f"{TOP['humbi']}/{FRAME}/reconstruction/keypoints_r.txt": 50,
            f"{TOP['humbi']}/{FRAME}/reconstruction/mano_params_r.txt": 50,
            f"{TOP['humbi']}/{FRAME}/reconstruction/vertices_r.txt": 50,
            f"{TOP['humbi']}/intrinsic.txt": 50,
            f"{TOP['humbi']}/extrinsic.txt": 50,
            f"{TOP['humbi']}/project.txt": 50,
        },
    ),
}


def believable(sample: Sample) -> None:
    """A hand before the camera, no bone longer than a hand's, whose 2D and 3D labels agree."""
    assert sample.image is not None
    assert sample.image.dtype == np.uint8
    assert np.isfinite(sample.keypoints_px).all()
    assert np.isfinite(sample.joints_mm).all()
    assert sample.joints_mm[:, 2].min() > 0
    hand = sample.order.to_canonical(sample.joints_mm)
    bones = [np.linalg.norm(hand[child] - hand[parent]) for parent, child in BONES]
    assert max(bones) < 260
    if sample.camera is not None:
        assert projection_residual(sample.camera, sample.joints_mm, sample.keypoints_px) < 1.01


def reader(name: str, root: Path, options: dict):
    """Open the split and read its first frame and last."""

    def read() -> None:
        data = open_dataset(name, root, **options)
        for index in {0, len(data) - 1}:
            believable(data[index])

    return read


@pytest.mark.parametrize("times", [4, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_damaged_files_are_refused_or_do_no_harm(name, times, tmp_path):
    layout, options, files = CASES[name]
    WRITERS[name](tmp_path, **layout)
    read = reader(name, tmp_path, options)
    read()
    for seed, (file, least) in enumerate(files.items()):
        path = tmp_path / file
        each = times if times < 10 else 2 * -(-times // len(files) // 2)
        results = outcomes(path, read, each, seed)
        refused = sum(refused for _, refused in results)
        if times > 10:
            print(f"{file}: {refused} of {each} refused")
            assert 100 * refused >= least * each, f"{file}: only {refused} of {each}"
        elif least == 100:
            assert refused == each
