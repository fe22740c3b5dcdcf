"""Bounds planner: how far exploration may move the live weights. Decides what a log is collected with."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from mtf_engine.environments.world import DEFAULT_WORLD, World
from mtf_engine.exploration.traffic import BoxSize, Traffic, plan_size
from mtf_engine.logs.aggregates import Population
from mtf_engine.registry import DatasetRow, PlanRow
from mtf_engine.spec import BoundsPlan, Box, FusionSpec
from pages.explore import _cost, _drift, _stored_plans, _teach_panel, _walls
from pages.explore._bounds_editor import BoundsEditor
from pages.shared import bounds_charts, densities, links, loaders, places, plans, words, worlds
from pages.shared.exhibit import csv_download, exhibit

EVERYBODY = "*everybody"


class Log(NamedTuple):
    """Whose users are explored on: the dimensions of their actions, and how they come."""

    row: DatasetRow | None
    names: tuple[str, ...]
    population: Population


def choose_log(rows: list[DatasetRow]) -> Log:
    """Returns the log chosen; the synthetic users where there is none."""
    if not rows:
        names = World.named(DEFAULT_WORLD).fusion.names
        nobody = Population(shares={}, requests_per_session=5, baseline_action=(0.0,) * len(names))
        return Log(None, names, nobody)
    by_id = {row.id: row for row in rows}
    titles = {row.id: f"{row.name} · {row.n_requests:,} requests · {row.id}" for row in rows}
    why = "Its dimensions, segments, sessions and mean baseline action are what the plan is judged on."
    row = by_id[links.choice("For the users of", titles, "dataset", help=why)]
    return Log(row, FusionSpec.model_validate(row.meta["fusion"]).names, loaders.population(row))


def choose_segment(plan: BoundsPlan, population: Population) -> str | None:
    """Returns the segment whose box is drawn, None for the default box."""
    titles = {EVERYBODY: "everybody else (the default box)"}
    for segment in sorted({*population.shares, *plan.segments}):
        own = " · own box" if segment in plan.segments else ""
        titles[segment] = f"{segment} · {population.shares.get(segment, 0):.1%} of the sessions{own}"
    chosen = links.choice("Box of", titles, "segment")
    return None if chosen == EVERYBODY else chosen


def cut(plan: BoundsPlan, segment: str | None, population: Population) -> Box:
    """Returns the box of `segment` as it is explored around the mean baseline action."""
    box = plans.box_of(plan, segment)
    alone = BoundsPlan(lower=box.lower, upper=box.upper, edge=plan.edge)
    lower, upper = alone.resolve(np.float32([population.baseline_action]), np.array([""]))
    return Box(lower=lower[0].round(6), upper=upper[0].round(6))


def choose_traffic(population: Population) -> tuple[Traffic, int, int]:
    """Returns the traffic stated, the samples wanted in each cell, and the cells a dimension."""
    first, second, third, fourth, fifth = st.columns(5)
    bound = {"bind": "query-params"}
    sessions = first.number_input("Sessions a day", 1, value=100_000, step=10_000, key="sessions", **bound)
    requests = second.number_input(
        "Requests a session",
        0.1,
        value=round(population.requests_per_session, 1),
        step=0.5,
        key="requests_a_session",
        **bound,
    )
    control = third.number_input(
        "Control users, %", 0, 99, 10, key="control", help="Kept at the baseline, for its own value.", **bound
    )
    k = fourth.number_input("Samples a cell", 1, value=10, key="samples_a_cell", **bound)
    cells = fifth.number_input("Cells a dimension", 1, 50, 5, key="cells", **bound)
    traffic = Traffic(sessions_per_day=sessions, requests_per_session=requests, control_share=control / 100)
    return traffic, k, cells


def choose_dimensions(names: tuple[str, ...]) -> tuple[int, int]:
    """Returns the two dimensions of the picture."""
    first, second = st.columns(2)
    across = links.choice("Across", {name: name for name in names}, "x", first)
    others = {name: name for name in names if name != across or len(names) == 1}
    return names.index(across), names.index(links.choice("Upwards", others, "y", second))


def sized(plan: BoundsPlan, segment: str | None, population: Population) -> tuple[BoxSize, int]:
    """Draws the traffic and returns what the segment's box asks of it, and the samples wanted in a cell."""
    traffic, k, cells = choose_traffic(population)
    sizes = plan_size(
        plan,
        traffic,
        k=k,
        cells=cells,
        shares={name: population.shares.get(name, 0.0) for name in plan.segments},
        baseline_action=np.array(population.baseline_action),
    )
    own = segment if segment in plan.segments else None
    return next(size for size in sizes if size.segment == own), k


def demand_table(size: BoxSize) -> pd.DataFrame:
    """Returns what each grid asks of the traffic, one row a grid."""
    titles = {1: "every dimension by itself", 2: "every two dimensions"}
    return pd.DataFrame(
        {
            "grid of": titles.get(demand.together, f"all {demand.together} free dimensions"),
            "cells": f"{demand.cells:,.0f}" if demand.cells < 1e9 else f"{demand.cells:.2g}",
            "sessions": f"{demand.sessions:,.0f}" if demand.sessions < 1e12 else f"{demand.sessions:.2g}",
            "takes": words.days(demand.days),
        }
        for demand in size.demands
    )


def show_tiles(box: Box, sigma: float, size: BoxSize, k: int) -> None:
    """Draws what the box buys: five answers to one question, the traffic it asks for, and its size."""
    buys, asks = st.columns([5, 2])
    table = densities.efficiency(box, sigma)
    with buys.container(border=True):
        st.caption(
            f"Gaussian samples (sigma {sigma:g}) that it takes to replace one uniform sample, by definition"
        )
        for tile, row in zip(st.columns(len(table)), table.itertuples(), strict=True):
            title = densities.DEFINITIONS[row.definition].title
            tile.metric(title, row.samples, help=f"2^{row.log2:.2f}: {row.meaning}.")
    with asks.container(border=True):
        st.caption("What the box asks for")
        left, right = st.columns(2)
        pairs = next((demand for demand in size.demands if demand.together == 2), None)
        text = f"Until each cell of every two dimensions holds {k} explored requests, with 95 % confidence."
        left.metric("filled after", words.days(pairs.days) if pairs else "-", help=text)
        volume = size.log10_volume
        text = f"Share of the action space, all {size.free_dimensions} free dimensions together."
        right.metric("covers", words.share(volume), help=text)


def show_density(box: Box, sigma: float) -> None:
    sigmas = np.geomspace(0.05, 1, densities.GRID)
    frame = densities.efficiency_over_sigma(box, sigmas)
    names = {key: definition.title for key, definition in densities.DEFINITIONS.items()}
    title = "Gaussian samples that replace one uniform sample"
    panel = (title, frame, "sigma of the Gaussian noise", sigma)
    figure = bounds_charts.efficiency([panel], names)
    alt = f"{title}, by five definitions over sigma, as powers of 2"
    exhibit(figure, frame, "efficiency over sigma", alt, **densities.MEANINGS)


def show_traffic(size: BoxSize, names: tuple[str, ...], k: int) -> None:
    demands = demand_table(size)
    st.dataframe(demands, placeholder="", hide_index=True, alt="Sessions and days until each grid is filled")
    shares = dict(zip(names, size.covered, strict=True))
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    covers = f"{shares[least]:.1%}"
    if covers != (widest := f"{shares[most]:.1%}"):
        covers = f"{covers} ({least}) to {widest} ({most})"
    st.caption(
        f"Until each cell of a grid holds {k} explored requests, with 95 % confidence. "
        f"The box covers {covers} of each dimension's range [-1, 1]."
    )
    csv_download(demands, "traffic")


def show_command(log: Log, draft: plans.Draft, rows: list[PlanRow]) -> None:
    st.header("Collect with it", anchor=False)
    stored = [row.name for row in rows if row.plan == draft.plan]
    options, query = worlds.of_log(log.row)
    name = stored[0] if stored else "plan.yaml"
    command = ("dataset", "collect", *options, "--explore", "uniform", "--bounds", name)
    section = st.expander("The same on the command line")
    if not stored:
        section.caption("Store the plan below to name it here, or download it as plan.yaml.")
    section.code(
        words.command(loaders.workspace().path, *command, "--requests", 30_000),
        language=None,
        wrap_lines=True,
    )
    query |= {"explore": "uniform", "plan": stored[0] if stored else plans.DRAFT}
    query |= {} if stored else {plans.LINK: plans.to_text(draft.plan), plans.ORIGIN: draft.origin}
    st.page_link("pages/explore/collect.py", label="Collect from the dashboard →", query_params=query)


def planner(log: Log) -> None:
    """Draws the planner anew at each change: first the numbers that follow it, at once; the rest after them."""
    draft = plans.linked_draft(len(log.names))
    tiles, drawing, traffic = st.container(), st.container(), st.container()
    left, right = drawing.columns([9, 10], gap="medium")
    with left:
        segment = choose_segment(draft.plan, log.population)
    with right:
        label = "Sigma of the Gaussian noise compared with"
        sigma = st.slider(label, 0.05, 1.0, 0.2, 0.01, key="sigma", bind="query-params")
    with traffic:
        st.header("Traffic until the box is filled", anchor=False)
        size, k = sized(draft.plan, segment, log.population)
    box = cut(draft.plan, segment, log.population)
    with tiles:
        show_tiles(box, sigma, size, k)
    editor = BoundsEditor(log.names, segment)
    with left:
        symmetric = editor.switches()
        editor.walls(symmetric)
    with right:
        editor.picture(symmetric, sigma, choose_dimensions(log.names))
        show_density(box, sigma)
    with traffic:
        show_traffic(size, log.names, k)
    rows = loaders.workspace().registry.plans()
    show_command(log, draft, rows)
    st.header("Stored plans", anchor=False)
    _stored_plans.store_form(draft, rows)
    _stored_plans.yaml_form(draft, len(log.names))
    _stored_plans.stored_list(rows, draft, log.names)


def by_hand() -> None:
    """Draws the planner for the users of a log."""
    rows = loaders.datasets()
    if not rows:
        st.info("No log yet: these are the dimensions of the synthetic users. Import a log to plan on yours.")
        st.page_link("pages/logs/import_logs.py", label="Import logs →")
    log = choose_log(rows)
    plans.linked_draft(len(log.names))  # refuses a broken link here: a fragment would swallow that
    st.fragment(planner)(log)
    st.fragment(_teach_panel.panel)(log.names, log.row, rows)


def main() -> None:
    st.title("Bounds planner", anchor=False)
    st.caption("Decides how far exploration may move the live weights, by dimension and user segment.")
    places.tabs(
        {
            places.BY_HAND: by_hand,
            places.DRIFT: _drift.show,
            places.WALLS: _walls.show,
            places.COST: _cost.show,
        }
    )


main()
