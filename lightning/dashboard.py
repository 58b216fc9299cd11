"""``make dashboard``: a W&B workspace for a project, made from code.

The spec is written to a file; with a login the saved view of its name is created or updated.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from deepacc_d2.errors import ConfigError
from deepacc_d2.files import write_json
from deepacc_d2.secret import redacted
from deepacc_lightning.core.cli import run_entry_point, run_guarded
from deepacc_lightning.core.config import config_dir
from deepacc_lightning.core.run_info import make_run_dir
from deepacc_lightning.wandb.connection import is_logged_in, unreachable
from deepacc_lightning.wandb.panels import COLUMNS, build_sections, stable_id


def build_workspace(cfg: DictConfig, entity: str = "") -> Any:
    """Builds the workspace; nothing is sent.

    Args:
        cfg: as in ``conf/dashboard.yaml``.
        entity: whose project it is.

    Raises:
        ConfigError: a value that W&B does not take.
    """
    import wandb_workspaces.workspaces as ws

    try:
        workspace = ws.Workspace(
            entity=entity,
            project=cfg.project,
            name=cfg.name,
            sections=build_sections(list(cfg.parameters), cfg.metric),
            settings=ws.WorkspaceSettings(x_axis="Step", max_runs=100),
            runset_settings=ws.RunsetSettings(
                pinned_columns=[
                    *COLUMNS,
                    *(f"config:{name}.value" for name in cfg.parameters),
                ],
            ),
        )
    except ValueError as error:  # pydantic's is one
        raise ConfigError(f"W&B takes no such dashboard: {' '.join(str(error).split())}") from error
    # By these W&B knows a view again: made of its name, so that a second call finds the first.
    # Its library gives a new view a random name and has no public way to choose one, to look for
    # one by it, or (spec_of) to write a view down without sending it.
    workspace._internal_name = f"nw-{stable_id(cfg.name)}-v"
    workspace._internal_runset_id = stable_id(f"{cfg.name}/runs")
    return workspace


def spec_of(workspace: Any) -> dict[str, Any]:
    """Returns what is sent to W&B, as plain values."""
    view = workspace._to_model()
    return {
        "project": view.project,
        "display_name": view.display_name,
        "name": view.name,
        "spec": json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True)),
    }


def upload(workspace: Any) -> str:
    """Creates the view, or replaces that of its name; makes the project where there is none.

    Returns:
        Its address.

    Raises:
        ConfigError: W&B refuses.
    """
    import wandb
    from wandb_workspaces.workspaces import internal

    try:
        api = wandb.Api()
        workspace.entity = workspace.entity or api.default_entity
        api.create_project(workspace.project, workspace.entity)  # nothing happens to one that is
        slug = internal._internal_name_to_url_query_str(workspace._internal_name)
        try:
            found = internal.get_view_dict(workspace.entity, workspace.project, slug)
            workspace._internal_id = found["id"]
        except ValueError:  # there is none yet
            pass
        workspace.save()
    except (wandb.errors.Error, OSError, ValueError) as error:
        raise ConfigError(
            f"W&B refuses the dashboard of project {workspace.project}: "
            f"{' '.join(str(error).split())}"
        ) from error
    return str(workspace.url)


def run(cfg: DictConfig) -> Path:
    """Writes the spec, and with a login creates or updates the view.

    Returns:
        The file of the spec.

    Raises:
        ConfigError: a bad value, a directory that cannot be written, or a server that does not
            answer or refuses.
    """
    # What W&B prints of its own would come between our lines.
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    workspace = build_workspace(cfg, cfg.entity or "")
    out = Path(cfg.out).resolve()
    make_run_dir(out.parent)
    write_json(out, spec_of(workspace))
    print(f"dashboard  {out}")
    if not is_logged_in():
        print(f"not logged in to W&B: run `wandb login`, then `{command(cfg)}` to create it there")
        return out
    url = wandb.setup().settings.base_url
    reason = unreachable(url, cfg.timeout)
    if reason:
        raise ConfigError(
            f"the W&B server {url} cannot be reached ({reason}): run `{command(cfg)}` again later"
        )
    print(f"view       {upload(workspace)}")
    return out


def command(cfg: DictConfig) -> str:
    """Returns the command that makes this dashboard."""
    words = ["make", "dashboard", f"PROJECT={shlex.quote(cfg.project)}"]
    if cfg.entity:
        words.append(f"ENTITY={shlex.quote(cfg.entity)}")
    return str(redacted(os.environ.get("DEEPACC_COMMAND") or " ".join(words)))


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="dashboard")
def main(cfg: DictConfig) -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    run_guarded(run, cfg)


if __name__ == "__main__":
    run_entry_point("dashboard", main)
