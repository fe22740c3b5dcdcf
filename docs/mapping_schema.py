"""Prints docs/mapping.schema.json, the JSON schema of the mapping file: `make docs` writes it, a test holds it."""

import json

from mtf_engine.logs.mapping import Mapping


def mapping_schema() -> str:
    """Returns the schema as JSON text."""
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Mapping of a log's columns"}
    schema = Mapping.model_json_schema() | about
    schema["description"] = str(Mapping.__doc__).splitlines()[0]
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    print(mapping_schema(), end="")
