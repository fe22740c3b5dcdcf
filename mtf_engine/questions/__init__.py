"""Questions: what pages and commands ask of a workspace, and nothing writes."""
