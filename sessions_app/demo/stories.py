"""Invented sessions, one small believable story for each format, in the languages that people speak.

Nobody in them exists: first names only, domains and telephone numbers that are reserved for examples.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple

from sessions_app.demo.writers import HostLog, RoomKit, RoomTimeline, Tape, Trace, Xerxes

MARK = "Demo · "  # how every name, and so every title, begins
SEED = "auditweb"
INDIA = timezone(timedelta(hours=5, minutes=30))
BERLIN = timezone(timedelta(hours=1))


class Dump(NamedTuple):
    """A file of the demo. ``bus``: where its status lines go, "" when it has none."""

    name: str
    content: bytes
    bus: str = ""


class Story(NamedTuple):
    """``tell`` writes the lines of a story that began *ago* before it is loaded."""

    title: str
    ago: timedelta
    tell: Callable[[Tape], bytes | None]
    bus: bool = False


def tell_all(now: datetime, seed: str = SEED) -> Iterator[Dump]:
    """Every story as a dump, the one that began first at the start. The same bytes for one hour of *now* and *seed*."""
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    for story in sorted(STORIES, key=lambda story: -story.ago):
        tape = Tape(f"{seed} {story.title}", hour - story.ago)
        tape.wait(tape.random.uniform(0, 50))
        content = story.tell(tape) or tape.content()
        yield Dump(f"{MARK}{story.title}.jsonl", content, MARK + story.title if story.bus else "")


def table_for_six(tape: Tape) -> None:
    """A voice call with everything in it: interruptions, a slow reply, a failing tool, three agents, a camera."""
    call = RoomKit(tape, "host")
    call.start("rt-voice", "guest-17")
    call.post("host", "greet", "info", "call accepted")
    call.assistant("Good evening, this is the Olive Yard. How can I help you?")
    call.user("Hi, I'd like a table for six on Saturday, around eight if you have it.")
    call.post("booking", "find_table", "pending", "six people, Saturday, 20:00", room_id="call-17")
    call.tool("find_table", {"people": 6, "day": "Saturday", "time": "20:00"}, {"free": []}, 640, agent="booking")
    call.post("booking", "find_table", "completed", "nothing at 20:00", room_id="call-17")
    call.assistant(
        "At eight we are full, I'm afraid. I could offer you half past six, or a quarter past nine, or perhaps"
    )
    call.interrupt()
    call.user("Half past six is fine, but one of us uses a wheelchair. Is there a step at the door?", after=0.2)
    call.assistant("Let me look at the entrance for you, one moment.")
    call.post("eyes", "look", "pending", "entrance camera", room_id="call-17")
    call.tool("look_at_camera", {"camera": "entrance"}, "Picture taken", 1900, agent="eyes")
    call.vision("Restaurant entrance: one low step, a mobile ramp leans against the wall, door about 90 cm wide")
    call.post("eyes", "look", "completed", "one step, mobile ramp at hand", room_id="call-17")
    call.assistant("There is one low step, and we have a ramp for it. The door is ninety centimetres wide.")
    call.user("Great. Then please book it under Mira.")
    arguments = {"table": 12, "people": 6, "time": "18:30", "name": "Mira", "note": "ramp"}
    call.post("booking", "book_table", "pending", "table 12", room_id="call-17")
    error = {"error": "table 12 is held by another booking"}
    call.tool("book_table", arguments, error, 2300, status="failed", agent="booking")
    call.post("booking", "book_table", "failed", "table 12 is held by another booking", room_id="call-17")
    call.tool("find_table", {"people": 6, "day": "Saturday", "time": "18:30"}, {"free": [9, 14]}, 580, agent="booking")
    call.vision("Floor plan on the tablet: table 9 beside the kitchen door, table 14 by the window")
    call.assistant(
        "Table twelve was just taken. Table fourteen by the window seats six as well. Shall I take that one?"
    )
    call.user("By the window, lovely. Yes.")
    call.tool("book_table", {**arguments, "table": 14}, {"booking": "OY-4471"}, 910, agent="booking")
    call.post("booking", "book_table", "completed", "OY-4471, table 14", room_id="call-17")
    call.assistant(
        "Done: Saturday, half past six, table fourteen for six, with the ramp ready. Your code is O Y four four"
    )
    call.interrupt()
    call.user("Sorry, can you text me that? The number is 555 0142.", after=0.3)
    message = {"to": "+1 555 0142", "text": "Olive Yard, Saturday 18:30, table 14, code OY-4471"}
    call.tool("send_sms", message, "timed out after 10000 ms", 10_020, status="error")
    call.post("host", "send_sms", "failed", "gateway did not answer within 10 s", room_id="call-17")
    call.assistant("The message did not go out yet. I'll try again.", after=0.4)
    call.tool("send_sms", message, {"sent": True}, 1200)
    call.post("host", "send_sms", "ok", "second attempt", room_id="call-17")
    call.assistant("Now it is on its way. Anything else?")
    call.user("No, that's all. Thank you!")
    call.assistant("Thank you, see you on Saturday.")
    call.post("host", "call", "completed", "booked, 1 message sent")


def lost_parcel(tape: Tape) -> None:
    """A refund, in French; the caller is impatient."""
    call = RoomKit(tape, "conseil")
    call.start("rt-voice", "client-204")
    call.assistant("Bonjour, service colis. Que puis-je faire pour vous ?")
    call.user("Bonjour. Mon colis devait arriver lundi, et il n'est toujours pas là.")
    call.assistant("Je suis désolé. Vous avez le numéro de suivi ?")
    call.user("Oui, c'est le DX 90 417.")
    parcel = {"numéro": "DX90417"}
    call.tool("suivre_colis", parcel, {"état": "perdu", "dernier_lieu": "dépôt 3", "jours": 9}, 1700)
    call.assistant(
        "Le colis a été vu pour la dernière fois au dépôt trois, il y a neuf jours. Je peux ouvrir une enquête qui"
    )
    call.interrupt()
    call.user("Non, non, pas d'enquête. Je veux être remboursée.", after=0.2)
    call.tool("lire_commande", {"colis": "DX90417"}, {"commande": 55817, "montant": "64,90 €", "assuré": True}, 820)
    call.assistant(
        "Je comprends. La commande était assurée, soixante-quatre euros quatre-vingt-dix. Je lance le remboursement."
    )
    refund = {"commande": 55817, "montant": 64.9}
    call.tool("rembourser", refund, {"error": "plafond dépassé : 50 € sans accord"}, 600, status="failed")
    call.assistant("Il me faut l'accord d'une collègue, un instant s'il vous plaît.", after=1.2)
    call.tool("demander_accord", {**refund, "motif": "colis perdu, assuré"}, {"accord": True}, 14_300)
    call.user("Vous êtes toujours là ?", after=0.5)
    call.assistant("Oui, l'accord est arrivé.", after=0.5)
    call.tool("rembourser", {**refund, "accord": "B-31"}, {"référence": "RB-7702"}, 1100)
    call.assistant("C'est fait : vous serez remboursée sous trois jours, référence R B sept mille sept cent deux.")
    call.user("Merci, c'était rapide finalement.")
    call.assistant("Merci à vous, et bonne journée.")


def train_ticket(tape: Tape) -> None:
    """RoomKit before 0.108: speech in local time without an offset, tools in UTC; the zone can be worked out."""
    call = RoomKit(tape, "sahayak", local=INDIA)
    call.start("rt-voice", "yatri-88")
    call.assistant("नमस्ते, मैं आपकी क्या मदद कर सकता हूँ?")
    call.user("मुझे अपने टिकट की तारीख बदलनी है। Fourteenth की जगह sixteenth.")
    call.tool("find_ticket", {"phone": "555 0188"}, {"ticket": "T-2291", "train": "Demo Express", "day": 14}, 950)
    call.assistant("जी, टिकट T-2291 मिल गया। मैं सोलह तारीख की सीटें देखता हूँ।")
    call.tool("free_seats", {"train": "Demo Express", "day": 16, "class": "AC chair"}, {"seats": 3}, 2100)
    call.assistant("सोलह तारीख को तीन सीटें खाली हैं। बदलने का शुल्क एक सौ बीस रुपये है।")
    call.user("ठीक है, कर दीजिए। खिड़की वाली सीट हो तो अच्छा।")
    change = {"ticket": "T-2291", "day": 16, "seat": "window"}
    call.tool("change_ticket", change, "payment service did not answer", 5200, status="error")
    call.assistant("भुगतान सेवा से जवाब नहीं आया, मैं फिर कोशिश करता हूँ।", after=0.5)
    call.tool("change_ticket", change, {"ticket": "T-2291", "seat": "C2-17"}, 1300)
    call.assistant("हो गया। आपकी सीट C2-17 है, खिड़की के पास।")
    call.user("बहुत धन्यवाद!")


def night_tools(tape: Tape) -> None:
    """A file of the tool auditor: three agents that fill shelves by night, in German."""
    night = RoomKit(tape, "lager")
    goods = ("Kaffee 500 g", "Hafermilch", "Spülmittel", "Glühbirnen E27", "Druckerpapier", "Batterien AA", "Zimt")
    for round_ in range(9):
        item = goods[round_ % len(goods)]
        left = tape.random.randint(0, 40)
        tape.wait(tape.random.uniform(300, 1500))
        night.audited_tool("lager", "bestand_prüfen", {"artikel": item}, {"bestand": left}, 380)
        if left < 25:
            order = {"artikel": item, "menge": 60 - left}
            refused = round_ in (2, 6)
            result = (
                {"error": "Lieferant nimmt nachts keine Bestellungen an"} if refused else {"bestellung": 8100 + round_}
            )
            night.audited_tool("einkauf", "bestellen", order, result, 1500, "failed" if refused else "ok")
        if round_ % 3 == 1:
            night.audited_tool("roboter", "regal_auffüllen", {"regal": f"B{round_}", "artikel": item}, "fertig", 21_000)
        if round_ == 5:
            night.audited_tool("roboter", "regal_auffüllen", {"regal": "C2"}, "Greifer blockiert", 45_000, "error")
            night.audited_tool("roboter", "selbsttest", {}, {"greifer": "frei", "akku": 71}, 8200)
    summary = "Nachtschicht beendet. Zwei Bestellungen sind offen, Regal C2 wurde im zweiten Anlauf gefüllt."
    night.audited_tool("lager", "bericht_schreiben", {"an": "team@lager.example.org"}, summary, 2600)


def office_move_status(tape: Tape) -> None:
    """Nothing but the status log: tasks that wait and end, one that fails, one that nobody ended."""
    bus = RoomKit(tape, "mover")
    work = (
        ("planner", "task", "draw the floor plan of the third floor", "plan with 42 desks", 95),
        ("network", "task", "order the line for the new office", "line ordered, port 4", 140),
        ("movers", "task", "ask three companies for an offer", "three offers, the cheapest 2 400 €", 310),
        ("network", "task", "move the telephone numbers", "", 60),
        ("planner", "review", "check desks against the fire rules", "two desks moved away from the exit", 75),
        ("movers", "task", "book the lift for Saturday", "lift booked from 8 to 12", 40),
    )
    bus.post("planner", "pipeline", "info", "office move: 6 tasks, 3 agents", strategy="supervised", room_id="move")
    for agent, action, detail, outcome, seconds in work:
        about = {"room_id": "move", "strategy": "supervised", "task_run": True}
        bus.post(agent, action, "pending", detail, after=8, **about)
        tape.wait(seconds / 2)
        bus.post(agent, "progress", "info", f"working on: {detail}", after=1, room_id="move")
        tape.wait(seconds / 2)
        task = {**about, "task_id": f"task-{tape.token(12)}"}
        if outcome:
            bus.post(agent, action, "completed", outcome, after=1, **task)
        else:
            bus.post(agent, action, "failed", "the provider needs a signature that nobody gave", after=1, **task)
            bus.post(
                "planner", "handoff", "ok", "telephone numbers go to a person", from_agent=agent, to_agent="desk-2"
            )
    bus.post("movers", "task", "pending", "buy 80 boxes", after=12, room_id="move", strategy="supervised")


def travel_desk(tape: Tape) -> None:
    """Xerxes, two sessions at once: retries, a denied call, a loop that is blocked, a turn that breaks."""
    lisbon = Xerxes(tape, "lisbon-trip", "travel")
    osaka = Xerxes(tape, "osaka-trip", "travel")
    lisbon.asked("My flight to Lisbon on Monday was cancelled. Find me another one before noon.")
    flights = {"to": "LIS", "day": "Monday", "before": "12:00"}
    lisbon.fails("search_flights", flights, "TimeoutError", "no answer within 5 s", 5003.4)
    lisbon.fails("search_flights", flights, "ConnectionError", "connection reset", 812.9, seen=2)
    osaka.asked("大阪のホテルを二泊、駅の近くでお願いします。")
    lisbon.call("search_flights", flights, "2 flights: EX 211 at 07:40, EX 215 at 10:55", 1430.2, seen=3)
    osaka.call("search_hotels", {"city": "Osaka", "nights": 2, "near": "station"}, "3 hotels, from 9 800 yen", 920.7)
    lisbon.answered(
        "There are two: 07:40 and 10:55. The later one has a seat at the aisle. Shall I change your ticket?"
    )
    lisbon.asked("Yes, the 10:55, and charge it to the company card.")
    used: dict[str, Any] = {"skill_name": "compare-offers", "version": "1.3.0", "outcome": "success"}
    osaka.event("skill_used", **used, duration_ms=64.8, triggered_automatically=True)
    osaka.answered("駅から徒歩三分のホテルが一泊九千八百円です。予約しますか。")
    lisbon.event("hook_mutation", hook_name="before_tool_call", tool_name="change_ticket", mutated_field="arguments")
    lisbon.denied("pay_by_card", "finance_policy", "Cards are charged by people only")
    lisbon.event("agent_switch", from_agent="travel", to_agent="finance", reason="payment needs an approval")
    lisbon.agent = "finance"
    lisbon.call("request_approval", {"amount": 184, "currency": "EUR"}, "approved by the desk, A-102", 8450.0)
    lisbon.event("agent_switch", from_agent="finance", to_agent="travel", reason="approved")
    lisbon.agent = "travel"
    lisbon.call("change_ticket", {"flight": "EX 215", "approval": "A-102"}, "changed, seat 14C", 2210.5, "docker")
    lisbon.answered("Your ticket is changed to EX 215 on Monday at 10:55, seat 14C. The approval is A-102.")
    osaka.asked("はい、予約してください。窓から川が見える部屋がいいです。")
    room = {"hotel": "Demo Inn", "view": "river"}
    for seen in range(4):
        osaka.call("find_room", room, "no room with this view", 310.0 + 7 * seen, seen=seen + 1)
    osaka.looped("find_room", "same_args_5x", 5)
    osaka.broke("LLMError", "the model returned no usable answer after a blocked call")
    osaka.asked("では、普通の部屋で大丈夫です。", after=20)
    osaka.call("book_room", {"hotel": "Demo Inn", "nights": 2}, "booked, R-5520", 1650.3)
    osaka.answered("普通の部屋を二泊で予約しました。予約番号は R-5520 です。")
    lisbon.event(
        "skill_authored",
        skill_name="rebook-flight",
        version="0.1.0",
        source_path="skills/rebook-flight/SKILL.md",
        tool_count=3,
        unique_tools=["search_flights", "request_approval", "change_ticket"],
        confirmed_by_user=True,
    )
    lisbon.event("skill_feedback", skill_name="rebook-flight", rating="good", reason="fast", source="user", after=30)


def contract_check(tape: Tape) -> None:
    """calute, the first layout of Xerxes, without a session store; in Spanish."""
    desk = Xerxes(tape, None, "revisor")
    desk.asked("¿Puedes revisar el contrato de alquiler y decirme cuándo hay que avisar para salir?")
    desk.call("read_file", {"path": "contrato.md"}, "Contrato de alquiler, 14 páginas", 88.4)
    desk.call("find_clause", {"about": "preaviso"}, "Cláusula 9: preaviso de sesenta días", 412.0)
    desk.answered(
        "El contrato pide un preaviso de sesenta días, cláusula nueve. Para salir en marzo hay que avisar en enero."
    )
    desk.asked("¿Y la fianza? Escríbele al propietario, por favor.")
    desk.call("find_clause", {"about": "fianza"}, "Cláusula 4: dos meses, devolución en treinta días", 390.6, seen=1)
    desk.denied("send_email", "default_policy", "send_email is not allowed for this agent")
    desk.answered(
        "La fianza son dos meses y se devuelve en treinta días. No puedo enviar correos; te dejo un borrador."
    )
    desk.asked("Compara con el contrato del año pasado.")
    desk.fails(
        "read_file", {"path": "contrato-anterior.md"}, "FileNotFoundError", "contrato-anterior.md no existe", 12.1
    )
    desk.broke("TimeoutError", "LLM request timed out after 30s", after=30)


def office_move_plan(tape: Tape) -> None:
    """agent_framework: sub-agents one by one and in a batch, permissions, memory, skills, a question to the caller."""
    _office_move(tape)


def _office_move(tape: Tape) -> Trace:
    trace = Trace(tape, "demo-move", BERLIN)
    trace.asked("Plan our office move: 42 people, third floor, the last Saturday of the month.")
    with trace.run(
        "coordinator", "Plan our office move: 42 people, third floor, the last Saturday of the month."
    ) as root:
        root.skill("move-checklist", "loaded", {"people": 42}, ["references/checklist.md", "references/lift.md"])
        with trace.run("researcher", "What must be known before an office moves?") as researcher:
            researcher.tool("search_notes", {"query": "office move"}, "7 notes, newest: « déménagement 2e étage »", 1.6)
            researcher.tool(
                "read_note", {"id": 41}, "Last time the lift was not booked. Boxes came two days late.", 0.7
            )
            researcher.says("Book the lift, order boxes a week ahead, and move the telephones on Friday.")
        trace.memory("memory_put", "mem://session/move/lessons", "Lessons", "lift, boxes, telephones", 412)
        root.callback(
            "clarify", "May people work from home on that Friday?", "Ja, am Freitag arbeiten alle zu Hause.", 22
        )
        batch = {"batch_id": "demo-batch-1", "mode": "parallel", "count": 2}
        calls = [{"subagent_id": "planner", "output_key": "desks"}, {"subagent_id": "buyer", "output_key": "boxes"}]
        root.events.append({"type": "subagent_batch_started", **batch, "calls": calls})
        with trace.run("planner", "Place 42 desks on the third floor.", key="desks") as planner:
            planner.skill("floor-plan", "resources_loaded", {"floor": 3}, ["references/fire-rules.md"])
            planner.tool("draw_plan", {"desks": 42, "floor": 3}, "plan-3.svg, 2 desks too near to the exit", 3.2)
            with trace.run("critic", "Is plan-3.svg good?") as critic:
                critic.says("Two desks stand in the way of the exit.")
            planner.tool("draw_plan", {"desks": 42, "floor": 3, "keep_free": "exit"}, "plan-3b.svg", 2.9)
            with trace.run("critic", "Is plan-3b.svg good?") as critic:
                critic.says("Yes: the exit is free and every desk has a window within six metres.")
            planner.says("plan-3b.svg seats 42 and keeps the exit free.")
        with trace.run("buyer", "Order boxes for 42 people.", key="boxes") as buyer:
            buyer.tool("compare_offers", {"boxes": 84}, "3 offers, 96 € to 140 €", 2.4)
            trace.permission("order", "write", "shop.example.org/cart", "order 84 boxes for 96 €", True, 9)
            buyer.tool("order", {"boxes": 84, "price": 96}, "ordered, arrives Monday", 1.1)
            buyer.says("84 boxes are ordered for 96 € and arrive on Monday.")
        ended = {"status": "ok", "completed": 2, "failed": 0, "timed_out": 0, "blocked": 0}
        root.events.append({"type": "subagent_batch_finished", "batch_id": batch["batch_id"], **ended})
        trace.permission("send_email", "send", "all@office.example.org", "tell 42 people about the move", False, 6)
        trace.memory("memory_update", "mem://session/move/plan", "Plan", "desks, boxes, lift, telephones", 1830, "2")
        root.says("The plan stands: desks by plan-3b.svg, 84 boxes on Monday, telephones on Friday, lift on Saturday.")
    trace.told("The plan stands. I was not allowed to write to everybody, so here is the text for you to send.")
    trace.asked("Danke. Wer bucht den Aufzug?")
    with trace.run("coordinator", "Danke. Wer bucht den Aufzug?") as root:
        root.tool("book_lift", {"day": "Saturday", "from": "08:00", "to": "12:00"}, "error: calendar is read-only", 1.4)
        with trace.run("researcher", "Who may book the lift?") as researcher:
            researcher.tool("search_notes", {"query": "Aufzug"}, "Hausverwaltung, Telefon 555 0171", 1.2)
            researcher.says("The house management books it, by telephone 555 0171.")
        root.says("Das muss die Hausverwaltung tun, Telefon 555 0171. Ich habe es auf die Liste gesetzt.")
    trace.told("Das muss die Hausverwaltung tun, Telefon 555 0171. Ich habe es auf die Liste gesetzt.")
    trace.memory("memory_autostore", "mem://session/move/open", "Open points", "lift: call the house management", 96)
    return trace


def office_move_host(tape: Tape) -> bytes:
    """What the program around agent_framework logs of the same kind of runs."""
    trace = _office_move(tape)
    # The log covers the runs that the trace told: begun and ended at their times, requests in between.
    moments = []
    for run, ended in trace.runs:
        began = datetime.fromisoformat(run.started).astimezone(UTC)
        moments += [(began, 0, run), (began + (ended - began) * 0.6, 1, run), (ended, 2, run)]
    log_tape = Tape("host log", moments[0][0])
    log = HostLog(log_tape, trace.session)
    for at, phase, run in sorted(moments, key=lambda moment: moment[:2]):
        log_tape.now = at
        if phase == 0:
            log.event("runtime.agent_started", f"{run.agent} begins", run, after=0)
            log.event("llm.request", run.prompt, run, model="demo-model", messages=2)
        elif phase == 1:
            if run.agent == "buyer":
                log.event(
                    "llm.error", "rate limit, next try in 2 s", run, level="error", after=0, error="RateLimitError"
                )
                log.event("log.record", "retrying the model call (1 of 3)", run, level="warning", after=2)
            answer = run.decision["message"] if run.decision else ""
            log.event("llm.response", answer, run, after=0, model="demo-model", tokens=40 + len(answer))
        else:
            log.event("runtime.audit.agent_call_finished", f"{run.agent} is done", run, after=0, status="completed")
    return log_tape.content()


def ryokan_room(tape: Tape) -> None:
    """The timeline of a RoomKit room, in Japanese: words for all, words for the staff, a task, an observation."""
    room = RoomTimeline(tape, "room-kaede")
    for channel in ("ws-guest", "concierge", "staff-desk"):
        room.attach(channel)
    first = room.says("ws-guest", "guest-3", "こんにちは。来週の予約を一日延ばせますか。")
    room.answers("concierge", "こんにちは。確認いたします。少々お待ちください。", first)
    question = room.answers("concierge", "「椿の間」を一泊追加できますか。", first, visibility="staff-desk")
    full = "「椿」は満室です。「楓の間」なら空いています。"
    room.says("staff-desk", "staff-1", full, 25, visibility="internal", responds_to=question)
    room.observation("concierge", "お客様は庭の見える部屋を希望されている様子", "preference", 0.82)
    offer = room.answers("concierge", "最後の一泊だけ「楓の間」になりますが、お庭が見えます。いかがでしょうか。", first)
    second = room.says("ws-guest", "guest-3", "いいですね。お願いします。夕食もつけてください。", 14, responds_to=offer)
    room.task("夕食を一名分追加する", "最終日、十九時、魚料理を希望", "kitchen", "pending")
    room.answers("concierge", "かしこまりました。最終日の夕食は十九時でご用意いたします。", second)
    room.says("ws-guest", "guest-3", "ありがとうございます！", 8)
    room.task("夕食を一名分追加する", "最終日、十九時、魚料理を希望", "kitchen", "completed")


def bike_rental(tape: Tape) -> bytes:
    """A file that a full disk and two programs have damaged: most of it can be read, five lines cannot."""
    call = RoomKit(tape, "balcão")
    call.start("rt-voice", "cliente-9")
    call.assistant("Bom dia, aluguer de bicicletas. Em que posso ajudar?")
    call.user("Bom dia! Queria duas bicicletas e uma de criança para domingo.")
    torn = len(tape.lines)
    call.tool("ver_bicicletas", {"dia": "domingo", "adultos": 2, "crianças": 1}, {"livres": 6}, 700)
    call.assistant("Temos, sim. Capacetes também?")
    call.user("Sim, três. Quanto fica?")
    call.tool("calcular_preço", {"bicicletas": 3, "capacetes": 3}, {"total": "57 €"}, 430)
    call.assistant("São cinquenta e sete euros pelo dia todo.")
    call.user("Perfeito, pode reservar.")
    call.tool("reservar", {"dia": "domingo", "bicicletas": 3}, {"reserva": "BK-318"}, 1250)
    call.assistant("Está reservado, B K trezentos e dezoito. Até domingo!")
    half = tape.lines[torn][:-40]
    nested = b'{"ts": "later", "type": "speech", "content": ' + b"[" * 300 + b"]" * 300 + b"}"
    damage = {
        torn + 1: half,
        torn + 3: b"OSError: [Errno 28] No space left on device",
        torn + 5: "disco cheio às três da manhã".encode("latin-1"),
        torn + 7: nested,
    }
    lines = []
    for number, line in enumerate(tape.lines):
        if number in damage:
            lines.append(damage[number])
        lines.append(line)
    return b"\n".join(lines) + b'\n{"ts": "' + tape.now.isoformat().encode()  # the power went in the middle of a line


def long_evening(tape: Tape) -> None:
    """About 5,000 events: an operations desk, calm at first, then an incident that everybody talks over."""
    desk = RoomKit(tape, "desk")
    desk.start("rt-voice", "on-call-2")
    desk.assistant("Good evening. All services are green, the last shift left two notes.")
    while len(tape.lines) < 5000:
        share = len(tape.lines) / 5000
        first, second = 0.38 < share < 0.6, 0.78 < share < 0.84
        _minute(desk, trouble=2 if first else 1 if second else 0)
        if not first and not second and tape.random.random() < 0.015:
            tape.wait(tape.random.uniform(120, 420))  # nothing to do: the overview shows a gap
    desk.assistant("That was the evening: two incidents, both closed, the report is in your mailbox.")
    desk.user("Obrigado, boa noite. See you tomorrow.")


SERVICES = ("mail", "payments", "search", "login", "maps", "billing", "calendar")
CALM = (
    ("How is {} doing?", "{} answers in {} milliseconds, as always."),
    ("Anything new on {}?", "Nothing new. {} had {} requests in the last minute."),
    ("Jak wygląda {}?", "{} działa, {} żądań na minutę."),
    ("E o {}, tudo bem?", "Tudo bem: {} está com {} pedidos por minuto."),
    ("Show me {} please.", "Here it is. {} is at {} requests a minute."),
    ("Was macht {}?", "{} läuft ruhig, {} Anfragen in der Minute."),
)
ALARM = (
    ("{} is red again, what is going on?", "{} lost {} connections, I am looking for the reason in the"),
    ("Restart {}!", "I have restarted {}, but {} requests are still waiting and the queue is"),
    ("Is {} back?", "Not yet. {} still fails for {} of a thousand people, most of them"),
    ("Stop, wait, first {}!", "All right, first {}. There are {} errors in the last minute and"),
    ("Wer ist an {} dran?", "Das Netz-Team ist an {} dran, {} Fehler in der letzten Minute und"),
)
SEEN = (
    "Dashboard: six green tiles, {} slightly yellow",
    "Graph of {}: flat line, one small peak",
    "Terminal window with the log of {}",
    "Dashboard: {} red, two tiles grey",
)


def _minute(desk: RoomKit, trouble: int) -> None:
    """A question, what is done for it, an answer; with *trouble* (0 to 2) more goes wrong and people talk over it."""
    random = desk.tape.random
    service, number = random.choice(SERVICES), random.randint(20, 900)
    question, answer = random.choice(ALARM if trouble and random.random() < 0.3 + 0.3 * trouble else CALM)
    desk.user(question.format(service), after=random.expovariate(1 / (5 - 2 * trouble)))
    if random.random() < 0.5:
        desk.post("desk", "check", "pending", service, room_id="ops")
    for _ in range(random.choice((1, 1, 2, 3)) + trouble):
        agent, tool = random.choice(
            (("net", "ping"), ("net", "traceroute"), ("db", "slow_queries"), ("logs", "search"))
        )
        ms = random.lognormvariate(6.1 + 0.5 * trouble, 0.7)
        if random.random() < (0.02, 0.18, 0.4)[trouble]:
            status, result = random.choice(
                (("failed", {"error": f"{service} refused"}), ("error", "no answer within 5 s"))
            )
            desk.tool(tool, {"service": service}, result, ms + 2500, status, agent)
            if random.random() < 0.4:
                desk.post(agent, tool, "failed", f"{service}: no answer", room_id="ops")
        else:
            desk.tool(tool, {"service": service}, {"ok": True, "value": number}, ms, "ok", agent)
    if random.random() < 0.25:
        desk.vision(random.choice(SEEN).format(service))
    desk.assistant(answer.format(service, number), after=random.lognormvariate(-0.6 + 0.7 * trouble, 0.6))
    if random.random() < (0.04, 0.3, 0.55)[trouble]:
        desk.interrupt()
    if random.random() < 0.4:
        level = "ok" if not trouble else random.choice(("ok", "info", "failed"))
        desk.post("desk", "check", "completed" if level == "ok" else level, service, room_id="ops")


STORIES = (
    Story("Contract check", timedelta(days=6, hours=3), contract_check),
    Story("Damaged file", timedelta(days=2, hours=5), bike_rental),
    Story("Train ticket", timedelta(days=1, hours=3), train_ticket),
    Story("Night shift tools", timedelta(hours=15), night_tools),
    Story("Operations desk, a long evening", timedelta(hours=13), long_evening, bus=True),
    Story("Kyoto room", timedelta(hours=6, minutes=10), ryokan_room),
    Story("Lost parcel", timedelta(hours=5, minutes=20), lost_parcel),
    Story("Office move", timedelta(hours=4, minutes=5), office_move_plan),
    Story("Office move host log", timedelta(hours=4, minutes=4), office_move_host),
    Story("Office move status", timedelta(hours=3, minutes=40), office_move_status, bus=True),
    Story("Travel desk", timedelta(hours=2, minutes=35), travel_desk),
    Story("Table for six", timedelta(hours=1, minutes=10), table_for_six, bus=True),
)
