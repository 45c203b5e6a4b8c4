"""Cards of what is published, from the templates in `hub_cards/` and the numbers that were measured."""

from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import CardData, EvalResult, ModelCard, ModelCardData, RepoCard
from jinja2.meta import find_undeclared_variables

from .. import hub_cards
from ..configs.packages import flags, stock_flags
from ..configs.pretrained import needs_plugin
from ..configs.push import PushConfig
from ..envs.options import eval_command
from ..evaluation.report import PICTURES
from ..evaluation.tables import headlines, side_by_side
from ..metrics.keys import BLOCKED, KEYS
from ..utils.errors import UserError
from ..utils.run_folder import CONFIG_NAME
from ..utils.tables import markdown_table
from .escape import escaped, escaped_texts, one_text, shortened
from .finished_run import Run
from .lineage import Ancestor, lineage
from .results import SHARES

TEMPLATES = Path(hub_cards.__file__).parent
TASK = "robotics"
# Of diversity.json, in the evaluation results that the Hub shows. Those after success are claims about modes.
RESULTS = ("success", "entropy_ratio", "modes_covered", "effective_modes", "min_retention", f"{BLOCKED}_mean")


def render(kind: type[RepoCard], data: CardData, template: Path, fields: dict[str, Any]) -> str:
    """Fill a template.

    Raises:
        UserError: it is missing, no Jinja, or has fields that are not known.
    """
    try:
        text = template.read_text()
        names = find_undeclared_variables(jinja2.Environment().parse(text))
    except (OSError, UnicodeDecodeError, jinja2.TemplateSyntaxError) as error:
        raise UserError(f"--card_template={template} is no template: {error}") from error
    choices = {"card_data", *fields}
    if unknown := sorted(names - choices):
        raise UserError(
            f"--card_template={template} has an unknown field {unknown[0]}, "
            f"known: {', '.join(sorted(choices))}"
        )
    try:
        card = kind.from_template(data, template_str=text, **fields)
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise UserError(f"--card_template={template} cannot be filled: {error}") from error
    return str(card)


def evaluation_results(m: dict[str, Any]) -> list[EvalResult]:
    """Results for the Hub's model page. Where the episodes carry no claim about modes, only success.

    Args:
        m: content of diversity.json.
    """
    names = RESULTS if m.get("base_success") is not None and m["claim_refusal"] is None else RESULTS[:1]
    out = []
    for name in names:
        if m.get(name) is None:
            continue
        args = {"ci_95": m.get(f"{name}_ci"), "base": m.get(f"base_{name}")}
        out.append(
            EvalResult(
                task_type=TASK,
                task_name=TASK.title(),
                dataset_type=shortened(m["env"]),
                dataset_name=shortened(m["env"]),
                dataset_args={"n_episodes": m["n_episodes"], "first_seed": m["seed"], **m["env_options"]},
                metric_type=name,
                metric_name=KEYS[name].partition(";")[0],
                metric_value=m[name],
                metric_args={key: value for key, value in args.items() if value is not None} or None,
            )
        )
    return out


def policy_card(
    repo_id: str,
    m: dict[str, Any] | None,
    front: dict[str, Any],
    fields: dict[str, Any],
    template: Path | None,
) -> str:
    """The card of a policy.

    Args:
        m: content of diversity.json; None where nothing was measured.
        front: entries of the metadata beside those that are always the same.
        fields: what the template needs beside what follows from `m`.
        template: None takes the one of this package.
    """
    results = evaluation_results(m) if m else None
    m = escaped_texts(m)
    data = ModelCardData(
        library_name="lerobot",
        pipeline_tag=TASK,
        model_name=repo_id.partition("/")[2] if results else None,
        eval_results=results,
        **front,
    )
    content = {"headline": [], "table": "", "measured_by": "", **fields}
    if m is not None:
        has_base = m.get("base_success") is not None
        content["table"] = table(m) if has_base else alone(m)
        content["headline"] = headlines(m) if has_base else []
        each = " of each, on the same seeds" if has_base else ""
        content["measured_by"] = (
            f"{m['n_episodes']} episodes{each} (from {m['seed']} up), of the deployed sampler, in "
            f"`{m['env']}`{env_options(m)}. In brackets 95 % intervals."
        )
    content["license"] = front.get("license")
    return render(ModelCard, data, template or TEMPLATES / "policy.md", content)


def env_options(m: dict[str, Any]) -> str:
    """Options of the environment that differ from its defaults, as part of a sentence."""
    return "".join(f", {name} {value}" for name, value in m["env_options"].items())


def table(m: dict[str, Any]) -> str:
    """Base beside tuned, as Markdown."""
    head, *lines = side_by_side(m)
    return markdown_table(head, lines)


def alone(m: dict[str, Any]) -> str:
    """A policy without a base, as Markdown."""
    low, high = m["success_ci"]
    lines = [["success", f"{m['success']:.3f} [{low:.3f}, {high:.3f}]"]]
    if m.get("mode_counts"):
        num_used = sum(count > 0 for count in m["mode_counts"])
        lines.append(["modes with a success", f"{num_used} of {m['num_modes']}"])
    return markdown_table(("", ""), lines)


def limits(m: dict[str, Any] | None, run: dict[str, Any]) -> list[str]:
    """Limits of the measurement, and the losses it showed."""
    out = [f"One training run, seed {escaped(run['seed'])}: nothing is said about other seeds."]
    if m is None:
        return out
    out.append(f"Measured in `{escaped(m['env'])}` and nowhere else.")
    if m.get("base_mode_counts") and m.get("mode_counts"):
        sides = enumerate(zip(m["mode_counts"], m["base_mode_counts"], strict=True))
        if gaps := [str(i) for i, (tuned, base) in sides if base and not tuned]:
            out.append(f"Modes of the base without a success: {', '.join(gaps)}.")
    if m.get(f"{BLOCKED}_mean") is None:
        out.append("How it fares when a way of solving the task is blocked was not measured.")
    return out


def run_card(
    run: Run,
    base: Ancestor | None,
    config: dict[str, Any],
    m: dict[str, Any] | None,
    gaps: list[str],
    files: list[str],
    options: PushConfig,
) -> str:
    """README.md of a run's policy.

    Args:
        config: as it is published.
        m: content of diversity.json as it is published; None where nothing was measured.
        gaps: why a number is not there.
        files: what is published beside it.
    """
    algorithm, env = run.algorithm, run.env
    kind, dataset = run.policy_type, run.config["dataset"]
    datasets = [dataset["repo_id"]] if dataset["repo_id"] and dataset["root"] is None else []
    base_datasets = base.datasets if base is not None else []
    datasets += [name for name in base_datasets if name not in datasets]
    tags = [
        "lerobot",
        "robotics",
        kind,
        config["policy"]["type"],
        algorithm.type,
        env and env.type,
        *options.tags,
    ]
    if algorithm.consumes == "rollouts":
        tags.insert(2, "reinforcement-learning")
    license = options.license or config["policy"]["license"] or (base.license if base is not None else None)
    front: dict[str, Any] = {"license": license and shortened(license)}
    front |= {
        "tags": list(dict.fromkeys(shortened(tag) for tag in tags if tag)),
        "datasets": datasets or None,
    }
    if base is not None and base.revision is not None:
        front |= {"base_model": base.name, "base_model_relation": "finetune"}
    shares, paths = f"{PICTURES}/{SHARES}", f"{PICTURES}/trajectories.png"
    picture = shares if shares in files else paths if paths in files else None
    packages = dict(config.get("packages") or {})
    summary = (run.summary or {}) if run.final and env is not None else {}
    guard = summary.get("guard")
    fields = {
        "repo_id": options.repo_id,
        "policy_type": escaped(kind),
        "algorithm": escaped(algorithm.type),
        "base": base and str(base),
        "base_missing": base is not None and base.revision is None,
        "not_measured": [escaped(reason) for reason in gaps],
        "picture": picture,
        "caption": "Shares of the modes among successes, deployed sampler."
        if picture == shares
        else "Episodes of the deployed sampler, successes coloured by mode.",
        "lineage": lineage(run.config, run.iteration, base),
        "env": env and escaped(env.type),
        "env_is_ours": env is not None and type(env).__module__.startswith("lerobot_rlft."),
        "env_steps": summary.get("env_steps"),
        "packages": [escaped(package) for package in packages.values()],
        "guard": guard and _guard(guard),
        "papers": algorithm.papers,
        "rerun_command": one_text(
            f"lerobot-rlft-train --config_path={CONFIG_NAME} --output_dir=outputs/again{flags(packages)}"
        ),
        "stock": not needs_plugin(kind),
        "eval_command": one_text(eval_command(options.repo_id, env, stock_flags(packages)))
        if env
        else f"lerobot-rollout{stock_flags(packages)} --policy.path={options.repo_id} ...",
        "limits": limits(m, run.config),
    }
    return policy_card(options.repo_id, m, front, fields, options.card_template)


def _guard(verdict: dict[str, Any]) -> str:
    metric = escaped(verdict["metric"]).replace("_", " ")
    return (
        f"A guard with floor {escaped(verdict['floor'])} under the base's {metric} was on while it trained; "
        f"exported is the checkpoint of iteration {escaped(verdict['iteration'])}, at "
        f"{verdict['ratio']:.3f} of the base's."
    )
