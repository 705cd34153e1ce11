"""Hydra configuration: `config.yaml` is what `attend train` composes; each folder is a group of choices."""
