function start() {
  pageData = JSON.parse(document.getElementById("data").textContent);
  const rows = pageData.rows;
  let order = { id: "robust", direction: -1 };
  const refresh = () => {
    const shown = chosen(rows);
    showTable(shown, order);
    showCurves(chosen(rows, "eps"));
    document.getElementById("shown").textContent = `${shown.length} of ${rows.length} rows. † the paper's number lies outside our interval.`;
  };
  const sorted = (id) => {
    const first = COLUMNS.find((column) => column.id === id).number ? -1 : 1;
    order = { id, direction: order.id === id ? -order.direction : first };
    showTable(chosen(rows), order);
  };
  buildHeader(sorted);
  buildFilters(rows, COLUMNS, refresh, sorted);
  for (const [name, summary] of Object.entries(pageData.protocols)) {
    document.getElementById("protocols").append(element("dt", {}, name), element("dd", {}, summary));
  }
  const problems = document.getElementById("problems");
  problems.hidden = pageData.problems.length === 0;
  problems.querySelector("ul").append(...pageData.problems.map((line) => element("li", {}, line)));
  setUpTheme();
  document.getElementById("close").addEventListener("click", () => document.getElementById("details").close());
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (Math.abs(entry.contentRect.width - width) < 2) return;
    width = entry.contentRect.width;
    showCurves(chosen(rows, "eps"));
  }).observe(document.getElementById("chart"));
  refresh();
}

// The system's choice, until the button is pressed.
function setUpTheme() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.setAttribute("aria-pressed", String(dark()));
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", dark() ? "Switch to light colours" : "Switch to dark colours");
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  show();
}

start();
