"use strict";
(() => {
  const shapes = JSON.parse(document.getElementById("shapes").textContent);
  const tip = document.getElementById("tip");

  const element = (name, className, content) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    if (content) node.textContent = content;  // never innerHTML: names come from files
    return node;
  };

  const show = (event, ...children) => {
    tip.replaceChildren(...children);
    tip.hidden = false;
    const gap = 16, box = tip.getBoundingClientRect();
    const left = event.clientX + gap + box.width > innerWidth ? event.clientX - gap - box.width : event.clientX + gap;
    const top = Math.min(event.clientY + gap, innerHeight - box.height - 8);
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = Math.max(8, top) + "px";
  };
  const hide = () => { tip.hidden = true; };

  const shapeCard = (row) => {
    const picture = element("i", "th");
    const percent = (value, count) => 100 * value / Math.max(count - 1, 1) + "%";
    const x = row % shapes.columns, y = Math.floor(row / shapes.columns);
    picture.style.backgroundPosition = percent(x, shapes.columns) + " " + percent(y, shapes.rows);
    const out = [picture], label = shapes.labels ? shapes.labels[row] : -1;
    if (label >= 0) out.push(element("b", "", shapes.classes[label]));
    out.push(element("span", "", shapes.names[row]));
    if (label >= 0 && shapes.predictions && shapes.predictions[row] !== label && shapes.predictions[row] >= 0) {
      const wrong = element("em", "", "taken for " + shapes.classes[shapes.predictions[row]]);
      out.push(element("br"), wrong);
    }
    return out;
  };

  for (const map of document.querySelectorAll(".map")) {
    const svg = map.querySelector("svg"), dots = [...svg.querySelectorAll("circle")];
    const places = dots.map((dot) => [dot.cx.baseVal.value, dot.cy.baseVal.value]);
    let chosen = null;
    const point = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let best = -1, least = 40 ** 2;
      places.forEach(([x, y], i) => {
        if (chosen !== null && dots[i].dataset.c !== chosen) return;
        const distance = (x - at.x) ** 2 + (y - at.y) ** 2;
        if (distance < least) { least = distance; best = i; }
      });
      if (best < 0) hide(); else show(event, ...shapeCard(best));
    };
    map.addEventListener("pointermove", point);
    map.addEventListener("pointerdown", point);
    map.addEventListener("pointerleave", hide);
    const buttons = document.querySelectorAll(".legend button");
    for (const button of buttons) button.addEventListener("click", () => {
      chosen = chosen === button.dataset.c ? null : button.dataset.c;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other.dataset.c === chosen));
      for (const mark of map.querySelectorAll("[data-c]"))
        mark.classList.toggle("off", chosen !== null && mark.dataset.c !== chosen);
    });
  }

  for (const chart of document.querySelectorAll("[data-chart]")) {
    const data = JSON.parse(chart.dataset.chart);
    const cross = chart.querySelector(".cross");
    const point = (event) => {
      const x = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse()).x;
      const rows = [];
      let head = "", place = 0, least = Infinity;
      for (const line of data.s) {
        let best = 0;
        line.p.forEach((p, i) => { if (Math.abs(p[0] - x) < Math.abs(line.p[best][0] - x)) best = i; });
        const distance = Math.abs(line.p[best][0] - x);
        if (distance < least) { least = distance; head = data.x + " " + line.t[best][0]; place = line.p[best][0]; }
        const row = element("div"), swatch = element("i", "sw");
        swatch.style.background = line.c;
        row.append(swatch, line.n + " ", element("strong", "", line.t[best][1]));
        rows.push(row);
      }
      cross.setAttribute("d", `M${place} ${cross.dataset.reach}`);
      show(event, element("b", "", head), ...rows);
    };
    const leave = () => { hide(); cross.removeAttribute("d"); };
    chart.addEventListener("pointermove", point);
    chart.addEventListener("pointerdown", point);
    chart.addEventListener("pointerleave", leave);
  }

  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest("[data-tip],.th[data-s]");
    if (!mark) return;
    if (mark.dataset.tip) show(event, element("span", "", mark.dataset.tip));
    else show(event, ...shapeCard(Number(mark.dataset.s)));
    mark.addEventListener("pointerleave", hide, { once: true });
  });
  addEventListener("scroll", hide, { passive: true });
})();
