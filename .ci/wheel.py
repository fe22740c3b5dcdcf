"""What a wheel holds beside the engine: the dashboard, inside it, where its names are nobody else's."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Dashboard(BuildHookInterface):
    """Adds app.py, its pages and its settings to a wheel; an editable install has them beside the engine."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"] |= {
                name: f"mtf_engine/_dashboard/{name}" for name in ("app.py", "pages", ".streamlit")
            }
