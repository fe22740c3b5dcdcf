"""Background work: each run is a process of its own, told about through the registry and its run folder."""
