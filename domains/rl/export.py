"""A decision transformer as a folder of transformers.

export(adapter, position, Path("mine"))         # DecisionTransformerModel.from_pretrained("mine") has its actions
"""

import json
from pathlib import Path

from safetensors.torch import save_file

from core.config import PositionConfig
from domains.rl.adapter import Adapter
from domains.rl.convert import known_of, their_config, their_state


def export(adapter: Adapter, position: PositionConfig, folder: Path) -> list[Path]:
    """Write config.json, model.safetensors, and known.json with what those do not say.

    Theirs wants states as (s - mean) / (std + 1e-6), returns in parts of return_scale, and actions in parts of their
    range, from low (-1) to high (1), all of which known.json has; actions that are numbers it wants one-hot, and
    gives logits for. The predicted target (model.target_quantile) is left out.

    Raises:
        ValueError: for a model that transformers has no like of; nothing is written then.
    """
    theirs = their_config(adapter, position)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "config.json", folder / "model.safetensors", folder / "known.json"]
    save_file(their_state(adapter, theirs), paths[1], {"format": "pt"})
    for path, told in ((paths[0], theirs), (paths[2], known_of(adapter))):
        path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return paths
