"""A number that nothing can work with is refused in one sentence, whichever command or setting it is given to."""

from types import UnionType
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from mtf_engine.algos import ALGOS
from mtf_engine.cli import app
from mtf_engine.spec import MOST
from mtf_engine.work import kinds
from tests.test_cli import COMMANDS

NONSENSE = {int: (str(MOST + 1), str(2**64)), float: ("nan", "inf", "-inf")}
WORDS = {
    "explore": "uniform",
    "where": "up",
    "decision": "promote",
    "sessions": "5",
    "sessions_per_round": "5",
}
"""What a required parameter is given where any word will not do."""
SPECS = [algo.Config for algo in ALGOS.values()] + [kind.Config for kind in kinds().values() if kind.Config]


def kind(annotation: Any) -> type | None:
    """Returns int or float where the annotation is one, or allows one."""
    choices = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    return next((of for of in (int, float) if of in choices), None)


def numbers() -> list[tuple[tuple[str, ...], Any]]:
    """Returns every number that a command can be given: the command's path and the parameter."""
    return [
        (path, parameter)
        for path, command in COMMANDS.items()
        for parameter in command.params
        if kind(parameter.type_descriptor.annotation)
    ]


def needed(path: tuple[str, ...], but: str) -> list[str]:
    """Returns words for what the command cannot be called without, except the parameter `but`."""
    words = []
    for parameter in COMMANDS[path].params:
        if parameter.required and parameter.name != but:
            option = [parameter.opts[-1]] if parameter.opts[-1].startswith("-") else []
            words += [*option, WORDS.get(parameter.name, "x")]
    return words


@pytest.mark.parametrize(
    ("path", "parameter"), numbers(), ids=lambda v: v if isinstance(v, tuple) else v.name
)
def test_a_command_refuses_it_in_one_sentence(path, parameter):
    option = parameter.opts[-1]
    nonsense = NONSENSE[kind(parameter.type_descriptor.annotation)] + ("-1",) * (parameter.name == "seed")
    for value in nonsense:
        done = CliRunner().invoke(app, [*path, *needed(path, parameter.name), option, value])
        assert (done.exit_code, done.stdout) == (1, ""), (done.exception, done.output)
        assert done.stderr.startswith(f"{option} is {float(value) if value.isalpha() else value}; give ")


def test_there_are_numbers_to_refuse():
    assert sum(parameter.name == "seed" for _, parameter in numbers()) >= 8


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_a_setting_refuses_a_whole_number_that_no_registry_could_keep(spec):
    for name, field in spec.model_fields.items():
        annotations = (field.annotation, *get_args(field.annotation))
        if int in annotations and get_origin(field.annotation) is not Literal:
            value = (2**64,) if get_origin(field.annotation) is tuple else 2**64
            with pytest.raises(ValidationError) as refused:
                spec(**{name: value})
            assert any(error["loc"][0] == name for error in refused.value.errors()), name
