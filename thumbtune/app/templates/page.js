() => {
  const KEY = `thumbtune ${document.title}`;
  const ASKED = `${KEY} asked`; // what stands in the form, until the tab is closed
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

  function asViewersSeeIt(figure) {
    // An answer has one such part for its up to 300 pairs: to draw each beforehand took half a second
    const pair = figure.closest(".answer").querySelector(".pair");
    pair.querySelector(".fit-words").textContent = figure.getAttribute("aria-label");
    pair.querySelector(".fit-share").textContent = figure.dataset.fit;
    const title = figure.closest("tr").querySelector("th").textContent;
    for (const place of pair.querySelectorAll(".feed b")) place.textContent = title;
    const picture = figure.closest("table").rows[0].cells[figure.closest("td").cellIndex].querySelector("img").src;
    for (const shot of pair.querySelectorAll(".shot")) shot.style.backgroundImage = `url("${picture}")`;
    pair.showPopover({ source: figure });
  }

  const top = (item) => item.getBoundingClientRect().top;

  function steps(event) {
    // The picker is one stop of the Tab key; arrows, Home and End go through it
    const items = [...document.querySelectorAll("#picker .thumbnail-item")];
    const at = items.indexOf(event.target.closest("#picker .thumbnail-item"));
    const columns = items.filter((item) => top(item) === top(items[0])).length;
    const to = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      ArrowUp: at - columns,
      ArrowDown: at + columns,
      Home: 0,
      End: items.length - 1,
    }[event.key];
    if (at < 0 || items[to] === undefined) return;
    event.preventDefault();
    items.forEach((item, place) => (item.tabIndex = place === to ? 0 : -1));
    items[to].focus();
  }

  new MutationObserver(() => {
    const items = [...document.querySelectorAll("#picker .thumbnail-item")];
    if (items.filter((item) => item.tabIndex === 0).length > 1)
      items.forEach((item, place) => (item.tabIndex = place ? -1 : 0));
  }).observe(document.body, { childList: true, subtree: true });

  window.thumbtune = {
    remember(uploads, text, words) {
      try {
        const server = window.gradio_config?.app_id; // another one has not these uploads
        sessionStorage.setItem(ASKED, JSON.stringify([server, uploads, text, words]));
      } catch {
        // this browser keeps nothing
      }
    },
    remembered() {
      try {
        const [server, uploads, ...rest] = JSON.parse(sessionStorage.getItem(ASKED));
        return [(server === window.gradio_config?.app_id && uploads) || [], ...rest];
      } catch {
        return [[], "", ""]; // with null Gradio's gallery would hide where pictures are dropped
      }
    },
    driven() {
      find("why").scrollIntoView({ behavior: "smooth", block: "nearest" });
    },
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
    steps(event);
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    ["match", "search"].map(find).find((button) => button?.offsetParent)?.click();
  });
  document.addEventListener("click", (event) => {
    const figure = event.target.closest("[data-fit]");
    if (figure) asViewersSeeIt(figure);
    if (event.target.matches("[data-closes]")) event.target.closest("[popover]").hidePopover();
    if (event.target.id === "forget-answers") keep([]);
  });
  list();
}
