/** Header menus are `<details class="menu">`: this closes them on Escape, on a click elsewhere and when focus leaves. */
export function start(root = document) {
  for (const menu of root.querySelectorAll("details.menu")) {
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !menu.open) return;
      event.stopPropagation();
      menu.open = false;
      menu.querySelector("summary").focus();
    });
    menu.addEventListener("focusout", ({ relatedTarget }) => {
      if (relatedTarget && !menu.contains(relatedTarget)) menu.open = false;
    });
  }
  root.addEventListener("click", ({ target }) => {
    for (const menu of root.querySelectorAll("details.menu[open]")) if (!menu.contains(target)) menu.open = false;
  });
}
