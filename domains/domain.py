"""The record of a domain: its parts, each imported when a command uses it. Without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from core.config import PositionConfig
    from domains.adapter import DomainAdapter, Evaluation
    from domains.data import DomainData
    from domains.explanation import Explanation


class Evaluate(Protocol):
    """Scores beside baselines, and pictures in a folder. The options are the domain's own."""

    def __call__(self, adapter: Any, data: Any, folder: Path, split: str = "test", **options: Any) -> Evaluation: ...


class Explain(Protocol):
    """The inputs on which the page of `attend explain` draws attention."""

    def explanations(self, adapter: Any, source: str) -> list[Explanation]:
        """Scenes of a user's own input."""
        ...

    def example(self, adapter: Any, data: Any) -> Explanation:
        """A scene of the test split."""
        ...


@dataclass(frozen=True)
class Domain:
    """A domain package, whose `__init__.py` says DOMAIN = Domain(__name__).

    Each property is what a module of the package defines (domains/__init__.py lists them); the last four are None where
    there is no such module.

    Args:
        package: its dotted name.
        evaluate_options: switches of its own that `evaluate` takes, by name.
    Raises:
        ValueError: where a module that every domain has is missing.
    """

    package: str
    evaluate_options: tuple[str, ...] = ()

    @cached_property
    def data_config(self) -> type[Any]:
        return self._module("config").DataConfig

    @cached_property
    def model_config(self) -> type[Any]:
        return self._module("config").ModelConfig

    @cached_property
    def data(self) -> Callable[[Any, int], DomainData]:
        return self._module("data").Data

    @cached_property
    def adapter(self) -> Callable[[Any, PositionConfig, dict[str, Any]], DomainAdapter]:
        return self._module("adapter").Adapter

    @cached_property
    def evaluate(self) -> Evaluate:
        return self._module("evaluate").evaluate

    @cached_property
    def predict(self) -> Callable[[Any, str, Path], list[Path]]:
        return self._module("predict").predict

    @cached_property
    def export(self) -> Callable[[Any, PositionConfig, Path], list[Path]] | None:
        return self._optional("export", "export")

    @cached_property
    def explain(self) -> Explain | None:
        return self._module("explain") if self._has("explain") else None

    @cached_property
    def init_from(self) -> Callable[[Any, dict[str, Tensor], dict[str, Any]], dict[str, Tensor]] | None:
        return self._optional("init_from", "fitted")

    @cached_property
    def training_plots(self) -> Callable[[Any, Any, Path], None] | None:
        return self._optional("training_plots", "picture")

    def _has(self, module: str) -> bool:
        return find_spec(f"{self.package}.{module}") is not None

    def _optional(self, module: str, name: str) -> Any:
        return getattr(self._module(module), name) if self._has(module) else None

    def _module(self, name: str) -> Any:
        return _import(f"{self.package}.{name}", f"the domain package {self.package!r} has no module {name!r}")


def find_domain(package: str) -> Domain:
    """The record of a package, or the usual one where it has none.

    Raises:
        ValueError: if there is no such package.
    """
    module = _import(package, f"there is no domain package {package!r}")
    return getattr(module, "DOMAIN", None) or Domain(package)


def _import(name: str, missing: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise ValueError(missing) from error
        raise
