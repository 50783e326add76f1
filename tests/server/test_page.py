"""The page in a real Chromium: what somebody does with it, wide and on a phone."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import handgraph as hg
from handgraph.formats import read_coco, read_json
from handgraph.subject import read_subject

from .conftest import Server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian: apt install chromium)"),
    pytest.mark.slow,
]

SAMPLES = Path(hg.__file__).parent / "samples"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
WAIT_MS = 300_000
INKED = """canvas => {
  if (!canvas.width) return 0;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let inked = 0;
  for (let i = 3; i < data.length; i += 4) inked += data[i] > 0;
  return inked;
}"""
"""How many pixels of a canvas are not empty."""
SENT = """
  window.sent = [];
  const ask = window.fetch;
  window.fetch = (path, options) => {
    if (options?.body instanceof FormData) window.sent.push([path, ...options.body.keys()]);
    return ask(path, options);
  };
"""
"""Keeps the names of the fields that the page sends."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        yield started


@pytest.fixture(params=[(1280, 900, "light"), (390, 844, "dark")], ids=["wide", "narrow"])
def page(browser: Any, server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, loaded; at the end nothing but this server has been asked, and nothing went wrong in it."""
    width, height, scheme = request.param
    context = browser.chromium.launch_persistent_context(
        tmp_path / "user",
        executable_path=CHROMIUM,
        headless=True,
        args=FLAGS,
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        reduced_motion="reduce",
        accept_downloads=True,
    )
    context.set_default_timeout(WAIT_MS)
    page = context.pages[0]
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.add_init_script(SENT)
    page.goto(server.url)
    page.wait_for_selector("body[data-ready]")
    yield page
    ours = urlsplit(server.url).netloc
    elsewhere = [
        url for url in asked if urlsplit(url).scheme not in ("blob", "data") and urlsplit(url).netloc != ours
    ]
    assert elsewhere == []
    assert any(url.endswith("/static/app.js") for url in asked)
    # Chromium logs every refusal of the server, which the page is to show and one test asks for.
    assert [line for line in wrong if not line.startswith("Failed to load resource")] == []
    too_wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    context.close()
    assert not too_wide, "nothing sticks out of the screen"


def drop(page: Any, path: Path) -> None:
    """Drop a file on the page, as a hand with a mouse does."""
    transfer = page.evaluate_handle(
        """([name, text]) => {
          const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0)), all = new DataTransfer();
          all.items.add(new File([bytes], name, { type: name.endsWith("jpg") ? "image/jpeg" : "image/png" }));
          return all;
        }""",
        [path.name, __import__("base64").b64encode(path.read_bytes()).decode()],
    )
    page.dispatch_event("#stage", "drop", {"dataTransfer": transfer})


def answered(page: Any) -> None:
    page.wait_for_selector("#busy", state="attached")
    page.locator("#status", has_text=" ms").wait_for()
    page.wait_for_selector("#busy", state="hidden")


def test_drop_turn_and_download(page: Any, tmp_path: Path) -> None:
    assert page.locator("#invite").is_visible()
    assert page.eval_on_selector("#overlay", INKED) == 0
    drop(page, SAMPLES / "depth_000011.png")
    answered(page)
    assert "Right hand" in page.inner_text("#status")
    assert page.eval_on_selector("#overlay", INKED) > 300
    assert page.locator(".hand").count() == 1
    assert page.locator(".hand tbody tr").count() == 21
    assert "assumed" in page.inner_text("#notes")
    # With a mouse, then with the keyboard: each turn changes the drawing.
    canvas = page.locator(".hand canvas")
    canvas.scroll_into_view_if_needed()
    assert page.eval_on_selector(".hand canvas", INKED) > 1000
    before = canvas.screenshot()
    place = canvas.bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 80, y + 30, steps=4)
    page.mouse.up()
    dragged = canvas.screenshot()
    assert dragged != before
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    assert canvas.screenshot() != dragged
    # The numbers on the page are those of the answer that is saved.
    with page.expect_download() as coming:
        page.locator("#download-buttons button", has_text="JSON").click()
    coming.value.save_as(tmp_path / "a.json")
    hand = read_json(tmp_path / "a.json").images[0].hands[0]
    row = page.locator(".hand tbody tr").nth(4).inner_text()
    assert "thumb tip" in row
    assert f"{hand.keypoints_px[4, 0]:.1f}" in row
    assert f"{hand.confidence[4]:.2f}" in row
    with page.expect_download() as coming:
        page.locator("#download-buttons button", has_text="COCO").click()
    coming.value.save_as(tmp_path / "b.json")
    assert read_coco(tmp_path / "b.json").images[0].file == "depth_000011.png"
    for name, head in (("GLB mesh", b"glTF"), ("Picture", b"\x89PNG"), ("Parquet", b"PAR1")):
        with page.expect_download() as coming:
            page.locator("#download-buttons button", has_text=name).click()
        coming.value.save_as(tmp_path / "c")
        assert (tmp_path / "c").read_bytes().startswith(head)


def test_personalize_and_use_it(page: Any, tmp_path: Path) -> None:
    page.click("#settings summary")
    for index, number in enumerate((588, 587, 320.3, 240.5)):
        page.fill(f"[name=camera{index}]", str(number))
    page.click("#personal summary")
    page.set_input_files("#person-files", [SAMPLES / f"depth_0000{n}.png" for n in ("11", "12", "17")])
    page.wait_for_selector("#person-result:not([hidden])")
    assert "From 3 of 3 pictures." in page.inner_text("#person-status")
    assert "mm, wrist to middle fingertip" in page.inner_text("#person-numbers")
    with page.expect_download() as coming:
        page.click("#person-save")
    coming.value.save_as(tmp_path / "subject.json")
    subject = read_subject(tmp_path / "subject.json")
    assert f"{subject.hand_length_mm:.1f}" in page.inner_text("#person-numbers")
    page.set_input_files("#file", SAMPLES / "depth_000017.png")
    answered(page)
    path, *fields = page.evaluate("sent.at(-1)")
    assert path == "/api/predict"
    assert {"camera", "mesh", "subject", "file"} <= set(fields)
    assert "mesh" in page.get_attribute(".hand canvas", "aria-label")
    # And opened again from the file.
    page.uncheck("#person-use")
    page.set_input_files("#person-open", tmp_path / "subject.json")
    page.locator("#person-status", has_text="Opened subject.json").wait_for()
    (tmp_path / "other.json").write_text(json.dumps({"a": 1}))
    page.set_input_files("#person-open", tmp_path / "other.json")
    page.locator("#person-status", has_text="not a subject file").wait_for()
    answered(page)


def test_photograph_colours_box_and_error(page: Any, tmp_path: Path) -> None:
    page.locator("#samples button").nth(7).click()
    answered(page)
    assert page.eval_on_selector("#overlay", INKED) > 300
    by_finger = page.locator("#overlay").screenshot()
    page.check("[name=coloring][value=confidence]")
    assert page.locator("#overlay").screenshot() != by_finger
    # A box, drawn with the mouse, is sent and stays in its fields.
    page.click("#settings summary")
    page.click("#draw-box")
    page.locator("#frame").scroll_into_view_if_needed()
    place = page.locator("#frame").bounding_box()
    page.mouse.move(place["x"] + 0.2 * place["width"], place["y"] + 0.2 * place["height"])
    page.mouse.down()
    page.mouse.move(place["x"] + 0.8 * place["width"], place["y"] + 0.9 * place["height"], steps=3)
    page.mouse.up()
    answered(page)
    assert "box" in page.evaluate("sent.at(-1)")
    width = page.eval_on_selector("#picture", "picture => picture.naturalWidth")
    assert float(page.input_value("[name=box0]")) == pytest.approx(0.2 * width, abs=3)


def test_the_keyboard_reaches_everything(page: Any) -> None:
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(e => e.id || e.name || e.tagName + ' ' + e.textContent.trim())(document.activeElement)"
            )
        )
    for one in ("file", "webcam", "coloring", "SUMMARY Settings"):
        assert any(one in name for name in reached), (one, reached)
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, input, select, canvas[role=img]")].filter(e =>
          !e.textContent.trim() && !e.getAttribute("aria-label") && !(e.labels && e.labels.length)).length"""
    )
    assert unnamed == 0, "everything that can be used has a name"


def test_the_webcam_is_looked_at(page: Any) -> None:
    """Chromium's own test picture, which shows no hand: an answer all the same, again and again."""
    seen: list[int] = []
    page.on("response", lambda response: seen.append(response.status) if "predict" in response.url else None)
    page.click("#webcam")
    page.locator("#status", has_text=" ms").wait_for()
    while len(seen) < 3:
        page.wait_for_timeout(100)
    assert set(seen) == {200}
    page.click("#webcam")
    assert page.get_attribute("#webcam", "aria-pressed") == "false"
    page.wait_for_timeout(500)
    count = len(seen)
    page.wait_for_timeout(1500)
    assert len(seen) - count <= 1, "it has stopped"


def test_the_interface_is_described(page: Any, server: Server) -> None:
    page.goto(f"{server.url}/api")
    page.locator("h2", has_text="/api/predict").wait_for()
    assert "depth_scale" in page.inner_text("#paths")


def test_what_cannot_be_read_is_said(page: Any, tmp_path: Path) -> None:
    """In the server's own line."""
    (tmp_path / "hand.gif").write_bytes(b"GIF89a" + bytes(50))
    with page.expect_response("**/api/predict") as answer:
        page.set_input_files("#file", tmp_path / "hand.gif")
    assert answer.value.status == 415
    page.locator("#status.bad", has_text="hand.gif: a GIF picture").wait_for()
