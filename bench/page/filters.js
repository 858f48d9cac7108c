// What is shown: one choice for each of these, and words that the row must hold.
const FILTERS = [
  { id: "dataset", name: "Data set", of: (row) => row.dataset },
  { id: "protocol", name: "Protocol", of: (row) => row.protocol },
  { id: "attack", name: "Attack", of: (row) => row.attack },
  { id: "eps", name: "ε", of: (row) => row.epsText, order: (row) => row.eps },
  { id: "recipe", name: "Recipe", of: (row) => row.recipe },
];

function buildFilters(rows, columns, changed, sorted) {
  const form = document.getElementById("filters");
  for (const filter of FILTERS) {
    const order = new Map(rows.map((row) => [filter.of(row), (filter.order || filter.of)(row)]));
    const values = [...order.keys()].sort((a, b) => compare(order.get(a), order.get(b)));
    const options = values.map((value) => element("option", { value }, value));
    const select = element("select", { id: `filter-${filter.id}` }, element("option", { value: "" }, "all"), ...options);
    select.addEventListener("change", changed);
    form.append(element("label", {}, filter.name, select));
  }
  const words = element("input", { id: "filter-words", type: "search", placeholder: "e.g. lyadeq" });
  words.addEventListener("input", changed);
  form.append(element("label", {}, "Model", words));
  const choices = columns.map((column) => element("option", { value: column.id }, column.name));
  const order = element("select", { id: "sort" }, ...choices);
  order.addEventListener("change", () => sorted(order.value));
  form.append(element("label", { class: "phone" }, "Sort by", order));
  form.addEventListener("submit", (event) => event.preventDefault());
}

function chosen(rows, without = "") {
  const words = document.getElementById("filter-words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = FILTERS.filter((filter) => filter.id !== without)
    .map((filter) => [filter, document.getElementById(`filter-${filter.id}`).value])
    .filter(([, value]) => value !== "");
  return rows.filter(
    (row) =>
      wanted.every(([filter, value]) => filter.of(row) === value) &&
      words.every((word) => row.model.toLowerCase().includes(word)),
  );
}

// Numbers as numbers, text as text; what is absent comes last whichever way it goes.
function compare(a, b, direction = 1) {
  if (a === null || b === null) return (a === null) - (b === null);
  return direction * (typeof a === "number" ? a - b : String(a).localeCompare(String(b)));
}
