"""One refit: the pretrained policy's own loss on labelled episodes, from the pretrained weights."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..algorithms.bc import BC
from ..algorithms.recap import RecapConfig
from ..algorithms.refit import RefitConfig
from ..configs.train import TrainConfig
from ..datasets.mixing import MixedLoader
from ..datasets.windows import Batch
from ..policies.advantage_prompt import TASK, prompts, reads_language, told
from ..policies.base import DenoisingPolicy
from ..policies.conditioning import LABEL, AdvantageEmbedding, Conditioned, drop_labels, keeping_labels
from ..policies.loading import load_policy
from ..policies.rlft_guided.adapter import guided
from ..utils.errors import UserError
from ..utils.files import remove, replacing
from .checkpoint import load_state, write_state


class Refit:
    """The policy in training, what it is told, and how it is exported.

    Args:
        config: of the run; its policy is loaded anew.

    Raises:
        UserError: the policy cannot be conditioned as configured.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config, algorithm = config, config.algorithm
        self.policy = load_policy(
            deepcopy(config.policy), config.policy.pretrained_path, trust=config.trust_remote_code
        )
        self.embedding = make_embedding(algorithm, self.policy)
        module: nn.Module = self.policy.module
        preprocess = self._untold
        if isinstance(algorithm, RecapConfig):
            if self.embedding is None:
                preprocess = self._prompted
            else:
                module = Conditioned(module, self.embedding, algorithm.label_dropout)
                preprocess = keeping_labels(self.policy.preprocessor)
        optimizer = config.policy.get_optimizer_preset().build(self._parameters())
        self._speed_up_embedding(optimizer)
        schedule = config.policy.get_scheduler_preset()
        scheduler = schedule and schedule.build(optimizer, config.iterations)
        self.trainer = BC(algorithm, module, preprocess, optimizer, scheduler)
        self.step = 0

    def _parameters(self) -> Any:
        params = self.policy.module.get_optim_params()
        if self.embedding is None:
            return params
        groups = list(params.values() if isinstance(params, dict) else params)
        groups = groups if groups and isinstance(groups[0], dict) else [{"params": groups}]
        return [*groups, {"params": [self.embedding.weight]}]

    def _speed_up_embedding(self, optimizer: torch.optim.Optimizer) -> None:
        """Before a schedule is made, which remembers the rates it finds."""
        if self.embedding is not None:
            optimizer.param_groups[-1]["lr"] *= self.config.algorithm.embedding_lr_scale

    def _untold(self, batch: Batch) -> Batch:
        return self.policy.preprocessor({k: v for k, v in batch.items() if k != LABEL})

    def _prompted(self, batch: Batch) -> Batch:
        labels = drop_labels(batch[LABEL], self.config.algorithm.label_dropout)
        return self._untold({**batch, TASK: prompts(batch[TASK], labels.tolist())})

    def train(
        self,
        loader: MixedLoader,
        folder: Path,
        on_step: Callable[[int, dict[str, float]], None],
    ) -> None:
        """Run the gradient steps that are left.

        Args:
            folder: the state is kept here every `save_freq` steps.
            on_step: called after each step.

        Raises:
            FloatingPointError: loss or gradient is NaN or inf.
        """
        config = self.config
        while self.step < config.iterations:
            metrics = self.trainer.update(next(loader))
            self.step += 1
            on_step(self.step, metrics)
            if config.save_freq and self.step % config.save_freq == 0 and self.step < config.iterations:
                self._save(loader, folder)

    def _save(self, loader: MixedLoader, folder: Path) -> None:
        state = {"algorithm": self.trainer.state_dict(), "loader": loader.state_dict(), "step": self.step}
        with replacing(folder) as partial:
            write_state(partial, state)

    def resume(self, loader: MixedLoader, folder: Path) -> None:
        """Go on from the state in `folder`, if there is one.

        Raises:
            UserError: it does not fit the configuration or the data.
        """
        if not folder.is_dir():
            return
        try:
            state = load_state(folder)
            self.trainer.load_state_dict(state["algorithm"])
            loader.load_state_dict(state["loader"])
            self.step = state["step"]
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(
                f"the interrupted refit in {folder} does not fit the configuration or the advantages "
                f"({error}): delete the folder and start this refit anew"
            ) from error

    def export(self, folder: Path) -> None:
        """Write the policy as it is deployed: told "positive".

        With an embedding and guidance weight 1 that is an ordinary checkpoint; the embedding becomes part of
        a bias, and this refit is over.
        """
        algorithm = self.config.algorithm
        with self.trainer.deployed_weights():
            if not isinstance(algorithm, RecapConfig):
                self.policy.save_pretrained(folder)
            elif self.embedding is None:
                told(self.policy.preprocessor)
                self.policy.save_pretrained(folder)
            elif algorithm.guidance_weight != 1:
                guided(self.policy, self.embedding, algorithm.guidance_weight).save_pretrained(folder)
            else:
                self.embedding.fold(self.policy.condition_layer)
                self.policy.save_pretrained(folder)

    def export_guided(self, folder: Path) -> None:
        """Write the conditioned policy, its guidance weight still to be chosen, where that is possible."""
        if self.embedding is None or self.policy.network_path is None:
            remove(folder)  # of an earlier refit in another form
            return
        with self.trainer.deployed_weights(), replacing(folder) as partial:
            guided(self.policy, self.embedding, self.config.algorithm.guidance_weight).save_pretrained(
                partial
            )


def check_form(algorithm: RefitConfig, policy: DenoisingPolicy) -> None:
    """Raise a UserError unless the policy can be told labels in the form that is asked for."""
    if not isinstance(algorithm, RecapConfig):
        return
    kind = policy.module.config.type
    if algorithm.form == "text":
        if not reads_language(policy.preprocessor):
            raise UserError(
                f"algorithm.form=text needs a policy that reads language, policy.type={kind} does not: "
                "choose --algorithm.form=embedding"
            )
        return
    if policy.condition_path is None:
        raise UserError(
            f"algorithm.form=embedding: policy.type={kind} has no layer that could be told an advantage, "
            "choose text if it reads language"
        )
    if algorithm.guidance_weight != 1 and policy.network_path is None:
        raise UserError(
            f"algorithm.guidance_weight={algorithm.guidance_weight}: policy.type={kind} cannot be guided, "
            "choose 1"
        )


def make_embedding(algorithm: RefitConfig, policy: DenoisingPolicy) -> AdvantageEmbedding | None:
    """The embedding of a policy that is to be told labels by one.

    Raises:
        UserError: see `check_form`.
    """
    check_form(algorithm, policy)
    if not isinstance(algorithm, RecapConfig) or algorithm.form == "text":
        return None
    return AdvantageEmbedding(policy.condition_layer)
