const table = document.querySelector("table");
table.classList.add("scripted");

for (const body of table.tBodies) {
  const line = body.querySelector(".line"), slider = body.querySelector(".slider");
  const toggle = () => line.setAttribute("aria-expanded", body.classList.toggle("open"));
  line.addEventListener("click", toggle);
  line.addEventListener("keydown", event => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); }
  });
  slider.querySelector("input").addEventListener("input", event =>
    slider.style.setProperty("--at", event.target.value + "%"));
  const layers = [...slider.querySelectorAll(".before")], choices = [...body.querySelectorAll(".choice")];
  choices.forEach((choice, chosen) => choice.addEventListener("click", () => {
    layers.forEach((layer, index) => layer.hidden = index !== chosen);
    choices.forEach((other, index) => other.setAttribute("aria-pressed", index === chosen));
    slider.querySelector(".left").textContent = layers[chosen].dataset.title;
  }));
}
if (table.tBodies.length) table.tBodies[0].querySelector(".line").click();

const heads = [...table.tHead.rows[0].cells];
heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
  // Names start with A, scores with the best; a second click turns the order round.
  const first = column === 1 ? "ascending" : "descending";
  const other = column === 1 ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  heads.forEach(each => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const value = body => body.rows[0].cells[column].dataset.value;
  const compare = (a, b) => {
    if (column === 1) return value(a).localeCompare(value(b), undefined, {numeric: true});
    return Number(value(a) || -Infinity) - Number(value(b) || -Infinity) || 0;
  };
  const sign = order === "ascending" ? 1 : -1;
  [...table.tBodies].sort((a, b) => sign * compare(a, b)).forEach(body => table.insertBefore(body, table.tFoot));
}));
