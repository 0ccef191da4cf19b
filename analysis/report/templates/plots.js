"use strict";
(async () => {
  const held = document.getElementById("plots");
  if (!held) return;
  // The library is packed; the policy of the page lets run this text alone.
  const packed = atob(document.getElementById("plotly").textContent.trim());
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const library = document.createElement("script");
  library.textContent = await new Response(stream).text();
  document.head.append(library);

  const plots = JSON.parse(held.textContent);
  const stand = { "#000000": "ink", "#ffffff": "paper" }; // colours that stand for the page's
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const PAGE = 660; // pixels between the margins of a printed page
  let print = null; // colours of a print, which is on white whatever the screen shows
  const colors = () =>
    print ?? {
      ink: color("--ink"), paper: color("--paper"), line: color("--line"), soft: color("--soft"),
    };

  const themed = (name) => {
    const { ink, line, soft } = colors();
    const { data, layout } = JSON.parse(JSON.stringify(plots[name]), (_, value) =>
      typeof value === "string" && value in stand ? colors()[stand[value]] : value,
    );
    const small = innerWidth < 600;
    const axis = { gridcolor: line, zerolinecolor: soft, linecolor: line, automargin: true };
    for (const key of new Set(["xaxis", "yaxis", ...Object.keys(layout)])) {
      if (/^[xy]axis\d*$/.test(key)) layout[key] = { ...axis, ...layout[key] };
    }
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: small ? 10 : 12, family: "system-ui, sans-serif" },
      margin: { l: 10, r: 10, t: 40, b: 40 },
      hovermode: "closest",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink },
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
    };
    if (print) layout.width = PAGE;
    return [data, { ...base, ...layout, margin: { ...base.margin, ...layout.margin } }];
  };
  const config = {
    responsive: true,
    displayModeBar: innerWidth >= 600, // on a phone it would hide the axis
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
  };
  // Numbers on the cells of a heat map that are wider than the cells would cover each other: then
  // their marks alone stand there, and hovering tells the numbers.
  const fit = (div) => {
    const { font, ...axes } = div._fullLayout;
    div.data.forEach((trace, at) => {
      if (trace.mode !== "text") return;
      const axis = axes[(trace.xaxis ?? "x").replace("x", "xaxis")];
      const whole = plots[div.dataset.plot].data[at].text;
      const room = axis._length / new Set(trace.x).size;
      const widest = Math.max(...whole.map((text) => text.length)) * 0.6 * font.size;
      const marks = () => whole.map((text) => text.split(" ").slice(1).join(" "));
      const text = widest < room ? whole : marks();
      if (String(text) !== String(trace.text)) Plotly.restyle(div, { text: [text] }, [at]);
    });
  };
  const drawn = new Set();
  const draw = (div) => {
    const fresh = !drawn.has(div);
    drawn.add(div);
    Plotly.react(div, ...themed(div.dataset.plot), config);
    fit(div);
    if (!fresh) return;
    div.on("plotly_afterplot", () => fit(div)); // a phone that is turned has other widths
    div.on("plotly_click", ({ points: [point] }) => {
      if (point.customdata) location.href = point.customdata;
    });
  };
  const every = [...document.querySelectorAll("[data-plot]")];
  const seen = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        draw(target);
      }
    },
    { rootMargin: "600px" },
  );
  for (const div of every) seen.observe(div);
  const again = () => drawn.forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  addEventListener("beforeprint", () => {
    print = { ink: "#000", paper: "#fff", line: "#bbb", soft: "#444" };
    every.filter((div) => div.offsetParent).forEach(draw);
  });
  addEventListener("afterprint", () => {
    print = null;
    again();
  });
})();
