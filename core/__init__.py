"""The shared self-attention core: imports torch and nothing else of this project.

Nothing is re-exported here, so that `core.config` (plain dataclasses) can be read without loading torch.
"""
