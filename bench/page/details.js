let pageData = null;

function showDetails(row) {
  const title = `${row.model} on ${row.dataset}: ${row.attack}, ε = ${row.epsText}`;
  document.getElementById("details-title").textContent = title;
  const body = document.getElementById("details-body");
  body.replaceChildren(facts(row), ...verdict(row), element("h3", {}, "Cells behind this row"), cellBlock("robust accuracy", row.cell));
  for (const one of row.behind) body.append(cellBlock(one.what, one.cell));
  document.getElementById("details").showModal();
}

function facts(row) {
  const lines = [
    `Robust accuracy ${spelled(row.robust)}; clean ${spelled(row.clean)}.`,
    `Protocol ${row.protocol}, attack seed ${row.attackSeed}, device ${row.device}${row.how && `, ${row.how}`}; recipe ${row.recipe}, ${row.training}.`,
  ];
  if (row.worst !== null) {
    const made = row.behind.filter((one) => one.what.startsWith("worst case")).length;
    lines.push(`Worst case ${spelled(row.worst)}: what all ${made} cells listed below leave, of attacks on pixels at this radius or a smaller one.`);
  } else if (!row.control) {
    lines.push("Worst case not evaluated: neither AutoAttack nor the adaptive attack was run unreduced at this radius.");
  }
  if (row.paper !== null) {
    const clean = row.paperClean === null ? "" : `, and ${row.paperClean.toFixed(2)} % without attack`;
    const where = outside(row) ? "outside" : "inside";
    lines.push(`The paper printed ${row.paper.toFixed(2)} %${clean}: ${signed(row.difference)} points, ${where} our interval.`);
  }
  if (row.control) lines.push("A control: normalised tensors were attacked. No measure of robustness.");
  return element("div", {}, ...lines.map((line) => element("p", {}, line)));
}

function verdict(row) {
  const head = element("h3", {}, "Verdict and its evidence");
  if (row.verdict === null) return [head, element("p", { class: "absent" }, "Not evaluated: the store holds no diagnostics of this very cell.")];
  const items = row.verdict.results.map((result) => {
    const level = element("span", { class: "level" }, `${result.verdict} `);
    if (["OK", "WARN", "FAIL"].includes(result.verdict)) level.classList.add(result.verdict);
    const value = typeof result.value === "number" ? ` Value ${result.value.toPrecision(3)}, n = ${result.n}.` : "";
    const span = Array.isArray(result.interval) ? ` 95 % interval [${result.interval.map((x) => Number(x).toPrecision(3)).join(", ")}].` : "";
    return element("li", {}, level, element("b", {}, String(result.name)), `: ${result.sentence}${value}${span}`);
  });
  const gravest = row.verdict.level === null ? "" : ` Gravest verdict: ${row.verdict.level}.`;
  const summary = `On the first n = ${row.verdict.n} test images: ${row.verdict.sentence}${gravest} Evidence, not a certificate.`;
  return [head, element("p", {}, summary), element("ul", {}, ...items)];
}

function cellBlock(what, index) {
  const cell = pageData.cells[index];
  const json = (content) => element("pre", { tabindex: "0" }, JSON.stringify(whole(content, pageData.shared), null, 1));
  return element(
    "details", {}, element("summary", {}, `${what}: ${cell.folder}`),
    element("h4", {}, "manifest.json"), json(cell.manifest), element("h4", {}, "key.json"), json(cell.key),
  );
}
