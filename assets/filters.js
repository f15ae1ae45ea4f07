// The filters above a table: a row stays when every choice fits it. A row's values of one filter are separated by "|".
document.addEventListener("DOMContentLoaded", () => {
  for (const form of document.querySelectorAll("form.table-filters")) {
    const rows = [...document.getElementById(form.dataset.table).querySelectorAll("tbody tr")];
    const fields = [...form.querySelectorAll("[data-filter]")];

    const fits = (row, field) => {
      const wanted = field.value.trim().toLowerCase();
      if (!wanted) return true;
      if (field.dataset.filter === "text") return row.textContent.toLowerCase().includes(wanted);
      return row.dataset[field.dataset.filter].toLowerCase().split("|").includes(wanted);
    };
    const show = () => {
      let shown = 0;
      for (const row of rows) {
        row.hidden = !fields.every((field) => fits(row, field));
        shown += row.hidden ? 0 : 1;
      }
      form.querySelector("output").textContent = `${shown} of ${rows.length}`;
    };
    // A link to one row, such as audit.html#C013, shows it whatever was chosen.
    const reveal = () => {
      const row = rows.find((one) => one.id === location.hash.slice(1));
      if (row && row.hidden) {
        form.reset();
        show();
        row.scrollIntoView();
      }
    };
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    window.addEventListener("hashchange", reveal);
    show();
  }
});
