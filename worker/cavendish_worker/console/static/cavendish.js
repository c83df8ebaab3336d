/* Makes our pages live: every few seconds the page is asked for again, and what is marked by
   data-live is replaced. An area in which somebody works stays as it is. */
(function () {
  "use strict";
  var stored = "cavendish-paused";
  var areas = document.querySelectorAll("[data-live]");
  var every = Math.min.apply(null, Array.from(areas).map(function (area) {
    return Number(area.getAttribute("data-every")) || 4000;
  }));
  var button = document.querySelector("[data-pause]");
  var paused = sessionStorage.getItem(stored) === "yes";

  function inUse(area) {
    return area.contains(document.activeElement) || area.querySelector("input:checked");
  }

  function take(text) {
    var fresh = new DOMParser().parseFromString(text, "text/html");
    areas.forEach(function (area) {
      var name = area.getAttribute("data-live");
      var other = fresh.querySelector('[data-live="' + name + '"]');
      if (!other) {
        location.reload();
      } else if (!inUse(area) && area.innerHTML !== other.innerHTML) {
        area.replaceChildren.apply(area, Array.from(document.adoptNode(other).childNodes));
      }
    });
  }

  function tick() {
    if (paused || document.hidden) {
      setTimeout(tick, every);
      return;
    }
    fetch(location.href, { credentials: "same-origin", redirect: "error" })
      .then(function (answer) { return answer.text(); })
      .then(take)
      .catch(function () {})
      .finally(function () { setTimeout(tick, every); });
  }

  function show() {
    button.textContent = paused ? "Go on updating" : "Pause updates";
    button.setAttribute("aria-pressed", paused ? "true" : "false");
  }

  if (!areas.length) { return; }
  if (button) {
    button.hidden = false;
    button.addEventListener("click", function () {
      paused = !paused;
      sessionStorage.setItem(stored, paused ? "yes" : "no");
      show();
    });
    show();
  }
  setTimeout(tick, every);
}());
