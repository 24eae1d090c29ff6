() => {
  const KEY = `thumbtune ${document.title}`;
  const MOST = 8; // answers that are kept, in this browser alone
  const find = (id) => document.getElementById(id);

  function earlier() {
    try {
      return JSON.parse(localStorage.getItem(KEY)) ?? [];
    } catch {
      return []; // damaged, or this browser keeps nothing
    }
  }

  function keep(answers) {
    for (let count = Math.min(answers.length, MOST); count >= 0; count--) {
      try {
        localStorage.setItem(KEY, JSON.stringify(answers.slice(0, count)));
        break;
      } catch {
        // too much for this browser: without the oldest
      }
    }
    list();
  }

  function list() {
    const [place, answers] = [find("earlier-answers"), earlier()];
    if (!place) return;
    place.parentElement.hidden = answers.length === 0;
    place.replaceChildren(
      ...answers.map(({ at, says, page }) => {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "plain";
        button.textContent = `${new Date(at).toLocaleString()} · ${says}`;
        button.onclick = () => {
          find("earlier-answer").innerHTML = page; // as this page has made it, every title escaped
          find("earlier-dialog").showPopover();
        };
        return button;
      }),
    );
  }

  window.thumbtune = {
    outdated() {
      for (const part of document.querySelectorAll("#ranking .answer, #drawing .thumbtune, #why .thumbtune"))
        part.classList.add("outdated");
    },
    enlarged() {
      find("large")?.showPopover();
    },
    answered() {
      const ranking = find("ranking");
      if (innerWidth < 768) ranking.scrollIntoView({ behavior: "smooth" });
      const answer = ranking.querySelector(".answer:not(.outdated)");
      if (!answer) return;
      const entry = {
        at: Date.now(),
        says: answer.querySelector(".says").textContent,
        page: answer.outerHTML,
      };
      keep([entry, ...earlier()]);
    },
  };

  for (const id of ["ranking", "found", "why"]) find(id)?.setAttribute("aria-live", "polite");
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    ["match", "search"].map(find).find((button) => button?.offsetParent)?.click();
  });
  document.addEventListener("click", (event) => {
    if (event.target.id === "forget-answers") keep([]);
  });
  list();
}
