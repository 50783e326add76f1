// Skeletons over a picture, on a canvas that lies above it.

const LOW = [213, 94, 0], MIDDLE = [240, 228, 66], HIGH = [0, 158, 115];  // apart for colour-blind readers

/** The colour of a confidence in [0, 1]: red-orange, yellow, green. */
export function confidenceColor(value) {
  const [from, to, part] = value < 0.6 ? [LOW, MIDDLE, value / 0.6] : [MIDDLE, HIGH, (value - 0.6) / 0.4];
  return `rgb(${from.map((c, i) => Math.round(c + (to[i] - c) * part)).join(" ")})`;
}

/** A colour for each of a hand's joints, by finger or by confidence. */
export function jointColors(hand, page, byConfidence) {
  if (!byConfidence || !hand.confidence) return page.colors;
  return hand.confidence.map(confidenceColor);
}

/**
 * Draw hands over a picture of `size` [w, h] pixels that fills the canvas; `box` is x, y, w, h or null,
 * `marked` {hand, joint} is shown larger.
 */
export function drawHands(canvas, hands, size, page, { byConfidence = false, box = null, marked = null } = {}) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (!size || !width) return;
  const scale = width / size[0];
  const at = ([u, v]) => [(u + 0.5) * scale, (v + 0.5) * scale];  // a pixel's centre is at whole numbers
  hands.forEach((hand, number) => {
    const colors = jointColors(hand, page, byConfidence), points = hand.keypoints_px.map(at);
    const span = Math.hypot(...[0, 1].map(k => Math.max(...points.map(p => p[k])) - Math.min(...points.map(p => p[k]))));
    const thick = Math.min(6, Math.max(1.6, span / 75));
    const far = hand.joints_mm ? hand.joints_mm.map(p => p[2]) : points.map(() => 0);
    const bones = page.bones.slice().sort((p, q) => far[q[0]] + far[q[1]] - far[p[0]] - far[p[1]]);
    context.lineCap = "round";
    for (const [extra, dark] of [[2.5, true], [0, false]]) {
      for (const [a, b] of bones) {
        context.strokeStyle = dark ? "rgb(0 0 0 / .75)" : colors[b];
        context.lineWidth = thick + extra;
        context.beginPath();
        context.moveTo(...points[a]);
        context.lineTo(...points[b]);
        context.stroke();
      }
    }
    const order = points.map((_, joint) => joint).sort((a, b) => far[b] - far[a]);
    for (const joint of order) {
      const large = marked && marked.hand === number && marked.joint === joint;
      const unsure = hand.confidence && hand.confidence[joint] < page.unsure;
      context.beginPath();
      context.arc(...points[joint], (large ? 2.4 : 1) * (thick + 0.6), 0, 2 * Math.PI);
      context.fillStyle = unsure ? "rgb(0 0 0 / .8)" : colors[joint];
      context.strokeStyle = unsure ? colors[joint] : "rgb(0 0 0 / .75)";
      context.lineWidth = unsure ? 1.8 : 1.2;
      context.fill();
      context.stroke();
    }
  });
  if (box) {
    const [x, y, w, h] = box.map(value => value * scale);
    for (const [color, dash] of [["#000", []], ["#fff", [6, 5]]]) {
      context.strokeStyle = color;
      context.lineWidth = 2;
      context.setLineDash(dash);
      context.strokeRect(x, y, w, h);
    }
    context.setLineDash([]);
  }
}

/** What `hand3d.js` shows of a hand: joints and mesh about the middle of the joints; null without joints in 3D. */
export function sceneOf(hand, page, byConfidence) {
  if (!hand.joints_mm) return null;
  const middle = [0, 1, 2].map(k => {
    const values = hand.joints_mm.map(p => p[k]);
    return (Math.max(...values) + Math.min(...values)) / 2;
  });
  const about = points => points.map(p => p.map((value, k) => value - middle[k]));
  const known = hand.vertices_mm && hand.vertices_mm.length === page.vertices;
  return {
    joints: about(hand.joints_mm),
    mesh: known ? { vertices: about(hand.vertices_mm), faces: page.faces[hand.side] } : null,
    bones: page.bones,
    colors: jointColors(hand, page, byConfidence),
    unit: hand.frame.startsWith("relative to the wrist, scale unknown") ? "hand lengths" : "mm",
  };
}
