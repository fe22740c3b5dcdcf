"""Measures one full update, 24 critics and an actor, against d3rlpy and against a list of 24 modules.

`autograd` is the engine with the gradients of its critics left to PyTorch instead of written out.

Batch 256, 74 observation features, 10 actions, float32. Each contender lives in a process of its own with the
same environment and number of threads, and does a few updates in turn, round after round; the median round
counts. Run it on an idle machine.

d3rlpy 2.8.1 runs its DDPG with `n_critics=24`, which updates critics, actor and targets at every step, in a
virtual environment that this script creates beside the project (`.venv-d3rlpy`); it gets a batch that is drawn
already. The last columns say how much of the machine's measured matmul rate an update reaches.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from peers import peer_python

ROOT = Path(__file__).parent.parent
PEER_REQUIREMENTS = ("torch==2.13.0", "d3rlpy==2.8.1")

N_CRITICS, BATCH, N_FEATURES, N_ACTIONS = 24, 256, 74, 10
UPDATES = {64: 40, 256: 10}
"""Updates per round by hidden size; the two hidden layers are equally wide."""
ROUNDS = 5
TARGET = {64: 3.0, 256: 1.25}
MATMUL_SIZE = 2048


def engine(hidden: int) -> Callable[[], object]:
    """Returns one update of IntegratedRL-MTF, its batch drawn from 20,000 transitions."""
    import numpy as np

    sys.path.insert(0, str(ROOT))
    from mtf_engine.algos.integrated_rl import IntegratedRL, IntegratedRLConfig
    from tests import problems

    problems.N_FEATURES = N_FEATURES
    log = problems.sessions(n=20_001, n_actions=N_ACTIONS)
    assert log[:].observations.dtype == np.float32
    trainer = IntegratedRL(IntegratedRLConfig(n_critics=N_CRITICS, hidden=(hidden, hidden)), log)
    data = trainer.prepare(log)
    return lambda: trainer.update(data.draw(BATCH, trainer.generator))


def autograd(hidden: int) -> Callable[[], object]:
    """Returns the engine's update with the gradients of its critics by automatic differentiation."""
    import torch

    update = engine(hidden)
    from mtf_engine.policies.networks import CriticEnsemble

    def forward(
        critics: CriticEnsemble, state: torch.Tensor, actions: torch.Tensor, learn: bool = True
    ) -> torch.Tensor:
        weights, biases = (
            [p if learn else p.detach() for p in parameters]
            for parameters in (critics.weights, critics.biases)
        )
        inputs = torch.cat([state, actions], dim=1)
        sums = torch.addmm(biases[0], weights[0].t(), inputs.t())
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            layer = sums.relu().view(critics.n_critics, weight.shape[1], len(inputs))
            sums = torch.baddbmm(bias, weight.transpose(1, 2), layer)
        return sums[:, 0]

    CriticEnsemble.forward = forward  # type: ignore[method-assign]
    return update


def modules(hidden: int) -> Callable[[], object]:
    """Returns the same update written with a list of 24 modules and a loop over them."""
    import torch
    from torch import nn

    def mlp(n_in: int, n_out: int, *last: nn.Module) -> nn.Sequential:
        hidden_layers = (nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        return nn.Sequential(*hidden_layers, nn.Linear(hidden, n_out), *last)

    def ensemble() -> nn.ModuleList:
        return nn.ModuleList(mlp(N_FEATURES + 2 * N_ACTIONS, 1) for _ in range(N_CRITICS))

    actor, target_actor = (mlp(N_FEATURES, N_ACTIONS, nn.Tanh()) for _ in range(2))
    critics, targets = ensemble(), ensemble()
    actor_optimiser = torch.optim.Adam(actor.parameters(), 1e-4)
    critic_optimiser = torch.optim.Adam(critics.parameters(), 1e-3)
    observations, following = torch.randn(2, BATCH, N_FEATURES)
    baseline, logged, rewards = (
        torch.zeros(BATCH, N_ACTIONS),
        torch.rand(BATCH, N_ACTIONS),
        torch.randn(BATCH),
    )
    half_width, step = 0.15, 0

    def q(of: nn.ModuleList, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        inputs = torch.cat([states, baseline, actions / half_width], dim=1)
        return torch.stack([critic(inputs)[:, 0] for critic in of])

    def penalty(actions: torch.Tensor) -> torch.Tensor:
        return torch.expm1(((actions.abs() / half_width - 1).clamp(min=0) / 0.6).clamp(max=5)).sum(1)

    def update() -> None:
        nonlocal step
        with torch.no_grad():
            actions = target_actor(following)
            target = rewards + 0.9 * (q(targets, following, actions) - penalty(actions))
        critic_optimiser.zero_grad()
        (q(critics, observations, logged) - target).square().mean(1).sum().backward()
        critic_optimiser.step()
        actions = actor(observations)
        values = q(critics, observations, actions)
        disagreement = (values.var(0, correction=0) + 1e-6).sqrt()
        actor_optimiser.zero_grad()
        (-values.mean(0) + 1.2 * penalty(actions) + 0.2 * disagreement).mean().backward()
        actor_optimiser.step()
        step += 1
        if step % 15 == 0:
            with torch.no_grad():
                for theirs, own in ((targets, critics), (target_actor, actor)):
                    for old, new in zip(theirs.parameters(), own.parameters(), strict=True):
                        old.lerp_(new, 0.08)

    return update


def d3rlpy(hidden: int) -> Callable[[], object]:
    """Returns one update of d3rlpy's DDPG with 24 critics on a batch drawn beforehand."""
    import d3rlpy
    import numpy as np

    generator = np.random.default_rng(0)
    n = 10_000
    log = d3rlpy.dataset.MDPDataset(
        observations=generator.normal(size=(n, N_FEATURES)).astype(np.float32),
        actions=generator.uniform(-1, 1, (n, N_ACTIONS)).astype(np.float32),
        rewards=generator.normal(size=n).astype(np.float32),
        terminals=(np.arange(n) % 5 == 4).astype(np.float32),
    )
    encoder = d3rlpy.models.VectorEncoderFactory([hidden, hidden])
    trainer = d3rlpy.algos.DDPGConfig(
        batch_size=BATCH,
        gamma=0.9,
        tau=0.08,
        n_critics=N_CRITICS,
        actor_encoder_factory=encoder,
        critic_encoder_factory=encoder,
    ).create(device="cpu:0")
    trainer.build_with_dataset(log)
    batch = log.sample_transition_batch(BATCH)
    return lambda: trainer.update(batch)


def matmul(_: int) -> Callable[[], object]:
    """Returns one product of two large square matrices: what the machine can do."""
    import torch

    a, b = torch.randn(2, MATMUL_SIZE, MATMUL_SIZE)
    return lambda: a @ b


CONTENDERS = {f.__name__: f for f in (engine, autograd, modules, d3rlpy, matmul)}


def work(name: str, hidden: int, n_threads: int) -> None:
    """Does as many updates as each line of stdin says, and answers with milliseconds per update."""
    import torch

    torch.set_num_threads(n_threads)
    update = CONTENDERS[name](hidden)
    for _ in range(3):
        update()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            update()
        print((time.perf_counter() - start) / int(line) * 1e3, flush=True)


class Contender:
    """A process that updates on demand."""

    def __init__(self, name: str, hidden: int, n_threads: int) -> None:
        python = peer_python("d3rlpy", *PEER_REQUIREMENTS) if name == "d3rlpy" else sys.executable
        keep_memory = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
        self.process = subprocess.Popen(
            [python, __file__, "--work", name, "--hidden", str(hidden), "--threads", str(n_threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | keep_memory | {"OMP_NUM_THREADS": str(n_threads)},
        )
        while (line := self._line()) != "ready":
            assert line, f"{name} did not start; run: {python} {__file__} --work {name}"
        self.rounds: list[float] = []

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def run(self, n: int) -> None:
        assert self.process.stdin
        print(n, file=self.process.stdin, flush=True)
        self.rounds.append(float(self._line()))

    def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def flops(hidden: int) -> int:
    """Returns the multiplications and additions of the matmuls that an update cannot do without."""
    first, second = (N_FEATURES + 2 * N_ACTIONS) * hidden, hidden * hidden + hidden
    seen = N_ACTIONS * hidden
    forward = first + second
    critics = 2 * forward + first + 2 * second  # targets, values, and gradients of weights and hidden layers
    actors = forward + second + seen  # values, and gradients of the actions alone
    return 2 * BATCH * N_CRITICS * (critics + actors)


def measure(hidden: int, n_threads: int) -> dict[str, float]:
    """Returns the median milliseconds per update of each contender."""
    contenders = {name: Contender(name, hidden, n_threads) for name in CONTENDERS}
    for _ in range(ROUNDS):
        for name, contender in contenders.items():
            contender.run(3 if name == "matmul" else UPDATES[hidden])
    for contender in contenders.values():
        contender.stop()
    return {name: statistics.median(contender.rounds) for name, contender in contenders.items()}


def report(hidden: int, n_threads: int, ms: dict[str, float]) -> bool:
    """Prints one row, and returns whether the target is met."""
    rate, peak = flops(hidden) / ms["engine"] / 1e6, 2 * MATMUL_SIZE**3 / ms["matmul"] / 1e6
    gain, over_modules, written = (ms[peer] / ms["engine"] for peer in ("d3rlpy", "modules", "autograd"))
    print(
        f"{hidden:>6} {n_threads:>7} {ms['engine']:>8.1f} {ms['autograd']:>8.1f} {ms['modules']:>8.1f} "
        f"{ms['d3rlpy']:>8.1f} {written:>10.2f}x {over_modules:>9.1f}x {gain:>7.1f}x "
        f"{TARGET[hidden]:>6.2f}x {rate:>8.0f} {peak:>8.0f} {rate / peak:>6.0%}",
        flush=True,
    )
    return gain >= TARGET[hidden]


def main() -> int:
    """Returns 0 where every target is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    cores = sorted({1, os.cpu_count() or 1})
    parser.add_argument("--threads", type=int, nargs="+", default=cores, help="1 and all cores by default")
    parser.add_argument("--hidden", type=int, nargs="+", default=list(UPDATES))
    parser.add_argument("--work", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.hidden[0], options.threads[0])
        return 0
    print(
        "milliseconds per update, median of 5 interleaved rounds; GFLOP/s of the engine and of a large matmul"
    )
    print(
        "hidden threads   engine autograd  modules   d3rlpy vs autograd vs modules vs d3rlpy target"
        "   engine   matmul  share"
    )
    met = [report(h, n, measure(h, n)) for n in options.threads for h in options.hidden]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
