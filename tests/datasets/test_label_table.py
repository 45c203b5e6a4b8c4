"""Advantages lie beside their dataset, readable and correctable with pandas."""

import numpy as np
import pandas as pd
import pytest
from recorded_data import read, record

from lerobot_rlft.configs.train import load_policy_config
from lerobot_rlft.datasets.label_table import read_sidecar, write_sidecar
from lerobot_rlft.policies.conditioning import NEGATIVE, POSITIVE, UNKNOWN
from lerobot_rlft.utils.errors import UserError

LABELS = np.array([POSITIVE, NEGATIVE, UNKNOWN, POSITIVE, NEGATIVE])


@pytest.fixture(scope="module")
def policy(base_policy):
    return load_policy_config(str(base_policy), [])


@pytest.fixture
def data(policy, tmp_path):
    return read(record(tmp_path / "a", (3, 2), next_success=[True, False], mode=[4, -1]), policy)


@pytest.fixture
def file(data, tmp_path):
    numbers = {name: np.arange(5.0) + i for i, name in enumerate(("return", "value", "advantage"))}
    write_sidecar(tmp_path / "x/data.parquet", data, {**numbers, "label": LABELS, "weight": np.ones(5)})
    return tmp_path / "x/data.parquet"


def test_what_a_user_sees(file, data):
    table = pd.read_parquet(file)
    assert list(table) == [
        "index", "episode_index", "frame_index", "dataset", "success", "mode", "return", "value", "advantage",
        "label", "weight",
    ]  # fmt: skip
    assert table["index"].tolist() == [0, 1, 2, 3, 4] and table["frame_index"].tolist() == [0, 1, 2, 0, 1]
    assert table["label"].tolist() == ["positive", "negative", "unknown", "positive", "negative"]
    assert table["success"].tolist() == [1, 1, 1, 0, 0] and table["mode"].tolist() == [4, 4, 4, -1, -1]
    assert [path.name for path in file.parent.iterdir()] == ["data.parquet"]
    labels, weights = read_sidecar(file, data)
    assert np.array_equal(labels, LABELS) and np.array_equal(weights, np.ones(5))


def test_what_a_user_corrects(file, data):
    table = pd.read_parquet(file).sample(frac=1, random_state=0)  # the order does not matter
    table.loc[table["index"] == 2, "label"] = "negative"
    table.loc[table["episode_index"] == 1, "weight"] = 0.0
    table.to_parquet(file)
    labels, weights = read_sidecar(file, data)
    assert labels.tolist() == [POSITIVE, NEGATIVE, NEGATIVE, POSITIVE, NEGATIVE]
    assert weights.tolist() == [1, 1, 1, 0, 0]


def test_of_another_dataset(file, data, policy, tmp_path):
    other = read(record(tmp_path / "b", (3, 2), seed=1), policy, "other")
    with pytest.raises(
        UserError, match=rf"belong to another dataset \({data.fingerprint}, 5 frames\) than other"
    ):
        read_sidecar(file, other)
    table = pd.read_parquet(file)
    table.iloc[:-1].to_parquet(file)
    with pytest.raises(UserError, match=r"4 frames\) than data"):
        read_sidecar(file, data)


@pytest.mark.parametrize(
    "spoil, answer",
    [
        (
            lambda t: t.assign(label="good"),
            "label='good' in .* is unknown, choose negative, positive, unknown",
        ),
        (lambda t: t.assign(weight=-1.0), "a weight in .* is not a number >= 0"),
        (lambda t: t.assign(weight=np.nan), "a weight in .* is not a number >= 0"),
        (lambda t: t.drop(columns="label"), "lack label: delete .* --algorithm.stage=advantages again"),
    ],
)
def test_a_table_that_is_spoiled(spoil, answer, file, data):
    spoil(pd.read_parquet(file)).to_parquet(file)
    with pytest.raises(UserError, match=answer):
        read_sidecar(file, data)


def test_a_table_that_is_gone_or_broken(file, data, tmp_path):
    with pytest.raises(UserError, match="missing or damaged"):
        read_sidecar(tmp_path / "none.parquet", data)
    file.write_bytes(b"half")
    with pytest.raises(UserError, match="missing or damaged"):
        read_sidecar(file, data)
