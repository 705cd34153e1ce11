"""Hydra imports every module of the namespace package hydra_plugins: so its search path, and the types, get longer."""

from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin
from sensors.config import DataConfig, ModelConfig


class SensorsPlugin(SearchPathPlugin):
    def manipulate_search_path(self, search_path):
        search_path.append("sensors", "pkg://sensors.conf")


ConfigStore.instance().store(group="schema", name="sensors_data", node=DataConfig)
ConfigStore.instance().store(group="schema", name="sensors_model", node=ModelConfig)
