const absent = (text) => element("span", { class: "absent" }, text);

function shareCell(share) {
  return share === null ? [absent("not evaluated")] : [percent(share), element("small", {}, interval(share)), element("small", {}, `n = ${share.n}`)];
}

// Each column: how it sorts, and what stands in it.
const COLUMNS = [
  { id: "model", name: "Model", key: (r) => r.model, cell: (r) => [r.model, element("small", {}, r.training)] },
  { id: "dataset", name: "Data set", key: (r) => r.dataset, cell: (r) => [r.dataset] },
  { id: "recipe", name: "Recipe", key: (r) => r.recipe, cell: (r) => [r.recipe] },
  { id: "protocol", name: "Protocol", key: (r) => r.protocol, cell: (r) => [r.protocol] },
  { id: "attack", name: "Attack", key: (r) => r.attack,
    cell: (r) => [r.attack.replace(/[[,]/g, "$&\u200b"), r.how === "" ? null : element("small", {}, r.how)] },
  { id: "eps", name: "ε", number: true, key: (r) => r.eps, cell: (r) => [r.epsText] },
  { id: "clean", name: "Clean", number: true, key: (r) => r.clean.percent, cell: (r) => shareCell(r.clean) },
  { id: "robust", name: "Robust", number: true, key: (r) => r.robust.percent, cell: (r) => shareCell(r.robust) },
  { id: "paper", name: "Paper", number: true, key: (r) => r.paper,
    cell: (r) => (r.paper === null ? [absent("—")] : [r.paper.toFixed(2)]) },
  { id: "difference", name: "Δ", number: true, key: (r) => r.difference,
    cell: (r) => (r.difference === null ? [absent("—")] : [signed(r.difference) + (outside(r) ? " †" : "")]) },
  { id: "worst", name: "Worst case", number: true, key: (r) => r.worst && r.worst.percent, cell: (r) => shareCell(r.worst) },
  { id: "certified", name: "Certified", number: true, key: (r) => r.certified && r.certified.percent,
    cell: (r) => shareCell(r.certified) },
  { id: "verdict", name: "Verdict", key: (r) => r.verdict && r.verdict.name, cell: verdictCell },
];

// Part of the suite has no level: it cannot tell that nothing fails.
function verdictText(verdict) {
  if (verdict === null) return "not evaluated";
  return verdict.level === null ? verdict.name : `${verdict.name} (${verdict.level})`;
}

function verdictCell(row) {
  const text = verdictText(row.verdict);
  const diagnosed = row.verdict === null ? "" : `, n = ${row.verdict.n}`;
  const name = `Evidence and manifest of ${row.model}, ${row.attack}, ${row.epsText}: ${text}${diagnosed}`;
  const images = row.verdict && element("small", {}, `n = ${row.verdict.n}`);
  const more = [images, element("small", {}, "details")];
  const button = element("button", { type: "button", "aria-label": name, "aria-haspopup": "dialog" }, text, ...more);
  if (row.verdict !== null && row.verdict.level !== null) button.classList.add("level", row.verdict.level);
  button.addEventListener("click", () => showDetails(row));
  return [button];
}

function buildHeader(sorted) {
  const cells = COLUMNS.map((column) => {
    const button = element("button", { type: "button" }, column.name);
    button.addEventListener("click", () => sorted(column.id));
    return element("th", { scope: "col", id: `column-${column.id}`, class: column.number ? "number" : null }, button);
  });
  document.querySelector("#table thead").append(element("tr", {}, ...cells));
}

function showTable(rows, order) {
  const column = COLUMNS.find((candidate) => candidate.id === order.id);
  // Controls are no measure of robustness: whatever the order, they come behind what is.
  const sorted = [...rows].sort((a, b) => a.control - b.control || compare(column.key(a), column.key(b), order.direction));
  const lines = sorted.map((row) => {
    const cells = COLUMNS.map((c) => {
      const kind = [c.id, c.number ? "number" : ""].join(" ").trim();
      return element("td", { class: kind, "data-label": c.name }, ...c.cell(row));
    });
    return element("tr", { class: row.control ? "control" : null }, ...cells);
  });
  document.querySelector("#table tbody").replaceChildren(...lines);
  for (const c of COLUMNS) {
    const direction = c.id !== order.id ? "none" : order.direction > 0 ? "ascending" : "descending";
    document.getElementById(`column-${c.id}`).setAttribute("aria-sort", direction);
  }
  document.getElementById("sort").value = order.id;
}
