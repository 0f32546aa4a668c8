"use strict";
(() => {
  // Facets have no "container" width in Vega-Lite: the page chooses columns and panel width itself.
  const GAP = 20;
  const AXIS = 56;

  function fitted(source, width, correction) {
    const spec = structuredClone(source);
    const { panelWidth, columns } = spec.usermeta;
    const fit = Math.max(1, Math.min(columns, Math.floor((width - AXIS + GAP) / (panelWidth + GAP))));
    // Panels come in pairs where there are two or more, so that a pair is not torn apart.
    spec.columns = fit > 2 && columns % 2 === 0 ? fit - (fit % 2) : fit;
    const inner = (width - AXIS - GAP * (spec.columns - 1)) / spec.columns - correction / spec.columns;
    spec.config.legend.columns = width < 480 ? 3 : 0;
    spec.spec.width = Math.max(80, Math.floor(inner));
    return spec;
  }

  async function draw(chart) {
    const width = chart.clientWidth;
    if (!width || chart.dataset.width === String(width)) return;
    chart.dataset.width = String(width);
    const source = JSON.parse(document.getElementById(chart.dataset.spec).textContent);
    const options = { renderer: "svg", actions: false, mode: "vega-lite", defaultStyle: false, tooltip: { disableDefaultStyle: true } };
    await vegaEmbed(chart, fitted(source, width, 0), options);
    const excess = chart.scrollWidth - width;
    if (excess > 0) await vegaEmbed(chart, fitted(source, width, excess + 2), options);
  }

  async function drawAll() {
    for (const chart of document.querySelectorAll("[data-spec]")) {
      try {
        await draw(chart);
      } catch (error) {
        chart.textContent = "This chart could not be drawn (" + error.message + "); its data stands beneath.";
      }
    }
    document.documentElement.dataset.drawn = "";
  }

  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 150);
  });
  drawAll();

  // A link to a cell opens what it points at.
  function openTarget() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  }
  addEventListener("hashchange", openTarget);
  openTarget();

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = button.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
})();
