"""The data sets of a configuration, loaded."""

from bench.data.load import Dataset, load
from bench.settings.config import Config
from bench.settings.specs import unique


def load_datasets(config: Config) -> dict[str, Dataset]:
    """The data sets of [run], loaded."""
    declared = {name: entry.model_dump() for name, entry in config.datasets.items()}
    return {name: load(name, config.paths.data, declared.get(name)) for name in unique(config.run.datasets)}
