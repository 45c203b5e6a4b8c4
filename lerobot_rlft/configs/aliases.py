"""Options as earlier versions spelled them, in recipes, on the command line and in the folders of runs."""

import sys
from typing import Any

# Null in files of earlier versions, where it meant the default.
ONCE_NULL = ("objective", "actor_lr", "update_epochs", "critic_epochs", "eta", "noise_level",
             "min_sampling_std")  # fmt: skip
# Options of the chain, without effect on objective=forward, and those that it refused unless they are these.
OF_CHAIN = (
    "objective", "clip_coef", "clip_coef_base", "clip_coef_rate", "clip_range", "clip_range_base",
    "clip_range_rate", "noise_std_range", "normalize_advantage", "target_kl", "max_step_kl",
)  # fmt: skip
# Trust region of dppo in means over the numbers of a chunk, with the defaults it had; today it is in nats.
IN_MEANS = {"clip_coef": 0.1, "clip_coef_base": 0.1, "clip_coef_rate": 1.0, "target_kl": 1.0}
REFUSED = {"flow_noise": "sde", "hybrid": False}


def current(config: dict[str, Any]) -> dict[str, Any]:
    """The whole configuration in today's words.

    `algorithm.objective=forward` of dppo is the algorithm nft. A guard chose it where nothing else was said,
    and still does: with `algorithm.objective=chain` it holds DPPO.
    """
    algorithm = config.get("algorithm")
    if not isinstance(algorithm, dict) or algorithm.get("type") != "dppo":
        return config
    algorithm = {k: v for k, v in algorithm.items() if v is not None or k not in ONCE_NULL}
    guard = config.get("guard")
    has_guard = isinstance(guard, dict) and guard.get("enable") is True
    objective = algorithm.get("objective", "forward" if has_guard else "chain")
    if objective != "forward":
        algorithm.pop("proximal_coef", None)  # saved beside objective=chain, without effect
        return config | {"algorithm": _in_nats(algorithm)}
    cause = "algorithm.objective=forward" if "objective" in algorithm else "guard.enable=true"
    print(
        f"warning: --algorithm.type=dppo with {cause} is read as --algorithm.type=nft; for PPO on the chain "
        "give --algorithm.objective=chain",
        file=sys.stderr,
    )
    leftovers = [k for k, v in algorithm.items() if k in OF_CHAIN or (k in REFUSED and v == REFUSED[k])]
    options = {k: v for k, v in algorithm.items() if k not in leftovers}
    return config | {"algorithm": options | {"type": "nft"}}


def _in_nats(algorithm: dict[str, Any]) -> dict[str, Any]:
    """Without the options of the former trust region, which say nothing about today's."""
    names = [k for k, default in IN_MEANS.items() if algorithm.get(k, default) != default]
    if names:
        print(
            f"warning: algorithm.{', algorithm.'.join(names)} bounded means over the numbers of a chunk and "
            "is left out: choose clip_range and max_step_kl, in nats of the whole chunk",
            file=sys.stderr,
        )
    return {key: value for key, value in algorithm.items() if key not in IN_MEANS}
