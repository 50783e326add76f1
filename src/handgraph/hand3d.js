// A hand to turn on a canvas: skeleton, or mesh with the skeleton in it. No library, no request.
// Part of the page of `handgraph serve`, and written into every report of `handgraph predict --out`.

/**
 * Show a scene on a canvas: drag it, or use the arrow keys, + and - while it has the focus.
 *
 * scene   {joints: [21][3] about their middle, x right, y down, z away; mesh: {vertices, faces} or null;
 *          bones: [[parent, child]]; colors: one for each joint; unit: "mm" or "hand lengths"}
 * Returns {set(scene), angles()}: set shows another hand from the same side.
 */
export function show(canvas, scene) {
  const context = canvas.getContext("2d");
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  let yaw = 0, pitch = 0, zoom = 1, held = null, touched = still, last = 0, reach = 60;
  let joints, mesh, bones, colors, unit;

  function set(next) {
    ({ joints, mesh, bones, colors, unit } = next);
    reach = Math.max(unit === "mm" ? 60 : 0.3, ...joints.map(p => Math.hypot(...p)));
    draw();
  }

  function turned([x, y, z]) {  // about the vertical, then about the horizontal axis
    const x1 = Math.cos(yaw) * x + Math.sin(yaw) * z, z1 = Math.cos(yaw) * z - Math.sin(yaw) * x;
    return [x1, Math.cos(pitch) * y - Math.sin(pitch) * z1, Math.sin(pitch) * y + Math.cos(pitch) * z1];
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.lineCap = "round";
    const scale = pixels();
    const place = point => {
      const [x, y, z] = turned(point), size = scale * 4 * reach / (4 * reach + z);
      return [width / 2 + size * x, height / 2 + size * y, z, size / scale];
    };
    if (mesh) surface(mesh.vertices.map(place), mesh.faces);
    const points = joints.map(place);
    const parts = bones.map(([a, b]) => ({ a, b, z: (points[a][2] + points[b][2]) / 2 }));
    for (let j = 0; j < joints.length; j++) parts.push({ joint: j, z: points[j][2] - reach / 100 });
    parts.sort((p, q) => q.z - p.z);
    for (const part of parts) {
      const far = (part.z + reach) / (2 * reach);
      context.globalAlpha = (mesh ? 0.5 : 1) - (mesh ? 0.25 : 0.45) * Math.min(1, Math.max(0, far));
      if (part.joint === undefined) {
        context.strokeStyle = colors[part.b];
        context.lineWidth = 0.02 * Math.min(width, height);
        context.beginPath();
        context.moveTo(points[part.a][0], points[part.a][1]);
        context.lineTo(points[part.b][0], points[part.b][1]);
        context.stroke();
      } else {
        const [x, y, , size] = points[part.joint];
        context.fillStyle = colors[part.joint];
        context.beginPath();
        context.arc(x, y, 0.017 * Math.min(width, height) * size, 0, 2 * Math.PI);
        context.fill();
      }
    }
    context.globalAlpha = 1;
    axes(height);
    ruler(width, height, scale);
  }

  function surface(points, faces) {  // triangles that face us, the farthest first, lit from where we stand
    const seen = [], scale = pixels();
    for (const [a, b, c] of faces) {
      const [p, q, r] = [points[a], points[b], points[c]];
      if ((q[0] - p[0]) * (r[1] - p[1]) - (r[0] - p[0]) * (q[1] - p[1]) < 0) seen.push([p, q, r]);
    }
    seen.sort((s, t) => t[0][2] + t[1][2] + t[2][2] - s[0][2] - s[1][2] - s[2][2]);
    context.globalAlpha = 1;
    context.lineWidth = 1;
    context.lineJoin = "round";
    for (const [p, q, r] of seen) {
      const x1 = q[0] - p[0], y1 = q[1] - p[1], x2 = r[0] - p[0], y2 = r[1] - p[1];
      const z1 = (q[2] - p[2]) * scale, z2 = (r[2] - p[2]) * scale;
      const n = [y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2];
      const length = Math.hypot(...n) || 1;
      const facing = Math.max(0, -n[2] / length);
      const above = Math.max(0, -(0.3 * n[0] + 0.6 * n[1] + 0.74 * n[2]) / length);
      const light = 0.2 + 0.45 * facing + 0.4 * above;
      context.fillStyle = context.strokeStyle = `rgb(${224 * light}, ${184 * light}, ${160 * light})`;
      context.beginPath();
      context.moveTo(p[0], p[1]);
      context.lineTo(q[0], q[1]);
      context.lineTo(r[0], r[1]);
      context.closePath();
      context.fill();
      context.stroke();  // covers the hairlines between neighbours
    }
  }

  function pixels() {  // to a unit of the joints
    return zoom * 0.44 * Math.min(canvas.clientWidth, canvas.clientHeight) / reach;
  }

  function axes(height) {
    const hues = ["#e5484d", "#30a46c", "#3b82f6"], at = [40, height - 40];
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]].forEach((axis, index) => {
      const [x, y] = turned(axis);
      context.strokeStyle = context.fillStyle = hues[index];
      context.lineWidth = 2;
      context.beginPath();
      context.moveTo(...at);
      context.lineTo(at[0] + 24 * x, at[1] + 24 * y);
      context.stroke();
      context.font = "12px system-ui, sans-serif";
      context.textAlign = "center";
      context.fillText("xyz"[index], at[0] + 33 * x, at[1] + 33 * y + 4);
    });
  }

  function ruler(width, height, scale) {
    const [length, text] = unit === "mm" ? [50, "50 mm"] : [0.25, "¼ hand length"];
    context.strokeStyle = context.fillStyle = getComputedStyle(canvas).color;
    context.lineWidth = 2;
    context.beginPath();
    context.moveTo(width - 14 - length * scale, height - 14);
    context.lineTo(width - 14, height - 14);
    context.stroke();
    context.font = "12px system-ui, sans-serif";
    context.textAlign = "right";
    context.fillText(text, width - 14, height - 20);
  }

  function sway(time) {  // until somebody takes hold of it, or the canvas is gone
    if (touched || !canvas.isConnected) return;
    if (time - last > 30) {
      yaw = 0.7 * Math.sin(time / 1600);
      last = time;
      draw();
    }
    requestAnimationFrame(sway);
  }

  canvas.addEventListener("pointerdown", event => {
    touched = true;
    held = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    if (!held) return;
    yaw -= (event.clientX - held[0]) / 120;
    pitch += (event.clientY - held[1]) / 120;
    held = [event.clientX, event.clientY];
    draw();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { held = null; });
  canvas.addEventListener("keydown", event => {
    const steps = { ArrowLeft: [0.15, 0], ArrowRight: [-0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
    const step = steps[event.key], closer = { "+": 1.15, "=": 1.15, "-": 1 / 1.15 }[event.key];
    if (!step && !closer) return;
    event.preventDefault();
    touched = true;
    if (step) {
      yaw += step[0];
      pitch += step[1];
    } else {
      zoom = Math.min(4, Math.max(0.4, zoom * closer));
    }
    draw();
  });
  new ResizeObserver(draw).observe(canvas);
  set(scene);
  if (!touched) requestAnimationFrame(sway);
  return { set, angles: () => [yaw, pitch, zoom] };
}
