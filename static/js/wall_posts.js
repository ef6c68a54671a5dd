/** The latest status entries beside the Live wall; templates/sessions/_wall_post.html draws the same. */
import { refresh } from "./clock.js";
import { morph } from "./morph.js";

const ICONS = { ok: "+", failed: "x", pending: "?", info: "~", completed: "*" };  // RoomKit's own

function entry(document, post) {
  const make = (name, className, ...children) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  };
  const known = Object.hasOwn(ICONS, post.status);
  const icon = make("span", "", known ? ICONS[post.status] : "·");
  icon.setAttribute("aria-hidden", "true");
  const when = make("span", "post-when");
  if (post.at) {
    const time = make("time", "", "");
    time.setAttribute("datetime", post.at);
    time.dataset.time = "relative";
    when.append(time);
  } else when.append(make("span", "soft", "–"));
  const bus = make("a", "", post.bus.title);
  bus.setAttribute("href", post.bus.url);
  const made = make("li", "post",
    make("p", "post-head", make("span", `level ${known ? post.status : "other"}`, icon, ` ${post.status || "–"}`), " ",
      make("b", "", post.agent_id || "–"), " ", when),
    make("p", "", make("span", "mono", post.action), " ", make("bdi", "post-detail", post.detail)),
    make("p", "small clip", bus));
  made.dataset.key = `${post.bus.id} ${post.seq}`;
  return made;
}

/** Make `list` show `posts`, newest first, as the socket tells them. */
export function showPosts(list, posts) {
  const fresh = list.cloneNode(false);
  fresh.append(...posts.map((post) => entry(list.ownerDocument, post)));
  refresh(fresh);
  morph(list, fresh);
}
