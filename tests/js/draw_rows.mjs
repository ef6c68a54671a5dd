// Reads [{row, gap, outcome}] as JSON from stdin and writes the HTML that row.js draws for each, as a JSON list of strings.
import { readFileSync } from "node:fs";
import { createRow, fillRow } from "../../static/js/row.js";
import { document } from "./mini_dom.js";

const wanted = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(wanted.map(({ row, gap, outcome }) =>
  fillRow(createRow(document), row, { gap, outcome }).outerHTML)));
