// The page: what is shown, what is sent, what is saved. Nothing leaves for anywhere but this server.
import { show } from "/static/hand3d.js";
import { confidenceColor, drawHands, jointColors, sceneOf } from "/static/draw.js";

const $ = id => document.getElementById(id);
const options = $("options"), overlay = $("overlay"), picture = $("picture"), video = $("video"), frame = $("frame");

let page = null;       // what the server says once: joints, bones, colours, systems, samples
let current = null;    // {file, name, url, kind: "picture" | "clip" | "webcam"}
let answer = null;     // the document of /api/predict
let shown = 0;         // which of a clip's frames is drawn
let marked = null;     // the joint under the pointer, {hand, joint}
let box = null;        // while it is being drawn: x, y, w, h
let person = null;     // a subject document
let views = [];        // the turning hands
let request = null;    // AbortController of what is asked right now
let live = null;       // the webcam's stream

/* ---------------------------------------------------------------- asking the server */

async function ask(path, body, signal) {
  let response;
  try {
    response = await fetch(path, { method: "POST", body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: has it been stopped?");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  throw Object.assign(new Error(told.error), { busy: response.status === 503 });
}

function settings() {
  const form = new FormData(), value = name => options.elements[name].value.trim();
  const four = name => [0, 1, 2, 3].map(i => value(name + i));
  for (const name of ["model", "side", "depth_scale", "hands"]) if (value(name)) form.set(name, value(name));
  for (const name of ["box", "camera"]) {
    const numbers = four(name);
    if (numbers.every(Boolean)) form.set(name, numbers.join(","));
    else if (numbers.some(Boolean)) throw new Error(`The ${name} needs all four of its numbers.`);
  }
  const usesPerson = person && $("person-use").checked;
  if (usesPerson) form.set("subject", JSON.stringify(person));
  if (options.elements.mesh.checked || usesPerson) form.set("mesh", "true");
  return form;
}

async function predict() {
  if (!current || current.kind === "webcam") return;
  const large = current.file.size > page.limits.upload_bytes;
  request?.abort();
  request = new AbortController();
  const mine = request;
  $("busy").hidden = false;
  say("status", current.kind === "clip" ? "Looking at the clip; this takes some seconds…" : "Looking for hands…");
  try {
    if (large) throw new Error(`${current.name}: larger than ${page.limits.upload_bytes / 1e6} MB; send less at once`);
    const form = settings();
    form.set("preview", "true");
    form.set("file", current.file, current.name);
    const began = performance.now();
    const found = await (await ask("/api/predict", form, mine.signal)).json();
    if (mine !== request) return;
    take(found, performance.now() - began);
  } catch (error) {
    if (error.name === "AbortError") return;
    take(null);
    say("status", error.message, true);
  } finally {
    if (mine === request) $("busy").hidden = true;
  }
}

/* ---------------------------------------------------------------- what is shown */

function say(id, text, bad = false) {
  $(id).textContent = text;
  $(id).classList.toggle("bad", bad);
}

function list(id, lines) {
  $(id).replaceChildren(...lines.map(line => Object.assign(document.createElement("li"), { textContent: line })));
}

function hands() {
  return answer?.images[shown]?.hands ?? [];
}

function size() {
  if (answer?.images[shown]?.size_px) return answer.images[shown].size_px;
  if (current?.kind === "clip" || current?.kind === "webcam") return [video.videoWidth, video.videoHeight];
  return picture.naturalWidth ? [picture.naturalWidth, picture.naturalHeight] : null;
}

function take(found, milliseconds) {
  answer = found;
  shown = 0;
  list("notes", found?.notes ?? []);
  if (found) {
    if (found.preview) showPicture(found.preview);
    const count = found.images.filter(image => image.hands.length).length, all = found.images.length;
    const what = all > 1 ? `Hands in ${count} of ${all} frames`
      : hands().length ? hands().map(h => `${cap(h.side)} hand, ${percent(h.score)} sure`).join("; ")
        : "No hand found. A box around it, or another system, may help";
    say("status", `${what} · ${found.model} · ${Math.round(milliseconds)} ms`);
  }
  results();
  redraw();
}

function showPicture(url) {
  picture.src = url;
  picture.onload = () => { layout(); redraw(); };
  picture.onerror = () => { picture.hidden = true; };  // depth files: the server sends a picture of them
}

function layout() {
  const pixels = size();
  if (!pixels || !pixels[0]) return;
  const wide = $("stage").clientWidth, high = Math.max(240, 0.68 * window.innerHeight);
  frame.style.width = `${Math.min(wide, high * pixels[0] / pixels[1])}px`;
  picture.classList.toggle("small", pixels[0] < 500);
}

function redraw() {
  const found = hands(), byConfidence = coloring();
  drawHands(overlay, found, size(), page, { byConfidence, box: box ?? typedBox(), marked });
  overlay.setAttribute("aria-label", !current ? "No picture yet" : found.length
    ? `${found.length === 1 ? "One hand" : `${found.length} hands`} drawn over ${current.name}` : `No hand drawn over ${current.name}`);
}

function coloring() {
  return document.querySelector("[name=coloring]:checked").value === "confidence";
}

function typedBox() {
  const numbers = [0, 1, 2, 3].map(i => parseFloat(options.elements["box" + i].value));
  return numbers.every(Number.isFinite) ? numbers : null;
}

const cap = text => text[0].toUpperCase() + text.slice(1);
const percent = value => `${Math.round(100 * value)} %`;

function results() {
  const found = hands();
  $("nothing").hidden = found.length > 0;
  $("nothing").textContent = answer ? "No hand in this picture."
    : "What is found will stand here: the hand to turn, each joint and how sure it is.";
  const same = views.length === found.length && found.every((hand, i) => views[i].fits(hand));
  if (same) {
    found.forEach((hand, i) => views[i].set(hand));
  } else {
    views = [];
    $("hands").replaceChildren(...found.map(article));
    // Shown once they are in the page and have a size.
    views.forEach((view, i) => view.set(found[i]));
  }
  downloads();
}

function article(hand, number) {
  const made = document.createElement("article");
  made.className = "hand";
  made.innerHTML = `<h3></h3>
    <canvas tabindex="0" role="img"></canvas>
    <p class="hint"></p>
    <div class="wide" tabindex="0" role="region"><table>
      <caption class="hidden"></caption>
      <thead><tr><th scope="col">Joint</th><th scope="col">Confidence</th><th scope="col">u, v (px)</th>
      <th scope="col" class="threed"></th></tr></thead><tbody></tbody></table></div>`;
  const canvas = made.querySelector("canvas"), body = made.querySelector("tbody");
  const rows = page.joint_names.map((name, joint) => {
    const row = body.insertRow();
    row.innerHTML = `<th scope="row"><span class="dot"></span></th><td><span class="bar" aria-hidden="true"><i></i></span><span></span></td><td></td><td></td>`;
    row.cells[0].append(name.replace("_", " "));
    row.addEventListener("pointerenter", () => { marked = { hand: number, joint }; redraw(); });
    row.addEventListener("pointerleave", () => { marked = null; redraw(); });
    return row;
  });
  const has3d = Boolean(hand.joints_mm);
  let turning = null;
  function set(next) {
    const scene = sceneOf(next, page, coloring());
    made.querySelector("h3").textContent = `${cap(next.side)} hand · ${percent(next.score)} sure`;
    made.querySelector("caption").textContent = `Joints of the ${next.side} hand`;
    made.querySelector(".wide").setAttribute("aria-label", `Joints of the ${next.side} hand and how sure each is`);
    const unit = scene?.unit === "hand lengths" ? "hand lengths" : "mm";
    made.querySelector(".threed").textContent = has3d ? `x, y, z (${unit})` : "";
    canvas.hidden = !scene;
    made.querySelector(".hint").textContent = scene
      ? `Drag to turn, or arrow keys; + and − for size. ${cap(next.frame)}.`
      : "This system answers in the picture only: there is nothing to turn.";
    if (scene) {
      canvas.setAttribute("aria-label", `3D ${scene.mesh ? "mesh" : "skeleton"} of the ${next.side} hand; drag or use the arrow keys to turn it`);
      if (turning) turning.set(scene);
      else turning = show(canvas, scene);
    }
    const colors = jointColors(next, page, coloring()), digits = unit === "mm" ? 1 : 3;
    rows.forEach((row, joint) => {
      const sure = next.confidence?.[joint];
      row.querySelector(".dot").style.background = colors[joint];
      const bar = row.querySelector(".bar"), fill = bar.firstElementChild;
      bar.hidden = sure === undefined;
      fill.style.width = `${100 * (sure ?? 0)}%`;
      fill.style.background = confidenceColor(sure ?? 0);
      row.cells[1].lastElementChild.textContent = sure === undefined ? "–" : sure.toFixed(2);
      row.cells[2].textContent = next.keypoints_px[joint].map(x => x.toFixed(1)).join(", ");
      row.cells[3].textContent = has3d ? next.joints_mm[joint].map(x => x.toFixed(digits)).join(", ") : "";
    });
  }
  views.push({ set, fits: other => Boolean(other.joints_mm) === has3d && document.contains(made) });
  return made;
}

/* ---------------------------------------------------------------- pictures and clips */

function open(file, name = file.name || "picture") {
  if (live) stopWebcam();
  if (current?.url) URL.revokeObjectURL(current.url);
  const clip = file.type.startsWith("video/") || /\.(mp4|mov|m4v|webm|mkv|avi)$/i.test(name);
  current = { file, name, kind: clip ? "clip" : "picture", url: URL.createObjectURL(file) };
  answer = null;
  marked = null;
  $("stage").classList.remove("empty");
  frame.classList.remove("mirrored");
  picture.hidden = clip;
  video.hidden = !clip;
  picture.alt = clip ? "" : name;
  video.controls = clip;
  video.srcObject = null;
  if (clip) {
    picture.removeAttribute("src");
    video.src = current.url;
  } else {
    video.removeAttribute("src");
    showPicture(current.url);
  }
  results();
  redraw();
  predict();
}

function nearestFrame() {
  if (current?.kind !== "clip" || !answer?.times_s) return;
  const times = answer.times_s;
  let best = 0;
  for (let i = 1; i < times.length; i++) {
    if (Math.abs(times[i] - video.currentTime) < Math.abs(times[best] - video.currentTime)) best = i;
  }
  if (best === shown) return;
  shown = best;
  results();
  redraw();
}

function followClip() {
  nearestFrame();
  if (!video.paused) requestAnimationFrame(followClip);
}

/* ---------------------------------------------------------------- webcam */

async function startWebcam() {
  if (!navigator.mediaDevices?.getUserMedia) {
    say("status", "A webcam is only given to pages of this machine (http://localhost) or with HTTPS; choose a file instead.", true);
    return;
  }
  try {
    live = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, facingMode: "user" }, audio: false });
  } catch (error) {
    say("status", `The webcam cannot be used (${error.message || error.name}).`, true);
    return;
  }
  request?.abort();
  $("busy").hidden = true;
  if (current?.url) URL.revokeObjectURL(current.url);
  current = { kind: "webcam", name: "the webcam's picture", file: null };
  answer = null;
  $("webcam").setAttribute("aria-pressed", "true");
  $("webcam").textContent = "Stop the webcam";
  $("stage").classList.remove("empty");
  picture.hidden = true;
  video.hidden = false;
  video.controls = false;
  video.removeAttribute("src");
  video.srcObject = live;
  frame.classList.add("mirrored");
  await video.play();
  layout();
  const still = document.createElement("canvas");
  while (live) {
    const began = performance.now();
    await look(still);
    // At most five a second: the hand follows, and other programs keep a share of the processor.
    await new Promise(done => setTimeout(done, Math.max(30, 200 - (performance.now() - began))));
  }
}

async function look(still) {
  const shrink = Math.min(1, 640 / video.videoWidth);
  still.width = Math.round(shrink * video.videoWidth);
  still.height = Math.round(shrink * video.videoHeight);
  if (!still.width) return;
  still.getContext("2d").drawImage(video, 0, 0, still.width, still.height);
  const file = await new Promise(done => still.toBlob(done, "image/jpeg", 0.85));
  try {
    const form = settings(), began = performance.now();
    if (!form.has("model")) form.set("model", page.defaults.photo);
    form.delete("box");
    form.set("file", file, "webcam.jpg");
    const found = await (await ask("/api/predict", form)).json();
    if (!live) return;
    current.file = file;
    take(found, performance.now() - began);
  } catch (error) {
    say("status", error.message, true);
    await new Promise(done => setTimeout(done, error.busy ? 1500 : 800));
  }
}

function stopWebcam() {
  live?.getTracks().forEach(track => track.stop());
  live = null;
  $("webcam").setAttribute("aria-pressed", "false");
  $("webcam").textContent = "Use the webcam";
}

/* ---------------------------------------------------------------- saving */

const FORMATS = {
  json: "JSON", coco: "COCO", parquet: "Parquet", obj: "OBJ mesh", ply: "PLY mesh", glb: "GLB mesh", png: "Picture (PNG)",
};

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function download(format) {
  const form = new FormData();
  form.set("predictions", new Blob([JSON.stringify({ ...answer, preview: undefined })]), "predictions.json");
  form.set("format", format);
  const scale = options.elements.depth_scale.value.trim();
  if (format === "png") form.set("file", current.file, current.name);
  if (format === "png" && scale) form.set("depth_scale", scale);
  try {
    const response = await ask("/api/convert", form);
    const name = /filename="([^"]+)"/.exec(response.headers.get("content-disposition"));
    save(await response.blob(), name ? name[1] : `hands.${format}`);
    say("download-status", `Saved ${name ? name[1] : format}.`);
  } catch (error) {
    say("download-status", error.message, true);
  }
}

function downloads() {
  $("downloads").hidden = !answer;
  if (!answer) return;
  const metric = hands().some(hand => sceneOf(hand, page)?.unit === "mm"), several = answer.images.length > 1;
  for (const button of $("download-buttons").children) {
    const mesh = ["obj", "ply", "glb"].includes(button.value);
    button.disabled = (mesh && (!metric || several)) || (button.value === "png" && several);
    button.title = !button.disabled ? "" : several ? "For single pictures" : "Needs joints in millimetres, which this answer has not";
  }
}

/* ---------------------------------------------------------------- whose hand it is */

async function personalize(files) {
  const form = settings();
  for (const name of ["box", "hands", "subject", "mesh"]) form.delete(name);
  for (const file of files) form.append("files", file, file.name);
  say("person-status", `Looking at ${files.length} picture${files.length > 1 ? "s" : ""}…`);
  list("person-problems", []);
  try {
    if (files.length > page.limits.personal_images) throw new Error(`At most ${page.limits.personal_images} pictures at once.`);
    const told = await (await ask("/api/personalize", form)).json();
    list("person-problems", told.problems);
    takePerson(told.subject, `From ${told.subject.n} of ${files.length} picture${files.length > 1 ? "s" : ""}.`);
  } catch (error) {
    say("person-status", error.message, true);
  }
}

function takePerson(subject, text) {
  person = subject;
  const spread = sd => (sd ? ` ± ${sd.toFixed(1)}` : "");
  const rows = [
    ["Length", `${subject.hand_length_mm.toFixed(1)}${spread(subject.hand_length_sd_mm)} mm, wrist to middle fingertip`],
    ["Width", `${subject.hand_width_mm.toFixed(1)}${spread(subject.hand_width_sd_mm)} mm, index to ring knuckle`],
    ["Measured by", subject.model],
  ];
  $("person-numbers").replaceChildren(...rows.flatMap(([term, words]) => [
    Object.assign(document.createElement("dt"), { textContent: term }),
    Object.assign(document.createElement("dd"), { textContent: words }),
  ]));
  $("person-result").hidden = false;
  $("person-use").checked = true;
  say("person-status", text);
  usePerson();
}

function usePerson() {
  const used = person && $("person-use").checked;
  $("person-said").textContent = used ? `${person.hand_length_mm.toFixed(0)} mm long, in use` : "";
  predict();
}

async function openPerson(file) {
  try {
    const subject = JSON.parse(await file.text());
    if (subject?.format !== "handgraph subject" || !Number.isFinite(subject.hand_length_mm)) throw new Error();
    takePerson(subject, `Opened ${file.name}.`);
  } catch {
    say("person-status", `${file.name}: not a subject file, as “Save subject.json” or \`handgraph personalize\` writes one.`, true);
  }
}

/* ---------------------------------------------------------------- settings */

function settingsSaid() {
  const value = name => options.elements[name].value.trim(), parts = [];
  if (value("model")) parts.push(value("model"));
  if (value("side")) parts.push(value("side"));
  if (value("box0")) parts.push("box");
  if (value("camera0")) parts.push("camera");
  if (value("depth_scale")) parts.push(`${value("depth_scale")} mm a unit`);
  if (value("hands")) parts.push(`${value("hands")} hand${value("hands") === "1" ? "" : "s"} at most`);
  if (options.elements.mesh.checked) parts.push("mesh");
  $("settings-said").textContent = parts.join(", ");
}

function setFour(name, numbers) {
  numbers.forEach((number, i) => { options.elements[name + i].value = number; });
  settingsSaid();
}

function drawingBox(on) {
  $("draw-box").setAttribute("aria-pressed", String(on));
  overlay.classList.toggle("drawing", on);
  if (on) say("status", "Drag over the picture from one corner of the hand to the other.");
}

function pixelAt(event) {
  const place = overlay.getBoundingClientRect(), pixels = size();
  return [(event.clientX - place.left) / place.width * pixels[0], (event.clientY - place.top) / place.height * pixels[1]]
    .map((value, k) => Math.min(pixels[k], Math.max(0, value)));
}

function wireBox() {
  let corner = null;
  overlay.addEventListener("pointerdown", event => {
    corner = pixelAt(event);
    overlay.setPointerCapture(event.pointerId);
  });
  overlay.addEventListener("pointermove", event => {
    if (!corner) return;
    const [x, y] = pixelAt(event);
    box = [Math.min(x, corner[0]), Math.min(y, corner[1]), Math.abs(x - corner[0]), Math.abs(y - corner[1])];
    redraw();
  });
  overlay.addEventListener("pointerup", () => {
    corner = null;
    drawingBox(false);
    if (box && box[2] > 3 && box[3] > 3) {
      setFour("box", box.map(value => Math.round(value)));
      predict();
    }
    box = null;
    redraw();
  });
}

/* ---------------------------------------------------------------- the start */

async function sample(one) {
  const file = await (await fetch(`/samples/${one.name}`)).blob();
  setFour("camera", one.camera ?? ["", "", "", ""]);
  setFour("box", ["", "", "", ""]);
  open(new File([file], one.name, { type: file.type }));
}

function wire() {
  $("file").addEventListener("change", event => {
    if (event.target.files[0]) open(event.target.files[0]);
    event.target.value = "";
  });
  const stage = $("stage");
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, event => { event.preventDefault(); stage.classList.add("over"); });
  }
  document.addEventListener("dragleave", event => { if (!event.relatedTarget) stage.classList.remove("over"); });
  document.addEventListener("drop", event => {
    event.preventDefault();
    stage.classList.remove("over");
    if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", event => {
    if (event.clipboardData.files[0]) open(event.clipboardData.files[0]);
  });
  $("webcam").addEventListener("click", () => (live ? stopWebcam() : startWebcam()));
  $("coloring").addEventListener("change", () => { results(); redraw(); });
  let later = null;
  options.addEventListener("input", event => {
    settingsSaid();
    clearTimeout(later);
    later = setTimeout(predict, event.target.matches("[inputmode]") ? 700 : 0);
  });
  options.addEventListener("submit", event => { event.preventDefault(); predict(); });
  $("draw-box").addEventListener("click", () => {
    if (!current || current.kind !== "picture") say("status", "Choose a picture first.", true);
    else drawingBox($("draw-box").getAttribute("aria-pressed") !== "true");
  });
  $("clear-box").addEventListener("click", () => { setFour("box", ["", "", "", ""]); predict(); redraw(); });
  wireBox();
  $("person-files").addEventListener("change", event => {
    if (event.target.files.length) personalize([...event.target.files]);
    event.target.value = "";
  });
  $("person-open").addEventListener("change", event => {
    if (event.target.files[0]) openPerson(event.target.files[0]);
    event.target.value = "";
  });
  $("person-use").addEventListener("change", usePerson);
  $("person-save").addEventListener("click", () => {
    save(new Blob([JSON.stringify(person, null, 1)], { type: "application/json" }), "subject.json");
  });
  for (const [format, name] of Object.entries(FORMATS)) {
    if (!page.formats.includes(format)) continue;
    const button = Object.assign(document.createElement("button"), { type: "button", value: format, textContent: name });
    button.addEventListener("click", () => download(format));
    $("download-buttons").append(button);
  }
  for (const event of ["seeked", "timeupdate"]) video.addEventListener(event, nearestFrame);
  video.addEventListener("play", followClip);
  video.addEventListener("loadedmetadata", () => { layout(); redraw(); });
  window.addEventListener("resize", () => { layout(); redraw(); });
  new ResizeObserver(() => { layout(); redraw(); }).observe($("stage"));
}

function fill() {
  const select = options.elements.model;
  for (const system of page.systems) {
    select.add(new Option(`${system.name} (${system.input === "depth" ? "depth frames" : "photographs"})`, system.name));
  }
  $("samples").hidden = !page.samples.length;
  $("samples").querySelector("ul").append(...page.samples.map(one => {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Sample ${one.input === "depth" ? "depth frame" : "photograph"} ${one.name}`);
    const image = Object.assign(document.createElement("img"), { src: `/samples/${one.thumbnail}`, alt: "", loading: "lazy" });
    button.append(image);
    button.addEventListener("click", () => sample(one));
    item.append(button);
    return item;
  }));
}

try {
  page = await (await fetch("/api/page")).json();
  fill();
  wire();
  document.body.dataset.ready = "true";
} catch (error) {
  say("status", `The page cannot start (${error.message}).`, true);
}
