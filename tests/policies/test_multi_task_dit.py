"""The adapter of `multi_task_dit` against stock LeRobot."""

import pytest
import torch
from families import STATE, multi_task_dit, observations

from lerobot_rlft.chains.chain import DDPMKernel
from lerobot_rlft.chains.flow import FlowSDEKernel
from lerobot_rlft.utils.errors import UserError

FLOW = {"objective": "flow_matching"}


def test_the_kernel_is_that_of_the_config():
    assert type(multi_task_dit().kernel) is DDPMKernel
    flow = multi_task_dit(**FLOW, sigma_min=0.1).kernel
    assert (type(flow), flow.num_steps, flow.sign, flow.sigma_min) == (FlowSDEKernel, 5, -1.0, 0.1)


def test_another_integrator_is_refused():
    with pytest.raises(UserError, match=r"integration_method=rk4 .*--policy.integration_method=euler"):
        multi_task_dit(**FLOW, integration_method="rk4")


@pytest.mark.parametrize("fields", [{}, FLOW])
def test_it_encodes_as_stock_lerobot_does(fields):
    policy = multi_task_dit(explore={"noise_level": 0.0}, **fields)
    obs = observations(policy, 2)
    batch = {k: v.float() / 255 if v.dtype == torch.uint8 else v for k, v in obs.items()}
    last = policy.preprocessor({k: v[:, -1] for k, v in batch.items()} | {"task": [policy.task] * 2})
    first = policy.preprocessor({k: v[:, 0] for k, v in batch.items()} | {"task": [policy.task] * 2})
    module = policy.module
    module.reset()
    module.select_action(dict(first))  # the queue now holds it twice
    module._queues["action"].clear()
    torch.manual_seed(7)
    stock = [module.select_action(dict(last)) for _ in range(policy.n_action_steps)]
    torch.manual_seed(7)
    with torch.no_grad():
        mine = policy.executed(policy.deployed_chunk(policy.encode(obs)))
    torch.testing.assert_close(torch.stack(stock, 1), mine, rtol=0, atol=1e-5)


def test_the_instruction_matters_and_must_not_be_missing():
    policy = multi_task_dit(STATE)
    obs = observations(policy, 1)
    with torch.no_grad():
        before = policy.encode(obs)
        policy.task = "the block"
        assert not torch.allclose(policy.encode(obs), before)
    policy.preprocessor.steps = [s for s in policy.preprocessor.steps if "Tokenizer" not in type(s).__name__]
    with pytest.raises(UserError, match=r"lack observation.language.tokens: keep the tokenizer"):
        policy.encode(obs)
