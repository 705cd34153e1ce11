"""`attend import`: convert a model of another library to a run folder with the same outputs."""

from pathlib import Path
from shlex import quote
from typing import Any

from omegaconf import DictConfig, OmegaConf

from domains.adapter import DomainAdapter
from domains.data_warnings import record_data_warnings
from experiments.compose import compose
from experiments.console import make_console
from experiments.environment import environment
from experiments.runs import write_config, write_json, write_weights
from experiments.transformers_folder import INDEX_FILE, read_json, read_state_dict

SOURCES = ("timm", "transformers", "gguf")


def run(config: DictConfig) -> None:
    """Write the run folder `config.run`: config.yaml, spec.json, weights.safetensors and summary.json.

    Raises:
        ValueError: for a source, a model or a file that cannot be imported; nothing is written then.
    """
    if config.source not in SOURCES:
        raise ValueError(f"source={config.source} is unknown; possible: {', '.join(SOURCES)}")
    folder = Path(config.run)
    if (folder / "weights.safetensors").exists():
        raise ValueError(f"{folder} holds a run already; give another run=…")
    read = {"timm": from_timm, "gguf": from_gguf, "transformers": from_transformers}[config.source]
    with record_data_warnings() as data_warnings:
        domain, adapter, position, spec = read(config)
    data = ["data=images", f"data.size={spec['size'][0]}"] if domain == "vision" else []
    composed = compose("config", [f"domain={domain}", f"run={folder}", *data])
    composed.model = OmegaConf.structured(adapter.config)
    composed.position = OmegaConf.structured(position)
    write_config(folder, composed, spec)
    write_weights(folder, adapter.state_dict())
    count = sum(p.numel() for p in adapter.parameters())
    options_given = {key: value for key, value in OmegaConf.to_container(config).items() if value is not None}  # pyright: ignore
    summary = {"domain": domain, "imported": options_given, "parameters": count, "data_warnings": data_warnings}
    write_json(folder / "summary.json", {**summary, **environment()})
    console = make_console()
    console.print(f"{count / 1e6:,.2f} M parameters as domain={domain}; wrote {folder}")
    console.print(f"next: attend predict {quote(f'run={folder}')} input=…, or attend train {quote(f'init={folder}')} …")


def from_timm(config: DictConfig) -> tuple[str, Any, Any, dict[str, Any]]:
    """Read a model of timm by its name, with the weights of `file`, those that timm downloads, or random ones.

    Raises:
        ValueError: if timm has no such model, or its weights cannot be loaded.
    """
    import timm

    from domains.vision.convert import from_timm as from_theirs
    from domains.vision.convert import timm_config

    if config.name is None or not timm.is_model(config.name):
        near = timm.list_models(f"*{config.name}*")[:8] if config.name else timm.list_models("vit_*_patch16_224")[:8]
        raise ValueError(
            f"name={config.name} is no model of timm; some that are: {', '.join(near) or 'vit_tiny_patch16_224'}"
        )
    options: dict[str, Any] = {"num_classes": len(config.classes)} if config.classes else {}
    if config.size:
        options["img_size"] = config.size
    if config.file is not None and not Path(config.file).is_file():
        raise ValueError(f"file={config.file} does not exist")
    try:
        theirs = timm.create_model(
            config.name,
            pretrained=config.file is None and config.pretrained,
            checkpoint_path=config.file or "",
            **options,
        )
    except Exception as error:  # of timm, torch, safetensors or huggingface_hub, which have no common ancestor
        hint = (
            "give file=… with its weights, or pretrained=false for random ones"
            if config.file is None
            else "its shapes?"
        )
        raise ValueError(f"{config.name}: no weights ({str(error).splitlines()[0]}); {hint}") from error
    adapter = from_theirs(theirs.eval(), list(config.classes) if config.classes else None)
    spec = {
        "classes": adapter.classes,
        "channels": adapter.image_shape[0],
        "size": list(adapter.image_shape[1:]),
        "mean": adapter.mean.flatten().tolist(),
        "std": adapter.std.flatten().tolist(),
    }
    return "vision", adapter, timm_config(theirs)[1], spec


def from_transformers(config: DictConfig) -> tuple[str, DomainAdapter, Any, dict[str, Any]]:
    """Read a folder with config.json and model.safetensors, or its shards: GPT-2 or Llama for text, a decision
    transformer for rl, ESM-2 for protein_language.

    Raises:
        ValueError: if a file is missing or damaged, or the model or its tokenizer is of an unknown kind.
    """
    folder = Path(config.file or "")
    if config.file is None or not (folder / "config.json").is_file():
        raise ValueError(
            f"file={config.file} must be a folder with config.json and model.safetensors, or its shards with "
            f"{INDEX_FILE}"
        )
    theirs = read_json(folder / "config.json")
    state = read_state_dict(folder)
    match theirs.get("model_type"):
        case "gpt2" | "llama":
            from domains.text.convert import from_transformers as from_theirs
            from domains.text.convert import our_config
            from domains.text.tokenizers import find_tokenizer as tokenizer_of

            tokenizer = tokenizer_of(folder)
            return "text", from_theirs(theirs, state, tokenizer), *our_config(theirs, tokenizer)[1:]
        case "decision_transformer":
            from domains.rl.convert import decision_transformer_config, from_decision_transformer

            known: Any = OmegaConf.to_container(config.known) if config.known else read_data_facts(folder)
            return (
                "rl",
                from_decision_transformer(theirs, state, known),
                *decision_transformer_config(theirs, known)[1:],
            )
        case "esm":
            from domains.protein.convert import esm2_config, from_esm2
            from domains.protein.masked.config import ModelConfig

            adapter = from_esm2(theirs, state)
            adapter.config = ModelConfig(**vars(adapter.config))
            return "protein_language", adapter, esm2_config(theirs)[1], {}
        case other:
            known = "gpt2, llama, esm, decision_transformer"
            raise ValueError(f"model_type={other} cannot be imported; possible: {known}")


def read_data_facts(folder: Path) -> dict[str, Any]:
    """Read known.json: what `attend export` wrote about a decision transformer's data beside its config.json."""
    file = folder / "known.json"
    return read_json(file) if file.is_file() else {}


def from_gguf(config: DictConfig) -> tuple[str, DomainAdapter, Any, dict[str, Any]]:
    """Read a Llama and its tokenizer from a GGUF file.

    Raises:
        ValueError: if the file is not GGUF, or holds another kind of model.
    """
    from domains.text.convert import from_transformers as from_theirs
    from domains.text.convert import our_config
    from domains.text.gguf import read_gguf

    if config.file is None:
        raise ValueError("source=gguf needs file=….gguf")
    theirs, state, tokenizer = read_gguf(Path(config.file))
    return "text", from_theirs(theirs, state, tokenizer), *our_config(theirs, tokenizer)[1:]
