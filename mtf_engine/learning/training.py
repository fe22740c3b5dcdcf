"""The training loop: a generator of metrics that survives being killed, and the configs that start it."""

import io
import math
import pickle
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_origin

import torch
from pydantic import ValidationError

from mtf_engine import sealed
from mtf_engine.algos import ALGOS, Algorithm
from mtf_engine.learning.best_step import Validation
from mtf_engine.learning.config import SCORE, TrainerConfig
from mtf_engine.learning.search import Fitness
from mtf_engine.logs.transitions import Transitions
from mtf_engine.policies.network_files import network_bytes, read_network
from mtf_engine.policies.networks import CriticEnsemble
from mtf_engine.spec import Refusal

ANEW = "delete it and resume: the training begins anew, and ends the same"
"""What to do about a checkpoint that is damaged."""


def fit(
    algo: Algorithm,
    source: Transitions | Fitness,
    checkpoint: Path | None = None,
    validation: Validation | None = None,
) -> Generator[dict[str, float]]:
    """Yields a flat row of metrics every `log_every` steps and at the last one, training in between.

    `source` is what the method learns from: transitions, or for a search method the fitness of a policy.
    Batches are drawn by the algorithm's own generator. With `checkpoint`, the whole state is written there
    every `checkpoint_every` steps, and a training whose file exists goes on from it: the rows that follow,
    the weights and the optimisers are those of an uninterrupted run to the bit, `seconds` and
    `steps_per_second` aside; what was trained on a card goes on without one, and the other way, with the bits of
    that device. A Refusal where the file belongs to another training, or the losses diverge.

    With `validation`, its score is in the rows of every `validate_every`th step and the last, and a first row
    of step 0 has that of the policy training starts from; `validation` keeps the best step's policy.
    """
    config = algo.config
    n_steps = config.steps(len(source) if isinstance(source, Transitions) else 0)
    with _threads(config.n_threads):
        before = _resume(algo, validation, checkpoint) if checkpoint and checkpoint.exists() else 0.0
        clock = _Clock(before, algo.step)
        data = algo.prepare(source)
        if validation and algo.step == 0:
            yield {"step": 0, SCORE: validation.start(algo.policy)}
        while algo.step < n_steps:
            batch = data.draw(config.batch_size, algo.generator)
            losses = algo.update(batch)
            last = algo.step == n_steps
            validated = validation if last or algo.step % config.validate_every == 0 else None
            if last or validated or algo.step % config.log_every == 0:
                yield {
                    "step": algo.step,
                    **_finite(losses | algo.diagnose(batch), algo.step),
                    **({SCORE: validated.look(algo.policy, algo.step)} if validated else {}),
                    **clock.read(algo.step),
                }
            if checkpoint and (last or algo.step % config.checkpoint_every == 0):
                _save(algo, validation, checkpoint, clock.seconds())


class _Clock:
    """Wall-clock columns: seconds of training in all, and steps per second since they were last read."""

    def __init__(self, seconds_before: float, step: int) -> None:
        self._start = time.perf_counter() - seconds_before
        self._read_at, self._step = time.perf_counter(), step

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def read(self, step: int) -> dict[str, float]:
        now = time.perf_counter()
        pace = (step - self._step) / (now - self._read_at)
        self._read_at, self._step = now, step
        return {"seconds": self.seconds(), "steps_per_second": pace}


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finite(metrics: Mapping[str, Any], step: int) -> dict[str, float]:
    row = {name: float(value) for name, value in metrics.items()}
    broken = [name for name, value in row.items() if not math.isfinite(value)]
    if broken:
        raise Refusal(f"the training diverged by step {step} ({', '.join(broken)}); set lower learning rates")
    return row


def _save(algo: Algorithm, validation: Validation | None, path: Path, seconds: float) -> None:
    buffer = io.BytesIO()
    state = {
        "config": algo.config.model_dump(mode="json"),
        "algo": algo.state_dict(),
        "validation": validation and validation.state_dict(),
        "seconds": seconds,
    }
    torch.save(state, buffer)
    sealed.write(path, buffer.getvalue())


def _resume(algo: Algorithm, validation: Validation | None, path: Path) -> float:
    """Returns the seconds trained so far, with `algo` and `validation` as they were then."""
    saved = _saved(path)
    if algo.Config.model_validate(saved["config"] | {"device": algo.config.device}) != algo.config:
        raise Refusal(
            f"{path.name} belongs to a training with other settings; resume with those or start anew"
        )
    algo.load_state_dict(saved["algo"])
    if validation and saved.get("validation"):
        validation.load_state_dict(saved["validation"])
    return saved["seconds"]


def checkpoint_step(path: Path) -> int:
    """Returns the step a training with this checkpoint goes on from; 0 where there is no file."""
    return int(_saved(path)["algo"]["step"]) if path.exists() else 0


def _saved(path: Path) -> dict[str, Any]:
    """Returns what `_save` wrote; a Refusal where the file holds anything else."""
    content = sealed.read(path, ANEW)
    try:
        return dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError):  # of a version that kept no hashes
        raise Refusal(f"{path.parent.name}/{path.name} cannot be read; {ANEW}") from None


def save_critics(critics: CriticEnsemble, path: Path) -> None:
    """Writes the critics to `path`, which lies beside the policy, in one step."""
    sealed.write(path, network_bytes(critics, {}))


def load_critics(path: Path) -> CriticEnsemble:
    """Returns the critics that `save_critics` wrote; a Refusal where the file is not one."""
    network, _ = read_network(path, {"CriticEnsemble": CriticEnsemble})
    return network  # type: ignore[return-value]


def make_config(algo_name: str, preset: str, settings: Mapping[str, str], seed: int) -> TrainerConfig:
    """Returns the config of `algo_name`: its preset, with `settings` as strings over it.

    Lists are separated by commas, an empty string is none. `passes` take the place of a preset's `n_steps`. A
    Refusal names the field and what it allows.
    """
    if algo_name not in ALGOS:
        raise Refusal(f"there is no algorithm {algo_name}; choose one of {', '.join(ALGOS)}")
    algorithm = ALGOS[algo_name]
    if preset not in algorithm.presets:
        raise Refusal(f"{algo_name} has no preset {preset}; choose one of {', '.join(algorithm.presets)}")
    fields = algorithm.Config.model_fields
    unknown = sorted(set(settings) - set(fields))
    if unknown:
        raise Refusal(f"{algo_name} has no setting {unknown[0]}; its settings are {', '.join(fields)}")
    values = {name: _parsed(text, fields[name].annotation) for name, text in settings.items()}
    start = {**algorithm.presets[preset], "seed": seed}
    if values.get("passes"):
        if values.get("n_steps"):
            raise Refusal("n_steps and passes both say how long to train; set one of them")
        start.pop("n_steps", None)
    try:
        return algorithm.Config.model_validate({**start, **values})
    except ValidationError as error:
        raise Refusal.invalid(f"the config of {algo_name}", error) from None


def check_device(device: str) -> None:
    """Refuses a device that this machine does not have."""
    if device == "cuda" and not torch.cuda.is_available():
        raise Refusal(
            "device=cuda, and PyTorch sees no such card on the machine that trains: set device=cpu (of a run that has "
            "begun: `runs resume --device cpu`), or train where there is a card and PyTorch's build for it"
        )


def closest_preset(algo_name: str, config: TrainerConfig) -> str:
    """Returns the preset of `algo_name` from which `config` differs in the fewest settings."""
    algorithm = ALGOS[algo_name]

    def differing(preset: str) -> int:
        start = algorithm.Config.model_validate(algorithm.presets[preset])
        return sum(getattr(start, name) != getattr(config, name) for name in algorithm.Config.model_fields)

    return min(algorithm.presets, key=differing)


def _parsed(text: str, annotation: Any) -> Any:
    if get_origin(annotation) is tuple:
        return [part for part in text.split(",") if part]
    return text or None
