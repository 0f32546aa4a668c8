// Links to folded or hidden parts of the page, and copy buttons.
(() => {
  function openTarget(hash) {
    // Anchors are plain words that need no decoding.
    const target = hash.length > 1 && document.getElementById(hash.slice(1));
    if (!target) return;
    if (target instanceof HTMLDetailsElement) target.open = true;
    for (let panel = target.closest("[data-tab]"); panel; panel = panel.parentElement.closest("[data-tab]")) {
      if (panel.hidden) panel.dispatchEvent(new Event("reveal"));
    }
    target.scrollIntoView();
  }
  addEventListener("hashchange", () => openTarget(location.hash));
  // Clicking the same link again does not change the hash, but its target may have been hidden since.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) openTarget(link.hash);
  });
  openTarget(location.hash);

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
