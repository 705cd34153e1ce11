"""Export of a decision transformer to a transformers folder.

export(adapter, position, Path("mine"))         # DecisionTransformerModel.from_pretrained("mine") has its actions
"""

import json
from pathlib import Path

from safetensors.torch import save_file

from core.config import PositionConfig
from domains.rl.adapter import Adapter
from domains.rl.convert import known_of, their_config, their_state


def export(adapter: Adapter, position: PositionConfig, folder: Path) -> list[Path]:
    """Write config.json, model.safetensors, and known.json with values that those lack.

    Their model expects states as (s - mean) / (std + 1e-6), returns divided by return_scale, and vector actions scaled
    from [low, high] to [-1, 1], all of which known.json has; discrete actions are one-hot, and their predictions are
    logits. The return head (model.target_quantile) is left out.

    Raises:
        ValueError: for a model without a counterpart in transformers; nothing is written then.
    """
    theirs = their_config(adapter, position)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "config.json", folder / "model.safetensors", folder / "known.json"]
    save_file(their_state(adapter, theirs), paths[1], {"format": "pt"})
    for path, told in ((paths[0], theirs), (paths[2], known_of(adapter))):
        path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return paths
