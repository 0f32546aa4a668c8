// Tabs: `[data-tabs]` names a group, its children `[data-tab]` are the panels. Without JavaScript, and on paper
// (report.css), all panels are shown one after another.
(() => {
  // More tabs than this do not fit on a line; a drop-down list is used instead.
  const MOST_TABS = 6;
  let count = 0;

  function show(panels, chosen) {
    for (const panel of panels) panel.hidden = panel !== chosen;
    document.dispatchEvent(new Event("shown"));
  }

  function asTabs(group, panels) {
    const list = document.createElement("div");
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", group.dataset.tabs);
    const tabs = panels.map((panel) => {
      const tab = document.createElement("button");
      const name = `tab-${++count}`;
      panel.id ||= `${name}-panel`;
      tab.type = "button";
      tab.id = name;
      tab.textContent = panel.dataset.tab;
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-controls", panel.id);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", name);
      list.append(tab);
      return tab;
    });
    const choose = (place) => {
      tabs.forEach((tab, i) => {
        tab.setAttribute("aria-selected", String(i === place));
        tab.tabIndex = i === place ? 0 : -1;
      });
      show(panels, panels[place]);
    };
    list.addEventListener("click", (event) => {
      const place = tabs.indexOf(event.target.closest("[role=tab]"));
      if (place >= 0) choose(place);
    });
    list.addEventListener("keydown", (event) => {
      const at = tabs.indexOf(document.activeElement);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (at < 0 || to === undefined) return;
      event.preventDefault();
      const place = (to + tabs.length) % tabs.length;
      choose(place);
      tabs[place].focus();
    });
    return [list, choose];
  }

  function asList(group, panels) {
    const label = document.createElement("label");
    const list = document.createElement("select");
    label.className = "chooser";
    label.append(`${group.dataset.tabs} `, list);
    for (const panel of panels) list.add(new Option(panel.dataset.tab));
    const choose = (place) => {
      list.selectedIndex = place;
      show(panels, panels[place]);
    };
    list.addEventListener("change", () => choose(list.selectedIndex));
    return [label, choose];
  }

  for (const group of document.querySelectorAll("[data-tabs]")) {
    const panels = [...group.children].filter((child) => child.dataset.tab !== undefined);
    if (panels.length < 2) continue;
    const [control, choose] = (panels.length > MOST_TABS ? asList : asTabs)(group, panels);
    group.prepend(control);
    panels.forEach((panel, place) => panel.addEventListener("reveal", () => choose(place)));
    choose(0);
  }
})();
