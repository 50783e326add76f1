"""The command line: one JSON document, one-line errors, exit codes, whole files or none."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from handgraph import cli, estimator, predicting
from handgraph.errors import FormatError, InputError
from handgraph.estimator import weights_path
from handgraph.formats import read_json
from handgraph.images import NYU_CAMERA, read_image
from handgraph.skeleton import JOINT_NAMES
from handgraph.systems import jgr_p2o
from handgraph.training.checkpoint import save_weights

HAND_KEYS = {
    "side", "score", "joint_names", "keypoints_px", "joints_mm", "vertices_mm", "pose", "shape", "box_px",
    "camera", "frame", "order",
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of a small random network."""
    torch.manual_seed(0)
    config = jgr_p2o.Config(hourglasses=1, width=16)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, config.build(), "jgr_p2o", config)
    return str(path)


@pytest.fixture(autouse=True)
def any_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random network is never sure."""
    monkeypatch.setattr(estimator, "LEAST_SCORE", 0.0)
    monkeypatch.setattr(estimator, "SMALLEST_HAND_MM", 0.0)
    monkeypatch.setattr(estimator, "LEAST_PLAUSIBILITY", 0.0)
    monkeypatch.setattr(predicting, "_warned", set())


def arm() -> np.ndarray:
    """A fist on an arm, mm."""
    depth_mm = np.zeros((240, 320), np.uint16)
    cv2.line(depth_mm, (160, 120), (160, 260), 600, 26)
    cv2.circle(depth_mm, (160, 110), 24, 600, -1)
    return depth_mm


@pytest.fixture
def frame(tmp_path: Path) -> str:
    path = tmp_path / "frame.png"
    cv2.imwrite(str(path), arm())
    return str(path)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capfd.readouterr()
    return code, out, err


def test_predict_prints_one_document_with_the_keys_of_a_hand(
    capfd: pytest.CaptureFixture[str], weights: str, frame: str
) -> None:
    code, out, err = run(
        capfd, "predict", frame, "--checkpoint", weights, "--camera", "300,300,159.5,119.5", "--json"
    )
    assert code == 0
    assert err == ""
    document = json.loads(out)
    assert document["model"] == "jgr_p2o"
    (image,) = document["images"]
    assert image["file"] == frame
    (hand,) = image["hands"]
    assert set(hand) >= HAND_KEYS
    assert hand["joint_names"] == list(JOINT_NAMES)
    assert hand["camera"] == {"fx": 300.0, "fy": 300.0, "cx": 159.5, "cy": 119.5}
    assert hand["side"] == "right"
    assert np.array(hand["joints_mm"]).shape == (21, 3)
    assert 400 < np.array(hand["joints_mm"])[:, 2].mean() < 800


def test_one_bad_file_does_not_keep_the_others_from_their_answers(
    capfd: pytest.CaptureFixture[str], weights: str, frame: str, tmp_path: Path
) -> None:
    bad, missing = tmp_path / "bad.png", tmp_path / "nope.npy"
    bad.write_bytes(b"not a picture")
    code, out, err = run(
        capfd, "predict", str(bad), frame, str(missing), "--checkpoint", weights,
        "--camera", "300,300,160,120", "--json",
    )  # fmt: skip
    assert code == 2
    first, second, third = json.loads(out)["images"]
    assert first["hands"] == third["hands"] == []
    assert "expected a PNG" in first["error"]
    assert "no such file" in third["error"]
    assert len(second["hands"]) == 1
    assert "error" not in second
    assert len(err.splitlines()) == 2
    assert "Traceback" not in err


def test_results_go_to_the_folder_whole_and_nothing_else(
    capfd: pytest.CaptureFixture[str], weights: str, frame: str, tmp_path: Path
) -> None:
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "depth.png"), arm())
    files = [frame, str(tmp_path / "1" / "depth.png"), str(tmp_path / "2" / "depth.png"), "missing.png"]
    out_folder = tmp_path / "deep" / "out"
    code, out, _ = run(
        capfd,
        "predict",
        *files,
        "--checkpoint",
        weights,
        "--camera",
        "300,300,160,120",
        "--out",
        str(out_folder),
    )
    assert code == 2
    assert str(out_folder) in out
    assert {path.name for path in out_folder.iterdir()} == {
        *(f"{stem}.{kind}" for stem in ("frame", "1_depth", "2_depth") for kind in ("png", "html")),
        "predictions.json",
    }
    read = read_json(out_folder / "predictions.json")
    assert [image.file for image in read.images] == files
    assert [len(image.hands) for image in read.images] == [1, 1, 1, 0]
    assert read.images[0].size_px == (320, 240)


def test_an_unknown_camera_is_assumed_with_one_warning(
    capfd: pytest.CaptureFixture[str], weights: str, frame: str
) -> None:
    code, out, err = run(capfd, "predict", frame, frame, "--checkpoint", weights, "--json")
    assert code == 0
    assert len(err.splitlines()) == 1
    assert "--camera 294.4,294.4,159.5,119.5" in err
    for image in json.loads(out)["images"]:
        assert "camera is assumed" in image["hands"][0]["frame"]


def test_a_format_that_implies_a_camera_brings_it(
    capfd: pytest.CaptureFixture[str], weights: str, tmp_path: Path
) -> None:
    depth = arm()
    path = tmp_path / "nyu.png"
    cv2.imwrite(str(path), np.dstack([depth % 256, depth // 256, depth * 0]).astype(np.uint8))
    code, out, err = run(capfd, "predict", str(path), "--checkpoint", weights, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["images"][0]["hands"][0]["camera"]["fx"] == NYU_CAMERA.fx


def test_side_box_and_scale_reach_the_estimator(
    capfd: pytest.CaptureFixture[str], weights: str, tmp_path: Path
) -> None:
    path = tmp_path / "metres.npy"
    np.save(path, arm() / 1000)
    code, out, _ = run(
        capfd, "predict", "--checkpoint", weights, "--side", "left", "--box", "120,70,80,90",
        "--depth-scale", "1000", "--camera", "300,300,160,120", "--json", str(path),
    )  # fmt: skip
    assert code == 0
    (hand,) = json.loads(out)["images"][0]["hands"]
    assert hand["side"] == "left"
    assert 400 < hand["joints_mm"][0][2] < 800


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "handgraph: the following arguments are required: COMMAND"),
        (["bogus"], "invalid choice: 'bogus'"),
        (["predict"], "handgraph predict: the following arguments are required: FILE"),
        (
            ["predict", "x.png", "--sid", "left", "--frobnicate"],
            "handgraph predict: unknown argument '--frobnicate' (see handgraph predict --help)",
        ),
        (["predict", "x.png", "--side", "up"], "argument --side: invalid choice: 'up'"),
        (["predict", "x.png", "--camera", "1,2,3"], "--camera 1,2,3: expected fx,fy,cx,cy, four numbers"),
        (["predict", "x.png", "--camera", "a,b,c,d"], "--camera a,b,c,d: expected fx,fy,cx,cy"),
        (["predict", "x.png", "--camera", "500,-500,3,4"], "fx and fy above zero"),
        (["predict", "x.png", "--box", "1,2"], "--box 1,2: expected x,y,w,h"),
        (["predict", "x.png", "--box", "1,2,nan,4"], "--box 1,2,nan,4: expected x,y,w,h, four numbers"),
        (["predict", "x.png", "--camera", "1,1,inf,3"], "--camera 1,1,inf,3: expected fx,fy,cx,cy, four num"),
        (["predict", "x.png", "--checkpoint", "nothing/here"], "nothing/here: no such weights file"),
        (["predict", "x.png", "--model", "resnet"], "unknown system 'resnet'"),
        (["evaluate", "--samples", "0"], "'0' is not a whole number above zero"),
        (["train", "no_such_recipe", "--out", "OUT"], "no_such_recipe: no such recipe file"),
        (["train", "jgr_p2o_synthetic_small", "batch=3", "--out", "OUT"], "unknown key batch"),
        (["train", "jgr_p2o_synthetic_small", "--out", "OUT", "batch_size=x"], "batch_size is the text 'x'"),
        (
            ["train", "jgr_p2o_synthetic_small", "--out", "OUT", "data.samples=abc"],
            "override 'data.samples=abc': data.samples is the text 'abc', expected a whole number or null",
        ),
        (["predict", "x.png", "--hands", "0"], "argument --hands: '0' is not a whole number above zero"),
        (["predict", "x.png", "--depth-scale", "nan"], "--depth-scale: 'nan' is not a number"),
        (["predict", "--webcam", "-1"], "--webcam: '-1' is not a whole number from zero"),
        (
            ["predict", "--webcam", "99"],
            "--webcam 99: cannot be opened; is it plugged in, and used by nobody",
        ),
        (["predict", "--webcam", "front"], "--webcam: 'front' is not a whole number from zero"),
        (["reproduce", "jgr:2", "--seeds", "0"], "--seeds: '0' is not a whole number above zero"),
        (["convert", "a.json", "b.csv", "--fps", "0"], "--fps: '0' is not a number above zero"),
        (["serve", "--port", "abc"], "--port: 'abc' is not a port, a whole number from 0 to 65535"),
        (["serve", "--port", "65536"], "--port: '65536' is not a port"),
        (["evaluate", "--data", "rhd", "--root", "OUT"], "/out: no such folder; give the one that holds"),
        (["train", "BAD", "--out", "OUT", "system=os"], "bad.yaml: unknown system 'os', expected one of"),
        (["train", "BAD", "--out", "OUT"], "bad.yaml: joints is -3, expected 14 (NYU), 16 (ICVL) or 21"),
        (["personalize", "x.png", "--out", "FOLDER"], "folder.onnx: is a folder, expected the name of a"),
        (["datasets", "check", "nyu", "BAD"], "bad.yaml: no folder (bad.yaml is a file: give the folder)"),
        (["synthesize", "OUT", "-n", "none"], "'none' is not a whole number"),
        (["models", "extra"], "handgraph models: unknown argument 'extra' (see handgraph models --help)"),
        (["predict", "x.png", "--checkpoint", "no.safetensors"], "no.safetensors: no such weights file\n"),
    ],
)
def test_wrong_usage_is_one_line(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    places = {"OUT": tmp_path / "out", "BAD": tmp_path / "bad.yaml", "FOLDER": tmp_path / "folder.onnx"}
    places["FOLDER"].mkdir()
    places["BAD"].write_text("system: jgr_p2o\nconfig: {joints: -3}")
    code, out, err = run(capfd, *(str(places.get(word, word)) for word in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["nothing.jpg", "text.jpeg", "missing.webp", "text.BMP"])
def test_a_bad_file_named_as_a_photograph_is_told_as_one(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    """Its content cannot say which system it is for, but its name does."""
    path = tmp_path / name
    if not name.startswith("missing"):
        path.write_bytes(b"" if name.startswith("nothing") else b"hello")
    assert predicting.default_model(str(path)) == "siapose"
    with pytest.raises(InputError if name.startswith("missing") else FormatError) as caught:
        read_image(path)
    assert "depth" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_folder_that_cannot_be_is_found_out_before_any_work(
    capfd: pytest.CaptureFixture[str], weights: str, frame: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        code, printed, err = run(capfd, "predict", frame, "--checkpoint", weights, "--out", str(out))
        assert (code, printed) == (2, "")
        assert len(err.splitlines()) == 1
        assert f"{out}: cannot be made a folder" in err


def test_corrupt_and_foreign_checkpoints(
    capfd: pytest.CaptureFixture[str], weights: str, frame: str, tmp_path: Path
) -> None:
    content = Path(weights).read_bytes()
    for name, bad in (("short", content[:-9]), ("empty", b""), ("text", b"hello world")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(bad)
        code, _, err = run(capfd, "predict", frame, "--checkpoint", str(path))
        assert code == 2
        assert len(err.splitlines()) == 1
        assert str(path) in err


def test_a_fault_of_our_own_is_1_and_debugging_shows_where(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, weights: str, frame: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("two lines\nof text")

    monkeypatch.setattr("handgraph.localize.find_hands", broken)
    monkeypatch.delenv("HANDGRAPH_DEBUG", raising=False)
    arguments = ("predict", frame, "--checkpoint", weights, "--camera", "300,300,160,120", "--json")
    code, out, err = run(capfd, *arguments)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "internal fault, ZeroDivisionError: two lines of text (HANDGRAPH_DEBUG=1 shows where)" in err
    monkeypatch.setenv("HANDGRAPH_DEBUG", "1")
    assert "Traceback" in run(capfd, *arguments)[2]


def test_models_lists_every_system(capfd: pytest.CaptureFixture[str]) -> None:
    from handgraph import systems

    code, out, _ = run(capfd, "models", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == list(systems.names())
    for row in rows:
        assert {"name", "paper", "input", "outputs", "parameters", "weights", "trained_on"} <= set(row)
    with_mesh = {row["name"] for row in rows if "mesh" in row["outputs"]}
    assert with_mesh == {"graph_refine", "identity_mesh"}
    assert "parameters" in run(capfd, "models")[1]


def test_evaluate_on_synthetic_hands(capfd: pytest.CaptureFixture[str], weights: str) -> None:
    code, out, _ = run(
        capfd, "evaluate", "--checkpoint", weights, "--data", "synthetic:test", "--samples", "5", "--json"
    )
    assert code == 0
    result = json.loads(out)
    assert result["n"] == 5
    assert result["mpjpe_mm"] > result["pa_mpjpe_mm"] > 0
    assert {"auc", "pck", "success", "per_joint_mm"} <= set(result)
    for data, message in (("nothing", "expected synthetic"), ("nyu", "give --root")):
        code, _, err = run(capfd, "evaluate", "--checkpoint", weights, "--data", data)
        assert code == 2
        assert message in err


@pytest.mark.skipif(not weights_path("jgr_p2o").is_file(), reason="no shipped weights in this checkout")
def test_evaluate_measures_what_predict_answers_unless_told_not_to(
    capfd: pytest.CaptureFixture[str],
) -> None:
    told = ["evaluate", "--data", "synthetic:test", "--samples", "64"]
    laid, seen = (json.loads(run(capfd, *told, *option, "--json")[1]) for option in ([], ["--no-optimise"]))
    assert (laid["optimised"], seen["optimised"]) == (True, False)
    assert laid["mpjpe_mm"] < 0.9 * seen["mpjpe_mm"]
    assert "jgr_p2o, laid on the surface, on synthetic:test" in run(capfd, *told)[1]


def test_synthesized_frames_are_predicted_with_their_own_camera(
    capfd: pytest.CaptureFixture[str], weights: str, tmp_path: Path
) -> None:
    folder = tmp_path / "hands"
    code, out, _ = run(capfd, "synthesize", str(folder), "-n", "2", "--seed", "4", "--json")
    assert code == 0
    assert {key: json.loads(out)[key] for key in ("out", "n")} == {"out": str(folder), "n": 2}
    frames = sorted(str(path) for path in folder.glob("*.png"))
    assert len(frames) == 2
    _, out, err = run(capfd, "predict", *frames, "--checkpoint", weights, "--json")
    assert err == ""
    labels = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    for image, label in zip(json.loads(out)["images"], labels, strict=True):
        for hand in image["hands"]:
            assert hand["camera"] == label["camera"]


def test_files_may_stand_behind_options() -> None:
    args = cli._parse(["predict", "a.png", "--side", "left", "b.png"])
    assert args.files == ["a.png", "b.png"]
    args = cli._parse(["train", "r", "a=1", "--out", "run", "b.c=2"])
    assert args.overrides == ["a=1", "b.c=2"]


def test_help_of_every_command_has_an_example_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capfd, "--help")
    commands = re.findall(r"^    ([a-z]+)(?:  |$)", out, re.MULTILINE)
    assert {"models", "predict", "evaluate", "train", "personalize", "synthesize"} <= set(commands)
    for command in commands:
        code, out, _ = run(capfd, command, "--help")
        assert code == 0
        assert "--json" in out
        example = out.rstrip().splitlines()[-1]  # as it is pasted into a shell
        assert example.startswith(f"example: handgraph {command}")
        assert cli._parse(example.removeprefix("example: handgraph ").split()).command == command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["datasets", "check"],
            "handgraph datasets: found 'check', expected nothing (a list), or check NAME ROOT",
        ),
        (["synthesize", "s", "--seed", "-1"], "argument --seed: '-1' is not a whole number from zero"),
        (
            ["personalize", "none.png", "--out", "x.json"],
            "handgraph personalize: no hand was found in any of",
        ),
    ],
)
def test_reasons_name_what_was_typed(
    capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, err = run(capfd, *arguments)
    assert code == 2
    assert message in err


def test_a_value_that_begins_with_a_minus_sign(capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capfd, "predict", "a.png", "--box", "-5,0,9,9")
    assert code == 2
    assert "--box: expected one argument; one that begins with '-' is written --box=-1" in err
    assert cli._parse(["predict", "a.png", "--box=-5,0,9,9"]).box == "-5,0,9,9"


def test_help_needs_no_pytorch() -> None:
    code = "\n".join(
        [
            "import sys, handgraph.cli",
            "try: handgraph.cli.main(['--help'])",
            "except SystemExit: print(*sys.modules)",
        ]
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = shown.stdout.splitlines()[-1].split()
    assert "handgraph.cli" in modules
    assert not {"torch", "numba"} & set(modules)
    assert "example: handgraph predict" in shown.stdout


def test_module_runs_as_a_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "handgraph", "predict", "none.png", "--camera", "1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HANDGRAPH_DEBUG": ""},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "handgraph predict: --camera 1: expected fx,fy,cx,cy, four numbers in pixels\n"


def test_predict_takes_a_photograph_with_the_shipped_weights(tmp_path, capsys):
    """No model is named: the file says which. The sample's own labels say where its hand is."""
    label = json.loads((SAMPLES / "photos.jsonl").read_text().splitlines()[0])
    photo = str(SAMPLES / label["image"])
    assert cli.main(["predict", photo, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "hand, score" in said
    assert "px" in said
    assert cli.main(["predict", photo, "--side", label["side"], "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == "siapose"
    (hand,) = document["images"][0]["hands"]
    assert hand["joints_mm"] is None
    true_px = np.array(label["keypoints_px"])
    error = np.linalg.norm(np.array(hand["keypoints_px"]) - true_px, axis=1).mean()
    assert error < 0.25 * np.ptp(true_px, axis=0).max()


SAMPLES = Path(cli.__file__).with_name("samples")


def test_personalize_writes_a_subject_that_predict_uses(tmp_path, capsys):
    frames = sorted(str(path) for path in SAMPLES.glob("depth_*.png"))[:3]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    person, out = tmp_path / "subject.json", tmp_path / "out"
    code = cli.main(["personalize", *frames, str(tmp_path / "broken.png"), "--out", str(person), "--json"])
    answered, said = capsys.readouterr()
    document = json.loads(answered)
    assert code == 2
    assert "broken.png" in said
    assert len(document["shape"]) == 10
    assert 140 < document["hand_length_mm"] < 230
    assert document["n"] == len(document["weights"]) == 3
    assert sum(document["weights"]) == pytest.approx(1, abs=1e-4)

    command = ["predict", frames[0], "--subject", str(person), "--mesh", "--json", "--out", str(out)]
    assert cli.main(command) == 0
    (hand,) = json.loads(capsys.readouterr().out)["images"][0]["hands"]
    np.testing.assert_allclose(hand["shape"], document["shape"], atol=1e-5)
    vertices, joints = np.array(hand["vertices_mm"]), np.array(hand["joints_mm"])
    # The mesh lies about the joints: none is farther from the surface than a palm is thick.
    assert np.linalg.norm(vertices[:, None] - joints, axis=-1).min(axis=0).max() < 25
    assert next(out.glob("*.glb")).read_bytes().startswith(b"glTF")


def test_a_damaged_subject_file_is_refused(tmp_path, capsys):
    (tmp_path / "subject.json").write_text("{}")
    frame = str(next(iter(SAMPLES.glob("depth_*.png"))))
    assert cli.main(["predict", frame, "--subject", str(tmp_path / "subject.json")]) == 2
    assert "subject.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["evaluate", "--model", "agmn"], "agmn: no weights are shipped with this installation"),
        (["export", "--model", "agmn", "--out", "x.onnx"], "agmn: no weights are shipped"),
        (
            ["export", "--model", "nobody", "--out", "x.onnx"],
            "unknown system 'nobody', expected one of",
        ),
        (["predict", "frame.png", "--looks", "5"], "looks is 5, expected 1 to 4"),
        (["predict", "photo.jpg", "--looks", "9"], "looks is 9, expected 1 to 5"),
        (["evaluate", "--looks", "5", "--samples", "2"], "looks is 5, expected 1 to 4"),
        (
            ["evaluate", "--model", "graph_refine", "--optimise"],
            "optimise: graph_refine lays no 3D hand on what",
        ),
        (
            ["evaluate", "--model", "siapose", "--looks", "2"],
            "--looks: siapose's crops are looked at once here",
        ),
        (
            ["predict", "photo.jpg", "--model", "identity_mesh", "--optimise"],
            "--optimise: lays the 3D hand on its 2D keypoints, give --camera",
        ),
        (
            ["predict", "photo.jpg", "--model", "siapose", "--no-optimise"],
            "optimise: siapose lays no 3D hand on 2D keypoints",
        ),
        (["predict", "frame.png", "--explain"], "--explain: draws the classes and relations of hybrid_gcn"),
        (
            ["predict", "frame.png", "--subject", "SUBJECT", "--no-optimise"],
            "--subject: jgr_p2o measures the hand itself; give --mesh or --optimise to use its shape",
        ),
    ],
)
def test_options_that_cannot_be_met_are_refused(command, said, tmp_path, capsys):
    if "SUBJECT" in command:
        frame = str(next(iter(SAMPLES.glob("depth_*.png"))))
        assert cli.main(["personalize", frame, "--out", str(tmp_path / "subject.json")]) == 0
        command = [str(tmp_path / "subject.json") if word == "SUBJECT" else word for word in command]
    assert cli.main(command) == 2
    assert said in capsys.readouterr().err
