"""The HTTP interface answers what `load` answers, and refuses in one line."""

import asyncio
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient

import handgraph as hg
from handgraph.formats import from_document, read_coco, read_parquet
from handgraph.images import read_depth, read_image
from handgraph.server.app import make_app
from handgraph.server.limits import Limits, Refused
from handgraph.server.work import Models, without_folder
from handgraph.subject import personalize_files

SAMPLES = Path(hg.__file__).parent / "samples"
DEPTH, PHOTO = SAMPLES / "depth_000011.png", SAMPLES / "image_000009.jpg"
CAMERA = "588,587,320.3,240.5"
# Where numba has compiled nothing yet, the first mesh takes its time.
LIMITS = replace(
    Limits(),
    request_seconds=600.0,
    upload_bytes=3_000_000,
    picture_pixels=2_000_000,
    clip_frames=4,
    clip_seconds=3.0,
)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = make_app(Models(), LIMITS)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client
        left = [path for path in app.state.folder.iterdir()]
    assert left == [], "uploads stayed on the disk"
    assert not app.state.folder.exists()


def error(response: object, status: int) -> str:
    """The one line of a refusal."""
    assert response.status_code == status, response.text  # type: ignore[attr-defined]
    document = response.json()  # type: ignore[attr-defined]
    assert set(document) == {"error"}
    assert "\n" not in document["error"]
    return str(document["error"])


def test_a_depth_frame_gives_what_load_gives(client: TestClient) -> None:
    depth = read_depth(DEPTH).depth_mm
    camera = hg.PinholeCamera(*map(float, CAMERA.split(",")))
    expected = [hand.to_dict() for hand in hg.load("jgr_p2o")(depth, camera=camera)]
    assert expected
    raw = client.post(f"/api/predict?camera={CAMERA}", content=DEPTH.read_bytes())
    form = client.post("/api/predict", files={"file": DEPTH.open("rb")}, data={"camera": CAMERA})
    for response in (raw, form):
        assert response.status_code == 200, response.text
        document = response.json()
        assert document["model"] == "jgr_p2o"
        assert document["input"] == "depth"
        assert document["notes"] == []
        assert document["images"][0]["hands"] == expected
    assert raw.json()["images"][0]["file"] == "picture.png"
    assert form.json()["images"][0]["file"] == "depth_000011.png"
    from_document(form.json())
    assert "assumed" in client.post("/api/predict", content=DEPTH.read_bytes()).json()["notes"][0]


def test_a_photograph_gives_what_load_gives(client: TestClient) -> None:
    estimate = hg.load("siapose")
    image = read_image(PHOTO)
    for settings, arguments in (
        ({}, {}),
        ({"side": "left"}, {"side": "left"}),
        ({"box": "100,80,300,300"}, {"box": (100.0, 80.0, 300.0, 300.0)}),
    ):
        response = client.post("/api/predict", files={"file": PHOTO.open("rb")}, data=settings)
        expected = [hand.to_dict() for hand in estimate(image, **arguments)]
        assert response.json()["images"][0]["hands"] == expected


def test_several_hands_come_as_load_gives_them(client: TestClient) -> None:
    """Two hands in one depth frame, side by side, and two in one photograph."""
    depth = read_depth(DEPTH).depth_mm
    both = np.hstack([depth, depth[:, ::-1]]).astype(np.uint16)
    content = cv2.imencode(".png", both)[1].tobytes()
    camera = hg.PinholeCamera(588.0, 587.0, 639.5, 239.5)
    for most in (1, 2):
        expected = hg.load("jgr_p2o")(both.astype(np.float32), camera=camera, most=most)
        answer = client.post(f"/api/predict?camera=588,587,639.5,239.5&hands={most}", content=content).json()
        assert answer["images"][0]["hands"] == [hand.to_dict() for hand in expected]
    photo = read_image(PHOTO)
    pair = np.hstack([photo, photo[:, ::-1]])
    content = cv2.imencode(".png", pair[..., ::-1])[1].tobytes()
    expected = hg.load("siapose")(pair)
    answer = client.post("/api/predict", content=content).json()
    assert answer["images"][0]["hands"] == [hand.to_dict() for hand in expected]
    first = client.post("/api/predict?hands=1", content=content).json()
    assert first["images"][0]["hands"] == [hand.to_dict() for hand in expected[:1]]


def test_no_hand_is_an_answer(client: TestClient) -> None:
    grey = cv2.imencode(".jpg", np.full((120, 160, 3), 128, np.uint8))[1].tobytes()
    response = client.post("/api/predict", content=grey)
    assert response.status_code == 200
    assert response.json()["images"] == [{"file": "picture", "hands": [], "size_px": [160, 120]}]
    assert "an answer has none" in error(client.post("/api/predict?format=glb", content=grey), 422).replace(
        "this", "an"
    )


def test_every_format_comes_back(client: TestClient, tmp_path: Path) -> None:
    document = client.post(f"/api/predict?camera={CAMERA}", content=DEPTH.read_bytes()).json()
    expected = [hand.to_dict() for hand in from_document(document).images[0].hands]
    heads = {"obj": b"v ", "ply": b"ply", "glb": b"glTF", "png": b"\x89PNG", "parquet": b"PAR1", "gltf": b"{"}
    for form in ("json", "coco", "parquet", "obj", "ply", "glb", "gltf", "png"):
        sent = {
            "predictions": ("p.json", json.dumps(document)),
            "file": ("a.png", DEPTH.read_bytes()),
        }
        converted = client.post("/api/convert", files=sent, data={"format": form})
        direct = client.post(f"/api/predict?camera={CAMERA}&format={form}", content=DEPTH.read_bytes())
        assert converted.status_code == direct.status_code == 200, (form, converted.text[:300])
        assert "attachment" in converted.headers["content-disposition"]
        file = tmp_path / f"a.{form}"
        file.write_bytes(converted.content)
        if form in heads:
            assert converted.content.startswith(heads[form]) or heads[form] in converted.content[:200]
            assert direct.content[:3] == converted.content[:3]
        if form == "json":
            assert [h.to_dict() for h in from_document(converted.json()).images[0].hands] == expected
        if form == "coco":
            assert [h.to_dict() for h in read_coco(file).images[0].hands] == expected
        if form == "parquet":
            assert [h.to_dict() for h in read_parquet(file).images[0].hands] == expected


def test_a_mesh_lies_about_its_joints(client: TestClient) -> None:
    with_mesh = client.post(f"/api/predict?camera={CAMERA}&mesh=true", content=DEPTH.read_bytes()).json()
    hand = with_mesh["images"][0]["hands"][0]
    vertices, joints = np.array(hand["vertices_mm"]), np.array(hand["joints_mm"])
    nearest = np.linalg.norm(vertices[:, None] - joints[None], axis=2).min(axis=0)
    assert nearest.max() < 40
    photo = client.post("/api/predict?mesh=true", content=PHOTO.read_bytes()).json()
    if photo["images"][0]["hands"][0]["joints_mm"] is None:
        assert photo["notes"] == ["a mesh needs joints in millimetres, which this system does not give"]


def test_a_depth_frame_comes_with_a_picture_of_it(client: TestClient) -> None:
    import base64

    document = client.post("/api/predict?preview=true", content=DEPTH.read_bytes()).json()
    head, _, data = document["preview"].partition(",")
    assert head == "data:image/png;base64"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (480, 640, 3)
    assert "preview" not in client.post("/api/predict?preview=true", content=PHOTO.read_bytes()).json()


def test_personalize_is_the_same_as_the_command(client: TestClient) -> None:
    paths = [SAMPLES / f"depth_0000{n}.png" for n in ("11", "12", "17")]
    camera = hg.PinholeCamera(*map(float, CAMERA.split(",")))
    expected, _ = personalize_files(paths, hg.load("jgr_p2o"), camera=camera)
    empty = np.zeros((60, 80), np.uint16)
    empty[0, 0] = 900
    sent = [("files", (path.name, path.read_bytes())) for path in paths]
    sent.append(("files", ("nobody.png", cv2.imencode(".png", empty)[1].tobytes())))
    response = client.post("/api/personalize", files=sent, data={"camera": CAMERA})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["subject"]["files"] == [path.name for path in paths]
    assert answer["subject"]["hand_length_mm"] == pytest.approx(expected.hand_length_mm, abs=1e-3)
    np.testing.assert_allclose(answer["subject"]["shape"], expected.shape, atol=1e-5)
    assert answer["problems"] == ["nobody.png: no hand found"]
    # And the subject shapes later meshes.
    subject = json.dumps(answer["subject"])
    used = client.post(
        "/api/predict",
        files={"file": DEPTH.open("rb")},
        data={"camera": CAMERA, "mesh": "true", "subject": subject},
    ).json()
    np.testing.assert_allclose(used["images"][0]["hands"][0]["shape"], expected.shape, atol=1e-4)


def test_personalize_refuses_in_one_line(client: TestClient) -> None:
    assert "no picture" in error(client.post("/api/personalize"), 400)
    mixed = [("files", (path.name, path.read_bytes())) for path in (DEPTH, PHOTO)]
    assert "expected pictures of one kind" in error(client.post("/api/personalize", files=mixed), 422)
    many = [("files", (f"{i}.png", b"x")) for i in range(LIMITS.personal_images + 1)]
    assert "Too many files" in error(client.post("/api/personalize", files=many), 400)


def test_photographs_need_weights_that_tell_size(client: TestClient) -> None:
    from handgraph.estimator import weights_path

    if weights_path("identity_mesh").is_file():
        pytest.skip("identity_mesh's weights are shipped")
    told = error(client.post("/api/personalize", files=[("files", ("a.jpg", PHOTO.read_bytes()))]), 404)
    assert "identity_mesh, whose weights are not shipped with this installation; use depth frames" in told


def clip(seconds: float, fps: int = 8, size: tuple[int, int] = (64, 48)) -> bytes:
    """A clip of grey pictures."""
    grey = [np.full((size[1], size[0], 3), 20 * i % 255, np.uint8) for i in range(round(seconds * fps))]
    return clip_of(grey, fps)


def clip_of(pictures: list[np.ndarray], fps: int = 8) -> bytes:
    """These pictures as an MP4."""
    av = pytest.importorskip("av", reason="PyAV, which reads clips, is not installed")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 8_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def test_a_clip_gives_hands_for_evenly_thinned_frames(client: TestClient) -> None:
    response = client.post("/api/predict", files={"file": ("c.mp4", clip(2))})
    assert response.status_code == 200, response.text
    document = response.json()
    assert document["input"] == "clip"
    np.testing.assert_allclose(document["times_s"], [0, 0.5, 1, 1.5], atol=0.02)
    assert [image["file"] for image in document["images"]] == [f"c.mp4#{i}" for i in range(4)]
    assert document["images"][0]["size_px"] == [64, 48]


def test_hands_of_a_clip_keep_their_tracks(client: TestClient) -> None:
    photo = read_image(PHOTO)
    away = np.full_like(photo, 128)
    sent = {"file": ("c.mp4", clip_of([photo, photo, away, photo], fps=2))}
    document = client.post("/api/predict", files=sent).json()
    tracks = [[hand["track"] for hand in image["hands"]] for image in document["images"]]
    assert tracks == [[1], [1], [], [1]], "seen again within the time a track lasts"
    # What converts an answer takes it with its tracks.
    again = {"predictions": ("hands.json", json.dumps(document).encode())}
    response = client.post("/api/convert", files=again, data={"format": "coco"})
    assert response.status_code == 200, response.text


def test_a_clip_that_takes_too_long_is_answered_as_far_as_it_goes(tmp_path: Path) -> None:
    from handgraph.server.jobs import Deadline
    from handgraph.server.work import Settings, predict

    path = tmp_path / "c.mp4"
    path.write_bytes(clip(2))
    deadline = Deadline(600.0)
    deadline._end -= 550  # 50 of 600 s are left
    result = predict(Models(), path, Settings(), LIMITS, tmp_path, deadline)
    assert result.times_s == (0.0,)
    assert result.notes == ("only the clip's first 0.0 s were looked at: a request may take no longer",)


def test_clips_are_bounded(client: TestClient) -> None:
    assert "longer than 3 s" in error(client.post("/api/predict", content=clip(5)), 413)
    wide = clip(0.5, size=(1280, 720))
    assert "1280x720 pixels, expected at most 500,000 a frame" in error(
        client.post("/api/predict", content=wide), 413
    )
    cut = clip(2)
    assert "cannot be read" in error(client.post("/api/predict", content=cut[: len(cut) // 3]), 422)
    assert "take json" in error(client.post("/api/predict?format=png", content=clip(1)), 422)


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"model": "nobody"}, 404, "nobody"),
        ({"model": "cpm"}, 404, "cpm: no weights are shipped"),
        ({"model": "siapose"}, 422, "a depth frame, but siapose takes photographs"),
        ({"side": "up"}, 422, "side 'up'"),
        ({"box": "1,2,3"}, 422, "box '1,2,3'"),
        ({"box": "1,2,nan,4"}, 422, "box '1,2,nan,4'"),
        ({"box": "9000,9000,5,5"}, 422, "box"),
        ({"camera": "0,0,0,0"}, 422, "camera"),
        ({"depth_scale": "-1"}, 422, "depth_scale '-1'"),
        ({"hands": "0"}, 422, "hands '0'"),
        ({"format": "exe"}, 422, "format 'exe'"),
        ({"mesh": "perhaps"}, 422, "mesh 'perhaps'"),
        ({"colour": "red"}, 422, "colour 'red'"),
        ({"subject": "{}"}, 422, "subject.json: expected an object"),
        ({"subject": "{" * 5000}, 422, "subject.json: not JSON"),
    ],
)
def test_a_wrong_setting_is_named(
    client: TestClient, fields: dict[str, str], status: int, message: str
) -> None:
    told = error(client.post("/api/predict", files={"file": DEPTH.open("rb")}, data=fields), status)
    assert message in told
    assert "/tmp" not in told


def test_convert_refuses_in_one_line(client: TestClient) -> None:
    def convert(text: str, form: str = "coco") -> object:
        return client.post("/api/convert", files={"predictions": ("p", text)}, data={"format": form})

    assert "no predictions" in error(client.post("/api/convert"), 400)
    assert "not JSON" in error(convert("["), 422)
    assert "not JSON" in error(convert("[" * 100_000), 422)
    assert "expected an object" in error(convert("[]"), 422)
    assert "'images' is missing" in error(convert('{"model": "a"}'), 422)
    assert "send it as `file`" in error(convert('{"model": "a", "images": []}', "png"), 400)


def test_who_asks_is_checked(client: TestClient) -> None:
    told = error(client.get("/", headers={"host": "evil.example"}), 421)
    assert "'evil.example' is not this server's name" in told
    for name in ("localhost:8000", "127.0.0.1", "[::1]:8000", "192.168.1.7:8000", "app.localhost"):
        assert client.get("/api/health", headers={"host": name}).status_code == 200, name
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert "not served" in error(client.post("/api/predict", content=b"x", headers=headers), 403)
    assert client.get("/api/health", headers={"origin": "http://127.0.0.1"}).status_code == 200
    preflight = client.options("/api/predict", headers={"origin": "http://evil.example"})
    assert "access-control-allow-origin" not in preflight.headers
    allowed = make_app(Models(), LIMITS, names=frozenset({"pc.local"}))
    assert TestClient(allowed, base_url="http://pc.local").get("/api/health").status_code == 200


def test_too_much_is_refused_before_it_is_read(client: TestClient) -> None:
    told = error(client.post("/api/predict", content=b"x" * 3_000_001), 413)
    assert told == "the upload is larger than 3 MB; send less at once"
    assert "larger than 3 MB" in error(
        client.post("/api/predict", content=(b"x" * 100_000 for _ in range(40))), 413
    )
    wide = cv2.imencode(".png", np.zeros((1000, 2001, 3), np.uint8))[1].tobytes()
    assert "2001x1000 pixels" in error(client.post("/api/predict", content=wide), 413)


def test_unknown_paths_and_methods(client: TestClient) -> None:
    assert error(client.get("/nothing"), 404) == "Not Found"
    assert error(client.get("/static/../app.py"), 404) == "Not Found"
    assert error(client.get("/samples/..%2f__init__.py"), 404) == "Not Found"
    assert error(client.get("/api/predict"), 405) == "Method Not Allowed"


def test_the_page_is_of_its_own_files_alone(client: TestClient) -> None:
    import re

    for path in ("/", "/api"):
        response = client.get(path)
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        for address in re.findall(r'(?:src|href)="([^"]*)"', response.text):
            assert re.match(r"/(?!/)", address)
            assert client.get(address).status_code == 200, address
        assert not re.search(r"<script(?![^>]*src=)|style=|\son\w+=", response.text)
    for name in ("app.js", "draw.js", "api.js", "hand3d.js", "style.css"):
        response = client.get(f"/static/{name}")
        assert response.headers["x-content-type-options"] == "nosniff"
        addresses = re.findall(r"https?://[^\s'\"`)]+", response.text)
        assert set(addresses) <= {"http://localhost"}, (name, addresses)
        assert "@import" not in response.text
        assert "eval(" not in response.text


def test_the_schema_lists_every_setting(client: TestClient) -> None:
    from handgraph.server.work import Settings

    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        "/api/health",
        "/api/models",
        "/api/predict",
        "/api/personalize",
        "/api/convert",
    }
    operation = schema["paths"]["/api/predict"]["post"]
    assert {parameter["name"] for parameter in operation["parameters"]} == set(Settings.model_fields)
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(form) == {"file", *Settings.model_fields} - {"name"}
    assert all(value["description"] for value in form.values())
    assert client.get("/docs").status_code == 404


@pytest.mark.slow
def test_models_are_listed_without_this_machine_s_folders(client: TestClient) -> None:
    rows = {row["name"]: row for row in client.get("/api/models").json()}
    assert rows["jgr_p2o"]["weights"] is True
    assert set(rows) == set(hg.systems.names())
    health = client.get("/api/health").json()
    assert health["status"] == "ok"
    assert health["taken"] == 0


def test_names_of_uploads_are_harmless(client: TestClient) -> None:
    content = DEPTH.read_bytes()
    for name, kept in (
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\x\\hand.png", "hand.png"),
        ("labels.jsonl", "labels.png"),
        ("a" * 300 + ".png", "a" * 80 + ".png"),
        ("..", "picture.png"),
        ("手.png", "手.png"),
    ):
        response = client.post("/api/predict", files={"file": (name, content)})
        assert response.json()["images"][0]["file"] == kept, response.text[:200]


def test_messages_leave_the_temporary_folder_out(tmp_path: Path) -> None:
    assert without_folder(f"{tmp_path}/0/a.png: bad", tmp_path) == "a.png: bad"
    assert without_folder(f"{tmp_path}/subject.json: bad", tmp_path) == "subject.json: bad"
    assert without_folder("nothing to do with it", tmp_path) == "nothing to do with it"


def test_a_full_house_says_when_to_come_again() -> None:
    app = make_app(Models(), LIMITS)
    app.state.jobs.taken = LIMITS.places
    # No lifespan: nothing is loaded, and nothing is to be reached.
    response = TestClient(app, base_url="http://127.0.0.1").post("/api/predict", content=b"x")
    assert "all 32 places are taken" in error(response, 503)
    assert response.headers["retry-after"] == "2"


def test_jobs_keep_time_and_places() -> None:
    import threading

    from handgraph.server.jobs import Deadline, Gone, Jobs

    async def never() -> None:
        await asyncio.sleep(60)

    async def at_once() -> None:
        return None

    async def main() -> None:
        jobs, end = Jobs(1, 2), threading.Event()
        assert await jobs.run(lambda deadline: 7, 5.0, never) == 7
        with pytest.raises(ZeroDivisionError):
            await jobs.run(lambda deadline: 1 / 0, 5.0, never)

        def long(deadline: Deadline) -> None:
            end.wait(20)
            deadline.check()

        async with jobs.place():
            with pytest.raises(Refused, match=r"not done within 0.1 s"):
                await jobs.run(long, 0.1, never)
        assert jobs.taken == 1, "its thread still works"
        with pytest.raises(Gone):
            await jobs.run(lambda deadline: None, 5.0, at_once)
        assert jobs.taken == 1, "what had not begun does not begin"
        async with jobs.place():
            with pytest.raises(Refused, match="all 2 places are taken"):
                async with jobs.place():
                    pass
        end.set()
        for _ in range(200):
            await asyncio.sleep(0.01)
            if jobs.taken == 0:
                break
        assert jobs.taken == 0
        jobs.close()

    asyncio.run(main())
