"""Reading a whole transcript in a browser, which draws only the rows that are seen."""

# Scrolls from the first row to the last: [[position, seq, words], …].
READ_ALL = """async () => {
  const box = document.querySelector("[data-part=transcript]");
  const found = new Map();
  const pause = () => new Promise((go) => setTimeout(go, 50));
  for (let top = 0; ; top += box.clientHeight / 2) {
    box.scrollTop = top;
    await pause();
    while (box.querySelector(".row.waiting:not([hidden])")) await pause();
    for (const row of box.querySelectorAll(".row:not([hidden])")) {
      const words = row.querySelector(".row-words").textContent;
      found.set(`${row.ariaPosInSet} ${row.dataset.seq}`, [Number(row.ariaPosInSet), Number(row.dataset.seq), words]);
    }
    if (top + box.clientHeight >= box.scrollHeight) break;
  }
  return [...found.values()].sort((a, b) => a[0] - b[0]);
}"""
