"""Notifications of the visitor's own browser when a run ends, for whoever asked for them there."""

import streamlit as st

from mtf_engine.registry import RunRow, now
from mtf_engine.runs import executor
from pages.shared import loaders, memory, words

ON = "on"
SECONDS = 5.0
"""Between looks at the registry."""
TURNED, SINCE = "notices turned", "notices since"
_switch = st.components.v2.component(
    "notices_switch",
    html="""
    <label><input type="checkbox">Notify me in this browser when a run ends</label>
    <p role="status"></p>
    """,
    css="""
    label { display: flex; gap: 0.5rem; align-items: center; width: fit-content; font-size: 0.875rem; cursor: pointer }
    input { width: 1rem; height: 1rem; margin: 0; accent-color: var(--st-primary-color); cursor: inherit }
    label:has(:disabled) { cursor: default }
    p { margin: 0.25rem 0 0; font-size: 0.875rem }
    p:empty { display: none }
    """,
    js="""
    const refused = "The browser does not allow it: let this address notify you in its settings, then tick again."
    const none = "This browser shows no notifications of pages."
    const insecure = "A browser shows notifications only of pages on https or localhost."
    const ask = async () => {
        if (await Notification.requestPermission() !== "granted") return refused
        try { new Notification("Here you are told when a run ends", { tag: "mtf" }) } catch { return none }
        return ""
    }
    export default function({ data, parentElement, setTriggerValue }) {
        const box = parentElement.querySelector("input")
        const say = (text) => { parentElement.querySelector("p").textContent = text }
        const able = window.isSecureContext && "Notification" in window
        const allowed = able && Notification.permission === "granted"
        box.disabled = !able
        box.checked = data.on && allowed
        say(!able ? insecure : data.on && !allowed ? refused : "")
        box.onchange = async () => {
            const turned = box.checked
            box.disabled = true
            say(turned ? "The browser asks whether it may." : "")
            const problem = turned ? await ask() : ""
            box.disabled = false
            say(problem)
            if (problem) box.checked = false
            else setTriggerValue("turned", turned)
        }
    }
    """,
)
_tell = st.components.v2.component(
    "notices",
    js="""
    const KEPT = "mtf_told", MOST = 100
    export default function({ data }) {
        if (!("Notification" in window) || Notification.permission !== "granted") return
        const told = JSON.parse(localStorage.getItem(KEPT) ?? "[]")
        for (const { tag, title, body } of data.ends.filter((end) => !told.includes(end.tag))) {
            told.push(tag)
            localStorage.setItem(KEPT, JSON.stringify(told.slice(-MOST)))
            const shown = new Notification(title, { body, tag })
            shown.onclick = () => window.focus()
        }
    }
    """,
)


def switch(key: str) -> None:
    """Draws the box by which a visitor asks to be told, which asks the browser's permission; or why that cannot be."""
    turned = _switch(data={"on": _is_on()}, key=f"notices {key}", on_turned_change=lambda: None).turned
    if turned is not None:
        st.session_state[TURNED] = turned
        st.rerun()


def follow() -> None:
    """Has the browser show each end of a run once, on any page and however many are open, where it was asked to."""
    if TURNED in st.session_state:
        memory.remember("notices", [ON] if st.session_state[TURNED] else [])
    if _is_on():
        st.session_state.setdefault(SINCE, now())
        st.fragment(_look, run_every=SECONDS)()


def _is_on() -> bool:
    return ON in memory.remembered("notices", [ON])


def _look() -> None:
    workspace = loaders.workspace()
    executor.reconcile(workspace)
    ends = workspace.registry.ends(st.session_state[SINCE])
    _tell(data={"ends": [_told(run) for run in ends]}, key="notices")


def _told(run: RunRow) -> dict[str, str]:
    """Returns what the browser shows of an end; by its tag it knows one that it has shown."""
    took = "" if run.seconds is None else f", took {words.duration(run.seconds)}"
    body = f"{run.kind} {run.id}{took}"
    title = f"{words.STATES[run.state]}: {run.name or run.kind}"
    return {"tag": f"{run.id} {run.finished_at}", "title": title, "body": body}
