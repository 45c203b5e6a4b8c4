"""Where fixtures come from, and which tests need CUDA."""

import hypothesis
import pytest

# The same inputs in every run, and few of them.
hypothesis.settings.register_profile("suite", derandomize=True, max_examples=25, deadline=None, database=None)
hypothesis.settings.load_profile("suite")


def pytest_configure(config):
    # The process that deals tests out to others (`-n 2`) runs none of them: it need not import torch.
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("tiny_runs")


def pytest_collection_modifyitems(items):
    on_cuda = [item for item in items if item.get_closest_marker("gpu")]
    if on_cuda:
        import torch

        if not torch.cuda.is_available():
            for item in on_cuda:
                item.add_marker(pytest.mark.skip(reason="needs CUDA"))
