// Runs before the page is painted, so that a chosen theme does not flash. The choice itself is main.js's.
(() => {
  try {
    const chosen = localStorage.getItem("livedex.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // storage is forbidden here: the system's theme it is
  }
})();
