// Ranked tables: sort by any column, filter, page. `data-k` of a row has the values to filter by: the indices of model,
// method and pattern among the choices, the target sparsity, whether it is dense, and whether it is leading.
(() => {
  const MOST_PRINTED = 1000;
  const compareText = new Intl.Collator("en", { numeric: true }).compare;

  function number(text) {
    const found = text.replaceAll(",", "").match(/-?\d+(\.\d+)?(e[+-]?\d+)?/i);
    // "< 0.1" is less than 0.1; missing values come last in both directions.
    return found ? Number(found[0]) - (text.startsWith("<") ? 1e-9 : 0) : null;
  }

  function enhance(board) {
    const size = Number(board.dataset.pageRows);
    const body = board.querySelector("tbody");
    const further = board.querySelector("template");
    const rows = [...body.rows, ...(further ? further.content.querySelectorAll("tr") : [])];
    const facts = new Map(rows.map((row) => [row, row.dataset.k.split(",")]));
    const form = board.querySelector("form");
    const pager = board.querySelector(".pager");
    const status = pager.querySelector("[role=status]");
    const headings = [...board.querySelectorAll("thead th")];
    const pattern = headings.findIndex((heading) => heading.querySelector("span").textContent === "Pattern");
    let order = rows;
    let kept = rows;
    let first = 0;

    function key(row, column, isNumber) {
      const cell = row.cells[column];
      if (column === pattern) return Number(facts.get(row)[2]);
      if (isNumber) return number(cell.firstChild ? cell.firstChild.textContent : "");
      return (cell.querySelector("bdi") ?? cell).textContent;
    }

    function sorted(column, isNumber, sign) {
      const keys = new Map(rows.map((row) => [row, key(row, column, isNumber)]));
      return [...rows].sort((a, b) => {
        const [x, y] = [keys.get(a), keys.get(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (typeof x === "number" ? x - y : compareText(x, y));
      });
    }

    function passes(row) {
      const [model, method, pattern, sparsity, isDense, leads] = facts.get(row);
      const wanted = (by) => form.querySelector(`[data-by="${by}"]`)?.value ?? "";
      if (wanted("0") && wanted("0") !== model) return false;
      if (isDense === "1") return true;
      if (wanted("1") && wanted("1") !== method) return false;
      if (wanted("2") && wanted("2") !== pattern) return false;
      const [low, high] = ["low", "high"].map((end) => form.querySelector(`[data-bound="${end}"]`).value);
      if (low && !(Number(sparsity) >= Number(low) && sparsity)) return false;
      if (high && !(Number(sparsity) <= Number(high) && sparsity)) return false;
      return !form.querySelector("[data-leading]").checked || leads === "1";
    }

    function counts() {
      const pruned = (some) => some.filter((row) => facts.get(row)[4] !== "1").length;
      return `${pruned(kept).toLocaleString("en")} of ${pruned(rows).toLocaleString("en")} pruned models`;
    }

    // The filters in use, in words.
    function filters() {
      const name = (control) => control.closest("label").firstChild.textContent.trim() || control.closest("label").textContent.trim();
      const used = [...form.elements].filter((e) => (e.type === "checkbox" ? e.checked : e.tagName !== "BUTTON" && e.value));
      const active = used.map((e) => (e.type === "checkbox" ? name(e) : `${name(e)} ${e.selectedOptions?.[0].text ?? e.value}`));
      return active.length ? `; filtered by: ${active.join(", ")}` : "";
    }

    function show() {
      const page = kept.slice(first, first + size);
      body.replaceChildren(...page);
      const last = first + page.length;
      const all = kept.length > size ? `Rows ${first + 1} to ${last} of ${kept.length.toLocaleString("en")}; ` : "";
      status.textContent = page.length ? `${all}${counts()}` : "No row matches the filter";
      const [back, on] = pager.querySelectorAll("button");
      back.disabled = first === 0;
      on.disabled = last >= kept.length;
      back.parentElement.hidden = kept.length <= size;
    }

    function filter() {
      kept = order.filter(passes);
      first = 0;
      show();
    }

    headings.forEach((heading, column) => {
      const isNumber = heading.classList.contains("number");
      const title = heading.querySelector("span");
      const button = document.createElement("button");
      button.type = "button";
      button.append(...title.childNodes);
      title.append(button);
      button.addEventListener("click", () => {
        const before = heading.getAttribute("aria-sort");
        // Best first, then worst first, then the original ranking.
        const up = title.textContent.includes("↑");
        const turns = isNumber && up ? ["descending", "ascending"] : ["ascending", "descending"];
        const next = before ? turns[turns.indexOf(before) + 1] : turns[0];
        for (const other of headings) other.removeAttribute("aria-sort");
        if (next) heading.setAttribute("aria-sort", next);
        order = next ? sorted(column, isNumber, next === "ascending" ? 1 : -1) : rows;
        board.classList.toggle("sorted", Boolean(next));
        filter();
      });
    });
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filter));
    pager.addEventListener("click", (event) => {
      const step = Number(event.target.closest("[data-step]")?.dataset.step ?? 0);
      if (!step) return;
      first = Math.min(Math.max(0, first + step * size), Math.max(0, kept.length - 1));
      show();
      board.scrollIntoView();
    });
    // Paper has no paging, so print all rows if possible, and state the active filters.
    addEventListener("beforeprint", () => {
      if (kept.length <= MOST_PRINTED) {
        body.replaceChildren(...kept);
        status.textContent = `${counts()}${filters()}`;
      } else {
        status.textContent += `; printed: rows ${first + 1} to ${first + body.rows.length}${filters()}`;
      }
    });
    addEventListener("afterprint", show);
    form.hidden = false;
    pager.hidden = false;
    form.reset();
    filter();
  }

  for (const board of document.querySelectorAll("[data-board]")) enhance(board);
})();
