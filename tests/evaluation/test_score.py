import json
import lzma
import os
from pathlib import Path

import numpy as np
import pytest

from handgraph.camera import PinholeCamera
from handgraph.errors import ConfigError, FormatError, InputError
from handgraph.evaluation.score import read_predictions, score

REAL = Path(os.environ.get("HANDGRAPH_REAL", "nowhere"))
QUICK = {"CVPR18_NYU_denseReg_ori.txt.xz", "CVPR18_ICVL_HandPointNet_ori.mat", "CVWW15_ICVL_Prior.txt.xz"}
FORMATS = {"uvd": "uvd", "xyz_ydown": "xyz", "xyz_yup": "xyz"}


def published():
    for dataset in ("nyu", "icvl"):
        listing = REAL / f"depth_{dataset}_predictions" / "expected.json"
        for entry in json.loads(listing.read_text()) if listing.is_file() else ():
            quick = Path(entry["file"]).name in QUICK
            yield pytest.param(dataset, entry, id=entry["file"], marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("dataset", "entry"), list(published()))
def test_published_file(dataset, entry):
    """Mean, median, joints and success curve of each file, and the mean that was printed."""
    folder = REAL / f"depth_{dataset}_predictions"
    truth = folder / f"{dataset}_test_groundtruth_label.txt"
    found = score(folder / entry["file"], truth, dataset, FORMATS[entry["space"]])
    assert found["n"] == entry["frames"]
    assert found["mean_mm"] == pytest.approx(entry["recomputed_mean_mm"], abs=2e-3)
    assert found["median_mm"] == pytest.approx(entry["median_mm"], abs=2e-3)
    np.testing.assert_allclose(found["per_joint_mm"], entry["per_joint_mean_mm"], atol=2e-3)
    curve = dict(zip(entry["thresholds_mm"], entry["success_max_frame_pct"], strict=True))
    for threshold, share in found["success"].items():
        assert 100 * share == pytest.approx(curve[int(threshold)], abs=0.07)  # one frame of 1596
    if entry["published_mm"] is not None:
        # DenseReg's ICVL paper prints 7.30 where its own released file gives 7.24.
        explained = 0.07 if "ICVL_denseReg" in entry["file"] else 0.02
        assert found["mean_mm"] == pytest.approx(entry["published_mm"], abs=explained)
    assert found["part"] == ("test_seq_1" if entry["frames"] == 702 else None)


CAMERA = PinholeCamera(588.03, 587.07, 320.0, 240.0)


@pytest.fixture
def labels(tmp_path):
    """Labels of five frames, and predictions 6 mm to the right and 8 mm below."""
    random = np.random.default_rng(0)
    uvd = random.uniform([200, 150, 700], [400, 330, 800], (5, 14, 3))
    path = tmp_path / "truth.txt"
    np.savetxt(path, uvd.reshape(5, -1), fmt="%.6f")
    return path, uvd, CAMERA.xyz_from_uvd(uvd) + np.array([6.0, 8.0, 0.0])


def save(path, values, names=None):
    rows = [" ".join(f"{value:.6f}" for value in row) for row in values.reshape(len(values), -1)]
    if names is not None:
        rows = [f"{name}\t{row}" for name, row in zip(names, rows, strict=True)]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_every_form_of_the_same_predictions_has_the_same_error(labels, tmp_path):
    from scipy.io import savemat

    truth, _, xyz = labels
    up = xyz * [1, -1, 1]
    uvd_file = save(tmp_path / "a.txt", CAMERA.uvd_from_xyz(xyz))
    packed = tmp_path / "a.txt.xz"
    packed.write_bytes(lzma.compress(uvd_file.read_bytes()))
    savemat(tmp_path / "a.mat", {"joint_est_wld_xyz": xyz})
    named = save(tmp_path / "b.txt", xyz, [f"depth_1_{n:07d}.png" for n in range(1, 6)])
    for path, format, axes in (
        (uvd_file, "uvd", "y down"),
        (packed, "uvd", "y down"),
        (tmp_path / "a.mat", "xyz", "y down"),
        (named, "xyz", "y down"),
        (save(tmp_path / "c.txt", up), "xyz", "y up"),
        (save(tmp_path / "d.txt", up * [1, 1, -1]), "xyz", "y up"),
    ):
        found = score(path, truth, "nyu", format)
        assert found["mean_mm"] == pytest.approx(10, abs=1e-3)
        np.testing.assert_allclose(found["per_joint_mm"], 10, atol=1e-3)
        assert (found["success"]["5"], found["success"]["15"], found["n"]) == (0, 1, 5)
        assert found["axes"] == axes


def test_all_36_points_of_nyu_are_cut_to_the_14(labels, tmp_path):
    from handgraph.skeleton import NYU14_OF_36

    truth, uvd, _ = labels
    every = np.full((5, 36, 3), 500.0)
    every[:, list(NYU14_OF_36)] = uvd
    assert score(save(tmp_path / "a.txt", every), truth, "nyu")["mean_mm"] == pytest.approx(0, abs=1e-3)


def test_pixels_counted_upwards_are_refused(labels, tmp_path):
    truth, uvd, _ = labels
    path = save(tmp_path / "a.txt", uvd * [1, -1, 1] + np.array([0, 480, 0]))
    with pytest.raises(InputError, match=r"a\.txt: .* mm off as uvd, 0\.0 mm with y turned over"):
        score(path, truth, "nyu")


def test_a_bad_method_is_not_turned_over_to_look_better(labels, tmp_path):
    truth, _, xyz = labels
    wild = xyz + np.random.default_rng(1).normal(0, 150, xyz.shape)
    found = score(save(tmp_path / "a.txt", wild), truth, "nyu", "xyz")
    assert found["axes"] == "y down"
    assert found["mean_mm"] > 100


def test_files_that_do_not_fit(labels, tmp_path):
    truth, _, xyz = labels
    uvd = CAMERA.uvd_from_xyz(xyz)
    with pytest.raises(InputError, match=r"4 frames, but .*truth\.txt labels 5"):
        score(save(tmp_path / "a.txt", uvd[:4]), truth, "nyu")
    with pytest.raises(FormatError, match="13 joints a frame, expected 14"):
        score(save(tmp_path / "a.txt", uvd[:, :13]), truth, "nyu")
    with pytest.raises(FormatError, match="14 joints a frame, expected 16"):
        score(truth, truth, "icvl")
    mixed = save(tmp_path / "b.txt", xyz, [f"depth_1_{n:07d}.png" for n in (1, 2, 4, 3, 5)])
    with pytest.raises(InputError, match=r"line 3 is depth_1_0000004\.png, after depth_1_0000002\.png"):
        score(mixed, truth, "nyu", "xyz")
    with pytest.raises(ConfigError, match="no published protocol for dataset 'stb'"):
        score(truth, truth, "stb")
    with pytest.raises(InputError, match=r"nothing\.txt: no such file"):
        score(tmp_path / "nothing.txt", truth, "nyu")


def test_damaged_files(labels, tmp_path):
    truth, uvd, _ = labels
    text = truth.read_text()
    path = tmp_path / "a.txt"
    for content, message in (
        ("", "the file is empty"),
        ("\n \n", "no line of predictions"),
        ("1 2 3 4\n", "line 1 holds 4 values, expected three a joint"),
        (text.replace(".", "x", 1), "line 1 begins with|expected"),
        (text.rsplit(" ", 3)[0] + "\n", "line 5 holds 39 values, expected 42"),
        (text[:60] + "nan" + text[70:], "line 1"),
        ("hello world\n", "line 1 begins with 'hello', expected a number or an image"),
    ):
        path.write_text(content)
        with pytest.raises(FormatError, match=message) as caught:
            read_predictions(path, 14)
        assert "\n" not in str(caught.value)
    packed = tmp_path / "a.txt.xz"
    whole = lzma.compress(text.encode())
    for content in (whole[:-20], whole[:10], b"no xz at all", whole[:40] + b"\0\0\0" + whole[43:]):
        packed.write_bytes(content)
        with pytest.raises(FormatError, match="xz file"):
            read_predictions(packed, 14)
    mat = tmp_path / "a.mat"
    mat.write_bytes(b"no mat")
    with pytest.raises(FormatError, match="not a readable MATLAB file"):
        read_predictions(mat, 14)
    from scipy.io import savemat

    savemat(mat, {"a": uvd, "b": uvd})
    with pytest.raises(FormatError, match=r"2 arrays of shape \(frames, joints, 3\), expected exactly one"):
        read_predictions(mat, 14)
