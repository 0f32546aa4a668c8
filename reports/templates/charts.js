// Charts are drawn where they are seen, then for a print those behind tabs, and again when their width changes.
(() => {
  // Facets have no "container" width in Vega-Lite: the page chooses columns and panel width itself.
  const GAP = 20;
  const AXIS = 56;

  // A legend begins where the plot does, right of the names of its rows.
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
    // Panels come in pairs where there are two or more, so that a pair is not torn apart.
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

  // There is no waiting for a print: what another tab hides is drawn for it beforehand, as wide as what it is in.
  async function drawUnseen(chart) {
    let around = chart;
    while (around && !around.clientWidth) around = around.parentElement;
    if (around && !chart.querySelector("svg")) await drawAt(chart, around.clientWidth);
  }

  async function drawAt(chart, width) {
    const source = JSON.parse(document.getElementById(chart.dataset.spec).textContent);
    const options = { renderer: "svg", actions: false, mode: "vega-lite", defaultStyle: false, tooltip: { disableDefaultStyle: true } };
    // What stands beside the panels is known only once it is drawn, and texts do not shrink with them.
    for (let round = 0, correction = 0; round < 4; round++) {
      await vegaEmbed(chart, fitted(source, width, correction), options);
      const excess = chart.scrollWidth - width;
      if (excess <= 0) break;
      correction += excess + 2;
    }
  }

  function tell(chart, error) {
    chart.textContent = `This chart could not be drawn (${error.message}); its data stands beneath.`;
    chart.dataset.width = String(chart.clientWidth);
  }

  // One after another: a page of many charts stays quick to the touch while it draws.
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
