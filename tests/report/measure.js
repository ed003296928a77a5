// What does not fit in a page, and what lies on top of what. OPENED and WHOLE are filled in.
function measure() {
  const wide = document.documentElement.clientWidth, found = [];
  const name = (e) => e.tagName.toLowerCase() + "." + (e.getAttribute("class") || "") + ": " +
    (e.textContent || "").trim().slice(0, 50);
  const style = (e) => getComputedStyle(e);
  const scrolls = (e) => ["auto", "scroll"].includes(style(e).overflowX);
  const shown = (e) => e.checkVisibility();
  const kept = (e) => {
    for (let up = e.parentElement; up; up = up.parentElement) if (scrolls(up)) return true;
    return false;
  };
  if (OPENED) document.querySelectorAll("details").forEach((e) => { e.open = true; });
  if (document.documentElement.scrollWidth > wide + 1)
    found.push("the page is " + document.documentElement.scrollWidth + " px wide, of " + wide);
  for (const e of document.body.querySelectorAll("*")) {
    if (!shown(e) || (e.closest("svg") && e.tagName != "svg")) continue;
    const box = e.getBoundingClientRect();
    if ((box.right > wide + 1 || box.left < -1) && !kept(e))
      found.push("beyond the edge: " + name(e));
    if (e.matches("h1, h2, p, dt, dd, li, summary, aside, figcaption") && !scrolls(e)
        && e.scrollWidth > e.clientWidth + 1 && style(e).display != "inline")
      found.push("wider than its box: " + name(e));
    if (WHOLE && e.matches(".scroll, pre") && e.scrollWidth > e.clientWidth + 1)
      found.push("cut at this width: " + name(e));
  }
  const touch = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3.5;
  for (const svg of [...document.querySelectorAll("svg")].filter(shown)) {
    const edge = svg.getBoundingClientRect();
    const level = [...svg.querySelectorAll("text")]
      .filter((e) => e.textContent.trim() && Math.abs(e.getScreenCTM().b) < 1e-3);
    const boxes = level.map((e) => e.getBoundingClientRect());
    boxes.forEach((box, i) => {
      if (box.left < edge.left - 2 || box.right > edge.right + 2)
        found.push("beyond its figure: " + level[i].textContent);
      for (let j = i + 1; j < boxes.length; j++)
        if (touch(box, boxes[j]))
          found.push("overprinted: " + level[i].textContent + " | " + level[j].textContent);
    });
  }
  const blocks = [...document.querySelectorAll(
    "h1, h2, p, dt, dd, th, td, li, summary, aside, figcaption, pre")]
    .filter((e) => shown(e) && e.textContent.trim() && !e.querySelector("p, li, pre, td"));
  const rects = blocks.map((e) => e.getBoundingClientRect());
  for (let i = 0; i < blocks.length; i++)
    for (let j = i + 1; j < blocks.length; j++)
      if (touch(rects[i], rects[j]) && !blocks[i].contains(blocks[j])
          && !kept(blocks[i]) && !kept(blocks[j]))
        found.push("overprinted: " + name(blocks[i]) + " | " + name(blocks[j]));
  const hidden = [...document.querySelectorAll(".scroll")]
    .filter((e) => shown(e) && e.scrollWidth > e.clientWidth + 1);
  const unsaid = hidden.filter((e) => {
    const before = e.previousElementSibling;
    return !(before && before.matches(".hint") && shown(before));
  });
  return {width: wide, found, hidden: hidden.length, unsaid: unsaid.map(name)};
}
parent.postMessage(JSON.stringify(measure()), "*");
