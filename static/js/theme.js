// What must be right before the first paint: the chosen theme, and that scripts run at all.
// A classic script in <head>, because modules are deferred and the page would flash. settings.js changes these.
(() => {
  const root = document.documentElement;
  root.dataset.scripts = "";
  try {
    const theme = localStorage.getItem("auditweb.theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    root.dataset.zone = localStorage.getItem("auditweb.zone") === "utc" ? "utc" : "local";
  } catch {
    root.dataset.zone = "local";  // storage can be refused; the page then follows the system
  }
})();
