"""Pictures to take away: the visitor's own browser draws them, so none leaves the machine."""

import re

import streamlit as st

SCALE = 2
"""Pixels of a PNG for one on the screen."""
_buttons = st.components.v2.component(
    "picture_downloads",
    html="""
    <div>
        <button value="png" disabled>Download PNG</button>
        <button value="svg" disabled>Download SVG</button>
    </div>
    """,
    css="""
    div { display: flex; gap: 1rem }
    button {
        padding: 0.25rem 0.75rem; min-height: 2.5rem; cursor: pointer; font: inherit; font-size: 0.875rem;
        color: var(--st-text-color); background: var(--st-background-color);
        border: 1px solid var(--st-border-color); border-radius: var(--st-button-radius);
    }
    button:disabled { opacity: 0.4; cursor: default }
    button:enabled:hover, button:focus-visible { border-color: var(--st-primary-color); outline: none }
    button:focus-visible { box-shadow: 0 0 0 3px var(--st-border-color) }
    """,
    js="""
    export default function({ data, parentElement }) {
        const camera = () => document.querySelector(
            `.${data.place} .js-plotly-plot .modebar-btn[data-title^='Download plot']`)
        const buttons = parentElement.querySelectorAll("button")
        for (const button of buttons)
            button.onclick = () => {
                const chart = camera().closest(".js-plotly-plot")
                chart._context.toImageButtonOptions = { ...data.options, format: button.value }
                camera().click()
            }
        let frame
        const wait = () => {
            if (camera()) buttons.forEach((button) => { button.disabled = false })
            else frame = requestAnimationFrame(wait)
        }
        wait()
        return () => cancelAnimationFrame(frame)
    }
    """,
)


def picture_downloads(chart: str, name: str) -> None:
    """Draws buttons that save the chart of key `chart` as `name`.png and as `name`.svg.

    They press the camera above the chart, which plotly's own toolbar has, and cannot be pressed before
    it is there.
    """
    place = "st-key-" + re.sub(r"[^a-zA-Z0-9_-]", "-", chart.strip())
    data = {"place": place, "options": {"filename": name, "scale": SCALE}}
    _buttons(data=data, key=f"pictures {chart}", height="content")
