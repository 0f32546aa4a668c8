// Draws visible charts first, then those behind tabs (for printing), and all again when their width changes.
(() => {
  // Facets have no "container" width in Vega-Lite, so the page chooses columns and panel width itself.
  const GAP = 20;
  const AXIS = 56;

  // A legend starts at the left edge of the plot, to the right of the row names.
  function stackLegends(node) {
    for (const [key, value] of Object.entries(node)) {
      if (key === "legend" && value?.columns) value.columns = 1;
      else if (value && typeof value === "object") stackLegends(value);
    }
  }

  function fitted(source, width, correction) {
    const spec = structuredClone(source);
    const { panelWidth, columns } = spec.usermeta;
    const fit = Math.max(1, Math.min(columns, Math.floor((width - AXIS + GAP) / (panelWidth + GAP))));
    // If columns are even, keep them even, so that pairs of panels stay together.
    spec.columns = fit > 2 && columns % 2 === 0 ? fit - (fit % 2) : fit;
    const inner = (width - AXIS - GAP * (spec.columns - 1)) / spec.columns - correction / spec.columns;
    spec.config.legend.columns = 0;
    if (width < 480) {
      spec.config.legend.columns = 2;
      stackLegends(spec.spec);
    }
    spec.spec.width = Math.max(80, Math.floor(inner));
    return spec;
  }

  async function draw(chart) {
    const width = chart.clientWidth;
    if (!width || chart.dataset.width === String(width)) return;
    await drawAt(chart, width);
    chart.dataset.width = String(width);
  }

  // Printing does not wait, so charts in hidden tabs are drawn beforehand, as wide as their visible container.
  async function drawUnseen(chart) {
    let around = chart;
    while (around && !around.clientWidth) around = around.parentElement;
    if (around && !chart.querySelector("svg")) await drawAt(chart, around.clientWidth);
  }

  async function drawAt(chart, width) {
    const source = JSON.parse(document.getElementById(chart.dataset.spec).textContent);
    const options = { renderer: "svg", actions: false, mode: "vega-lite", defaultStyle: false, tooltip: { disableDefaultStyle: true } };
    // The width of axes and texts beside the panels is known only after drawing, and does not shrink with the panels.
    for (let round = 0, correction = 0; round < 4; round++) {
      await vegaEmbed(chart, fitted(source, width, correction), options);
      const excess = chart.scrollWidth - width;
      if (excess <= 0) break;
      correction += excess + 2;
    }
  }

  function tell(chart, error) {
    chart.textContent = `This chart could not be drawn (${error.message}); its data is below.`;
    chart.dataset.width = String(chart.clientWidth);
  }

  // One chart after another, so that a page with many charts stays responsive while it draws.
  let turn = Promise.resolve();
  function drawAll() {
    turn = turn.then(async () => {
      for (const chart of document.querySelectorAll("[data-spec]")) {
        await draw(chart).catch((error) => tell(chart, error));
        await new Promise((resume) => setTimeout(resume));
      }
      document.documentElement.dataset.drawn = "";
      for (const chart of document.querySelectorAll("[data-spec]:not([data-width])")) {
        await drawUnseen(chart).catch((error) => tell(chart, error));
        await new Promise((resume) => setTimeout(resume));
      }
      document.documentElement.dataset.printable = "";
    });
  }

  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 150);
  });
  document.addEventListener("shown", drawAll);
  drawAll();
})();
