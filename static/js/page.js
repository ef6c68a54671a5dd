/** What every page does once it is there. */
import { start as startClock } from "./clock.js";
import { start as startCopy } from "./copy.js";
import { register, start as startKeys } from "./keys.js";
import { start as startLiveParts } from "./live_parts.js";
import { start as startMenus } from "./menu.js";
import { start as startSettings } from "./settings.js";
import { start as startUploads } from "./upload_panel.js";

startSettings();
startClock();
startMenus();
startCopy();
startKeys(document.getElementById("keys"));
startLiveParts();
startUploads();

// Keys that every page has; a page's own module may give them another meaning.
const search = document.querySelector('main form[role="search"] input[type="search"]');
if (search) register("/", "search", () => { search.focus(); search.select(); });
const files = document.getElementById("file-input");
if (files) register("u", "upload files", () => files.click());

// Choosing from a filter's list is the whole act; the button beside it is for pages without scripts.
document.addEventListener("change", ({ target }) => {
  if (target.matches?.("select[data-submits]")) target.form.requestSubmit();
});
