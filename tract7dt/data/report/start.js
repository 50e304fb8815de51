// The page: what needs no unpacking at once, the rest when its section comes near the screen.
async function begin() {
  const main = document.getElementById("main"), nav = document.getElementById("nav");
  document.getElementById("subtitle").replaceChildren(
    el("span", { class: `badge ${T7.run.status}` }, T7.run.status), ` ${T7.run.started} · ${T7.bands.length} bands · ${T7.shape[1]} × ${T7.shape[0]} pix`);
  const sections = [summarySection()];
  main.replaceChildren(...sections);
  const later = (id, title, height, make) => sections.push(el("section", { id, style: `min-height:${height}px` }, el("h2", {}, title))) && lazily(sections.at(-1), make);
  const sources = await unpack("sources");
  const rest = [skySection(sources), zeroPointSection()];
  sections.push(...rest.filter(Boolean));
  if (T7.cells.length) later("epsf", "PSF", 400, async () => epsfSection(await unpack("stamps")));
  sections.push(reliabilitySection());
  if (T7.maps.shape) later("residuals", "Residual maps", 300, async () => residualSection(await unpack("maps")));
  sections.push(...[countsSection(), stagesSection(), inputsSection(), warningsSection()].filter(Boolean));
  main.replaceChildren(...sections);
  nav.replaceChildren(...sections.map((node) => el("a", { href: `#${node.id}` }, node.querySelector("h2").textContent)));
  document.body.dataset.ready = "true";
}

function lazily(placeholder, make) {
  const watch = new IntersectionObserver(async (entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    placeholder.replaceWith((await make()) || el("section", { id: placeholder.id }));
  }, { rootMargin: "600px" });
  watch.observe(placeholder);
}

begin().catch((error) => {
  document.getElementById("main").prepend(el("section", {}, el("h2", {}, "This report could not be shown"), String(error)));
  throw error;
});
