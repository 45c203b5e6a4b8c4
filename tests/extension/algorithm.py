"""An algorithm: successes are made more likely."""

from dataclasses import dataclass

import torch

from lerobot_rlft.algorithms.base import Algorithm, AlgorithmConfig
from lerobot_rlft.chains.chain import step_log_prob


@AlgorithmConfig.register_subclass("toy_imitation_of_successes")
@dataclass
class ToyConfig(AlgorithmConfig):
    """Maximise the likelihood of the last denoising step of what succeeded."""

    consumes = "rollouts"
    lr: float = 1e-3

    def build(self, parts):
        return Toy(self, parts)


class Toy(Algorithm):
    floor = 0.1

    def __init__(self, config, parts):
        self.policy, self.backward = parts.policy, parts.backward
        self.optimizer = torch.optim.Adam(self.policy.trainable_parameters(), config.lr)

    def explore(self, condition):
        return self.policy.sample(condition, self.floor, self.floor)

    def update(self, data):
        policy, k = self.policy, torch.zeros(len(data.t), dtype=torch.long)
        condition = policy.encode_all(data.obs, len(data.t))
        normal = policy.transition(data.chain.x[:, 1], k, condition)
        log_prob = step_log_prob(normal, data.chain.x[:, 0], policy.executed, self.floor)  # (D,)
        loss = -(data.success[data.episode].float() * log_prob).mean()
        self.optimizer.zero_grad()
        self.backward(loss)
        self.optimizer.step()
        return {"toy_loss": loss.item()}

    def progress(self, metrics):
        return f"loss {metrics['toy_loss']:.2f}"

    def state_dict(self):
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state["optimizer"])
