"""What ``make bench`` found as tables in Markdown."""

import statistics

NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
BULK_LINES = 100_000  # bulk_create is measured with this size only; more takes it minutes and changes nothing


def median(values: list[dict], name: str) -> float:
    return statistics.median(value[name] for value in values)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def import_tables(found: dict) -> str:
    speeds, costs = [], []
    for vendor, figures in found.items():
        bulk = figures["imports"].get(BULK_LINES, {}).get("bulk")
        for lines, runs in figures["imports"].items():
            ours, raw = runs["ours"], runs["raw"]
            speed = lines / median(ours, "seconds")
            row = [NAMES[vendor], f"{lines:,}", str(len(ours)), f"{speed:,.0f}"]
            row += [f"{lines / median(raw, 'seconds'):,.0f}", f"{median(raw, 'seconds') / median(ours, 'seconds'):.2f}"]
            plain = runs["plain"]
            plain_ratio = median(plain, "seconds") / median(ours, "seconds") if plain else 0
            row += [f"{lines / median(plain, 'seconds'):,.0f}", f"{plain_ratio:.2f}"] if plain else ["", ""]
            bulk_speed = BULK_LINES / median(bulk, "seconds") if bulk else 0
            row += [f"{bulk_speed:,.0f}", f"{speed / bulk_speed:.1f}"] if bulk else ["", ""]
            speeds.append(row)
            size = median(ours, "size")
            grown = (median(ours, "bytes") - figures["empty_bytes"]) / size
            per_million = [f"{median(r, 'cpu') / lines * 1e6:.1f}" for r in (ours, raw)]
            costs.append(
                [NAMES[vendor], f"{lines:,}", f"{size / 2**20:,.0f} MiB", f"{grown:.2f}", *per_million]
                + [f"{max(run['peak_mib'] for run in ours):.0f} MiB"]
            )
    head = ["database", "lines", "runs", "import, lines/s", "raw + full text", "ratio", "raw + plain FTS5", "ratio"]
    head += ["bulk_create", "ratio"]
    costs_head = ["database", "lines", "dump", "disk / dump", "import: CPU s per million", "raw: CPU s", "peak memory"]
    return (
        "### Import (G1, G2)\n\n"
        "Import: everything done, from the job's claim to its end. Raw: `bench/raw.py`, the same lines decoded and "
        "stored with\ntheir full text in the same schema and the same batches, without Django, checks or anything "
        "derived; with plain FTS5,\nthe full text that SQLite makes by default (text, tool and extra, with positions). "
        f"bulk_create: the events alone, 1,000 at a\ntime, without full text, {BULK_LINES:,} lines.\n\n"
        + table(head, speeds)
        + "\n\n### Memory, disk and processor of an import (G3, G13)\n\n"
        "Disk: all that the database grew by, the received bytes included. CPU: of the importing process; PostgreSQL's "
        "own\nprocesses are not in it.\n\n" + table(costs_head, costs)
    )


def reading_tables(found: dict) -> str:
    pages, outlines = [], []
    for vendor, figures in found.items():
        page, outline = figures["pages"], figures["outline"]
        for place in ("first", "middle", "last", "any"):
            ours, bare = page[f"{place} page"], page[f"{place} bare"]
            pages.append(
                [NAMES[vendor], f"{page['events']:,}", place, f"{ours:.2f}", f"{bare:.2f}", f"{ours / bare:.1f}"]
                + [f"{page[f'{place} page'] / page['first page']:.2f}"]
            )
        outlines.append(
            [NAMES[vendor], f"{outline['events']:,}", f"{outline['built']:.0f}", f"{outline['bytes'] / 1e6:.2f}"]
            + [f"{outline['gzip'] / 1e6:.2f}", f"{outline['again']:.2f}"]
        )
    page_head = ["database", "events", "where", "JSON page, ms", "bare query, ms", "ratio", "to the first page"]
    outline_head = ["database", "events", "built, ms", "JSON, MB", "gzip, MB", "again, ms"]
    return (
        "### A page of 200 rows of one session as JSON (G5)\n\n"
        "In one process, without HTTP; the bare query reads the same columns of the same rows. Median of 40 each, in "
        "turns.\n\n"
        + table(page_head, pages)
        + "\n\n### The outline of the same session (G6)\n\n"
        + table(outline_head, outlines)
    )


def search_tables(found: dict) -> str:
    finds, lists = [], []
    for vendor, figures in found.items():
        asked = figures["searches"]
        whole, one = f"all {asked['all_events']:,} events, newest 50", f"a session of {asked['events']:,}"
        for where, questions in ((whole, asked["all"]), (one, asked["one"])):
            for name, (usual, slowest) in questions.items():
                bare = f"{asked['index'][name][0]:.1f}" if where == whole and name in asked["index"] else ""
                finds.append([NAMES[vendor], where, name, f"{usual:.1f}", f"{slowest:.1f}", bare])
        slow_first = sorted(asked["lists"].items(), key=lambda item: -item[1][0])
        within = sum(usual < 50 for usual, _ in asked["lists"].values())
        row = [NAMES[vendor], f"{asked['sessions']:,}", f"{within} of {len(slow_first)}"]
        row.append(f"{statistics.median(usual for usual, _ in asked['lists'].values()):.1f}")
        lists.append([*row, "; ".join(f"{name}: {usual:.0f}" for name, (usual, _) in slow_first[:4])])
    find_head = ["database", "where", "word", "median, ms", "slowest, ms", "index alone, ms"]
    list_head = ["database", "sessions", "below 50 ms", "median, ms", "the slowest four, ms"]
    return (
        "### Finding words (G10)\n\n"
        "Requests to the API through Django's test client, seven each after one that does not count; a tenth of all "
        "events are\nin one session. Index alone: the same 50 keys from the full text, without rows, marks and "
        "answers.\n\n" + table(find_head, finds) + "\n\n### Lists of sessions (G11)\n\n"
        "A page of 50 through the API in every order, and with filters and words in some; medians of seven.\n\n"
        + table(list_head, lists)
    )


def served_tables(found: dict) -> str:
    latency, starts = [], []
    for vendor, figures in found.items():
        served = figures["served"]
        for what in ("page", "timeline"):
            idle, busy = served[f"{what} idle"], served[f"{what} importing"]
            latency.append(
                [NAMES[vendor], {"page": "session page", "timeline": "timeline, 200 rows"}[what]]
                + [f"{idle['p50']:.1f} / {idle['p95']:.1f}", f"{busy['p50']:.1f} / {busy['p95']:.1f}"]
                + [f"{busy['p95'] / idle['p95']:.2f}", str(busy["count"])]
            )
        idle_memory = served["idle"]
        starts.append(
            [NAMES[vendor], f"{statistics.median(served['starts']):.1f}", f"{idle_memory['rss']:.0f}"]
            + [f"{idle_memory['pss']:.0f}", f"{served['after']['pss']:.0f}"]
        )
    latency_head = ["database", "request", "idle, p50 / p95 ms", "importing, p50 / p95 ms", "p95 ratio", "requests"]
    start_head = ["database", "warm start to the first 200, s", "idle, RSS MiB", "idle, PSS MiB", "at the end, PSS MiB"]
    return (
        "### A running server, idle and importing (G4)\n\n"
        "One client after another's answer on the loopback address, the page of a session of 100,000 events and its "
        "timeline\nin turns, while the worker imports another dump; idle is before and after.\n\n"
        + table(latency_head, latency)
        + "\n\n### Start and memory (G12)\n\n"
        "`manage.py serve` with its worker. PSS counts pages that several processes have in common once.\n\n"
        + table(start_head, starts)
    )


# The live path


def fanout_table(found: dict) -> str:
    rows = []
    for vendor, figures in found.items():
        for cell in figures["one"]:
            ours, unbatched, batched = cell["auditweb"], cell["unbatched"], cell["batched"]
            row = [NAMES[vendor], f"{cell['readers']:,}", f"{cell['rate']}"]
            for one in (ours, unbatched, batched):
                row += [f"{one['share']:.1%}", f"{one['p50']:.0f} / {one['p99']:.0f}", f"{one['server_us']:.1f}"]
            row += [f"{ours['server_us'] / one['server_us']:.2f}" for one in (unbatched, batched)]
            rows.append([*row, f"{ours['commit']['p99']:.0f}", f"{ours['reader_us_message']:.0f}"])
    head = ["database", "readers", "rows/s"]
    for name in ("", "unbatched: ", "batched: "):
        head += [f"{name}delivered", "p50 / p99 ms", "CPU µs"]
    head += ["CPU / unbatched", "CPU / batched", "p99 of commits, ms", "reading a message, µs"]
    return (
        "### Readers of one session (G8)\n\n"
        "One web process; rows are committed one by one by another process; readers are one more, which acknowledge as "
        "a page\ndoes. Latency is from before the commit to the reader, the commit included; CPU is what the server "
        "spent on each delivery\nof a row. Unbatched and batched: `bench/bare_live.py`, a bare `websockets` server fed "
        "by Redis with the same rows and read by\nthe same readers, where nothing is committed; one message for each "
        "row, or frames made once of what comes in 50 ms.\n\n" + table(head, rows)
    )


def crowd_tables(found: dict) -> str:
    many, slow = [], []
    for vendor, figures in found.items():
        one, walls = figures["many"], figures["many"]["walls"]
        row = [NAMES[vendor], f"{one['sessions']} × 2", f"{one['rate']:g}", f"{one['share']:.1%}"]
        row += [f"{one['p50']:.0f} / {one['p99']:.0f}", f"{one['wall_count']}"]
        row += [f"{walls['shown'] / one['wall_count'] / one['rows']:.0%}"]
        many.append([*row, f"{walls['p50']:.0f} / {walls['p99']:.0f}", f"{one['server_load']:.0%}"])
        alone, beside = figures["slow"]["alone"], figures["slow"]["beside"]
        row = [NAMES[vendor], *(f"{one['p50']:.0f} / {one['p99']:.0f}" for one in (alone, beside))]
        row += [f"{one['share']:.1%}" for one in (alone, beside)]
        slow.append([*row, *(f"{one['grown']:+.1f}" for one in (alone, beside))])
    many_head = ["database", "sessions × readers", "rows/s", "delivered", "p50 / p99 ms", "walls", "words shown"]
    many_head += ["walls: p50 / p99 ms", "server CPU"]
    slow_head = ["database", "alone: p50 / p99 ms", "beside 40: p50 / p99 ms", "alone: delivered", "beside: delivered"]
    slow_head += ["alone: PSS grew, MiB", "beside: PSS grew, MiB"]
    return (
        "### Many running sessions, and walls\n\n"
        "All sessions run and are watched by two readers each; walls show them all. A line at a time, by turns. A wall "
        "shows the\nlast words of each session: of those that were followed at once by others it need not show "
        "all.\n\n" + table(many_head, many) + "\n\n### Readers that do not keep up\n\n"
        "A hundred readers of 100 rows/s of 2,000 characters, alone, and then beside 20 that read 16 KiB/s, ten that "
        "read nothing\nand ten that acknowledge nothing.\n\n" + table(slow_head, slow)
    )


def ingest_tables(found: dict) -> str:
    speeds, paces = [], []
    names = {"post": "HTTP", "socket": "socket"}
    for vendor, figures in found.items():
        ingest = figures["ingest"]
        for way, name in names.items():
            for batch, alone in ingest["alone"][way].items():
                watched, bare = ingest["watched"][way][batch], ingest["alone"]["bare"][batch]
                lean = ingest["alone"]["lean"][batch]
                row = [NAMES[vendor], name, batch, f"{alone['per_s']:,.0f}", f"{bare['per_s']:,.0f}"]
                row += [f"{alone['per_s'] / bare['per_s']:.2f}", f"{lean['per_s']:,.0f}"]
                row += [f"{alone['server_us'] / bare['server_us']:.1f}", f"{watched['per_s']:,.0f}"]
                row += [f"{watched['share']:.1%}", f"{watched['p50']:.1f} / {watched['p99']:.1f}"]
                speeds.append(row)
            paced = ingest["paced"][way]
            row = [NAMES[vendor], name, f"{paced['per_s']:.0f}", f"{paced['p50']:.1f} / {paced['p99']:.1f}"]
            paces.append([*row, f"{paced['share']:.1%}", f"{paced['server_us'] * paced['per_s'] / 1e6:.0%}"])
    head = ["database", "way", "lines a request", "events/s", "bare, events/s", "ratio", "bare without full text"]
    head += ["CPU of an event / bare", "watched, events/s", "delivered", "acknowledged, p50 / p99 ms"]
    pace_head = ["database", "way", "events/s", "acknowledged, p50 / p99 ms", "delivered", "server CPU"]
    return (
        "### Live ingest (G9)\n\n"
        "Four producers that keep their connections, each sending the next lines when those before are acknowledged, "
        "that is\ncommitted and synced; lines of `bench/dump.py`. Bare: `bench/bare_ingest.py`, a view on stock daphne "
        "that decodes the same\nlines and commits a row each, their full text, their bytes and a counter in one "
        "transaction a request. Watched: while 100\nreaders follow the four sessions.\n\n"
        + table(head, speeds)
        + "\n\n300 lines a second of all four together, watched by 100; an acknowledgement is counted from when the "
        "line was there.\n\n" + table(pace_head, paces)
    )


def soak_table(found: dict) -> str:
    rows, said = [], []
    for vendor, figures in found.items():
        soak = figures["soak"]
        said.append(
            f"{NAMES[vendor]}: {soak['events']:,} events, {soak['heard']:,} deliveries, {soak['visits']:,} visits, "
            f"{soak['views']:,} page views."
        )
        for process, numbers in soak["processes"].items():
            for what, name in (("rss", "RSS, MiB"), ("pss", "PSS, MiB"), ("files", "files"), ("sockets", "sockets")):
                number = numbers[what]
                row = [NAMES[vendor], {"serve": "web", "work": "worker"}.get(process, process), name]
                rows.append([*row, f"{number['first']:.1f}", f"{number['last']:.1f}", f"{number['per_hour']:+.1f}"])
    seconds = next(iter(found.values()))["soak"]["seconds"]
    head = ["database", "process", "what", "first third, median", "last third, median", "slope, an hour"]
    return (
        f"### {seconds / 60:g} minutes\n\n"
        "Four producers with 100 lines a second altogether, 20 readers and two walls that stay, 20 readers that come "
        "and leave every\nten seconds, pages fetched all the while; sampled every two seconds but for the first "
        "tenth.\n\n" + "\n".join(said) + "\n\n" + table(head, rows)
    )
