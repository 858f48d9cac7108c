// Accuracy against ε of what the filters leave, as inline SVG; values by pointer or arrow keys.
const MOST_SHOWN = 7;
const DASHES = ["", "7 3", "2 2", "7 3 2 3", "12 3", "4 2 1 2 1 2", "1 4"];
const hidden = new Set();
const revealed = new Set();

function makeCurves(rows) {
  const curves = new Map();
  // A name says what the curves differ in.
  const several = {};
  for (const key of ["dataset", "trainSeed", "device"]) several[key] = new Set(rows.map((row) => row[key])).size > 1;
  for (const row of rows) {
    const where = [several.dataset && row.dataset, several.trainSeed && `train seed ${row.trainSeed}`, several.device && row.device];
    const name = [`${row.model}, ${row.protocol}: ${row.attack}`, ...where.filter(Boolean)].join(", ");
    const id = [name, row.dataset, row.trainSeed, row.attackSeed, row.device, row.training].join("|");
    if (!curves.has(id)) curves.set(id, { id, name, row, points: new Map() });
    const points = curves.get(id).points;
    if (!points.has(0)) points.set(0, row.clean);
    // Of several numbers at one radius (the worst case alone, and going on from smaller ones), the one of most images.
    if (!points.has(row.eps) || points.get(row.eps).n <= row.robust.n) points.set(row.eps, row.robust);
  }
  const found = [...curves.values()].sort((a, b) => a.row.control - b.row.control || compare(a.row.model, b.row.model) || compare(a.name, b.name));
  for (const [index, curve] of found.entries()) {
    curve.look = index % 7;
    curve.points = [...curve.points].sort((a, b) => a[0] - b[0]);
    curve.shown = index < MOST_SHOWN ? !hidden.has(curve.id) : revealed.has(curve.id);
  }
  return found;
}

function marker(look, x, y, size) {
  const shapes = [
    `M${x - size} ${y}a${size} ${size} 0 1 0 ${2 * size} 0a${size} ${size} 0 1 0 ${-2 * size} 0`,
    `M${x - size} ${y - size}h${2 * size}v${2 * size}h${-2 * size}z`,
    `M${x} ${y - size}L${x + size} ${y + size}H${x - size}z`,
    `M${x} ${y - 1.3 * size}L${x + 1.3 * size} ${y}L${x} ${y + 1.3 * size}L${x - 1.3 * size} ${y}z`,
    `M${x} ${y + size}L${x + size} ${y - size}H${x - size}z`,
    `M${x - size} ${y - size}L${x + size} ${y + size}M${x + size} ${y - size}L${x - size} ${y + size}`,
    `M${x - 1.2 * size} ${y}H${x + 1.2 * size}M${x} ${y - 1.2 * size}V${y + 1.2 * size}`,
  ];
  return drawn("path", { d: shapes[look], fill: `var(--s${look})`, stroke: `var(--s${look})`, "stroke-width": 1.5 });
}

function showCurves(rows) {
  const curves = makeCurves(rows);
  const note = document.getElementById("curves-note");
  const more = curves.length > MOST_SHOWN ? ` The first ${MOST_SHOWN} of ${curves.length} are drawn: press others to add them, or filter.` : "";
  note.textContent = curves.length ? `Accuracy against ε, at 0 without attack; bars are 95 % Wilson intervals. Point at a curve, or focus it and use the arrow keys.${more}` : "Nothing to draw.";
  const legend = curves.map((curve) => {
    const line = drawn("line", { x1: 1, x2: 33, y1: 7, y2: 7, stroke: `var(--s${curve.look})`, "stroke-width": 2, "stroke-dasharray": DASHES[curve.look] });
    const sample = drawn("svg", { viewBox: "0 0 34 14", "aria-hidden": "true" }, line, marker(curve.look, 17, 7, 4));
    const button = element("button", { type: "button", "aria-pressed": curve.shown }, sample, element("span", {}, curve.name));
    button.addEventListener("click", () => {
      const [adding, taking] = curve.shown ? [hidden, revealed] : [revealed, hidden];
      adding.add(curve.id);
      taking.delete(curve.id);
      showCurves(rows);
      [...document.querySelectorAll("#legend button")].find((b) => b.textContent === button.textContent)?.focus();
    });
    return button;
  });
  document.getElementById("legend").replaceChildren(...legend);
  document.getElementById("tip").textContent = "";
  document.getElementById("chart").replaceChildren(chart(curves.filter((curve) => curve.shown)));
}

function chart(curves) {
  const width = Math.max(300, document.getElementById("chart").clientWidth);
  const height = Math.min(340, Math.max(240, width * 0.45));
  const edge = { left: 44, right: 12, top: 10, bottom: 40 };
  const most = Math.max(8, ...curves.flatMap((curve) => curve.points.map(([eps]) => eps)));
  const x = (eps) => edge.left + (eps / most) * (width - edge.left - edge.right);
  const y = (value) => edge.top + (1 - value / 100) * (height - edge.top - edge.bottom);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, height, tabindex: 0, role: "group", "aria-label": "Security curves; arrow keys move from point to point" });
  for (const value of [0, 20, 40, 60, 80, 100]) {
    svg.append(drawn("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: y(value), y2: y(value) }));
    svg.append(drawn("text", { x: edge.left - 6, y: y(value) + 4, "text-anchor": "end" }, `${value} %`));
  }
  const step = [1, 2, 4, 8, 16, 32, 64].find((candidate) => most / candidate <= 10) || 64;
  for (let eps = 0; eps <= most; eps += step) {
    svg.append(drawn("text", { x: x(eps), y: height - edge.bottom + 18, "text-anchor": "middle" }, String(eps)));
  }
  svg.append(drawn("text", { x: (edge.left + width) / 2, y: height - 4, "text-anchor": "middle" }, "ε in 255ths of the pixel range"));
  const targets = curves.map((curve) => drawCurve(svg, curve, x, y));
  follow(svg, targets);
  return svg;
}

function drawCurve(svg, curve, x, y) {
  const colour = `var(--s${curve.look})`;
  const places = curve.points.map(([eps, share]) => `${x(eps).toFixed(1)} ${y(share.percent).toFixed(1)}`);
  svg.append(drawn("path", { class: "curve", d: `M${places.join("L")}`, stroke: colour, "stroke-dasharray": DASHES[curve.look] }));
  return curve.points.map(([eps, share]) => {
    svg.append(drawn("line", { class: "bar", x1: x(eps), x2: x(eps), y1: y(share.low), y2: y(share.high), stroke: colour }));
    const node = marker(curve.look, x(eps), y(share.percent), 4);
    svg.append(node);
    const text = `${curve.name}, ${eps === 0 ? "no attack" : `ε = ${eps}/255`}: ${spelled(share)}`;
    return { x: x(eps), y: y(share.percent), text, node };
  });
}

// Says the values of the point under the pointer, or of the one that the arrow keys have come to.
function follow(svg, targets) {
  const all = targets.flat();
  let at = [0, -1];
  const activate = (target) => {
    for (const one of all) one.node.classList.toggle("active", one === target);
    document.getElementById("tip").textContent = target ? target.text : "";
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const far = (one) => Math.hypot(one.x - (event.clientX - box.left) * scale, one.y - (event.clientY - box.top) * scale);
    const nearest = all.reduce((best, one) => (best === null || far(one) < far(best) ? one : best), null);
    activate(nearest !== null && far(nearest) < 30 ? nearest : null);
  });
  svg.addEventListener("pointerleave", () => activate(null));
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    const move = moves[event.key];
    if (!move || !targets.length) return;
    event.preventDefault();
    const curve = (at[0] + move[0] + targets.length) % targets.length;
    at = [curve, Math.min(Math.max(at[1] + move[1], 0), targets[curve].length - 1)];
    activate(targets[curve][at[1]]);
  });
}
