"""The page, from numbers and pictures."""

import struct

import numpy as np
import pytest

from lerobot_rlft.evaluation.figures import Figure
from lerobot_rlft.evaluation.measures import Metrics, measure_modes
from lerobot_rlft.evaluation.report import page

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 900, 400)


def measured(name: str = "tuned", counts=(90, 110), **more) -> dict:
    m = Metrics()
    m |= {
        "name": name, "policy": f"user/{name}", "base": "user/base", "env": "toy", "seed": 7, "others": {},
        "n_episodes": 250, "num_modes": 2, "success": 0.8, "success_ci": [0.75, 0.85], "n_success": 200,
        "base_success": 0.8, "base_success_ci": [0.75, 0.85], "base_n_success": 200, **more,
    }  # fmt: skip
    measure_modes(m, np.array(counts), np.array([100, 100]))
    return m


def test_names_are_text_and_no_markup():
    m = measured(policy="<script>1</script>", base="a&b")
    text = page(m, [], "eval --policy.path='<b>'")
    assert "<title>Mode diversity of &lt;script&gt;1&lt;/script&gt;</title>" in text
    assert "beside its base <b>a&amp;b</b> on toy" in text and "path=&#39;&lt;b&gt;&#39;" in text
    assert "<script>" not in text


def test_every_policy_has_its_claim_its_column_and_its_numbers():
    text = page(measured("new", others={"few": measured("few", (5, 5))}), [], "eval")
    assert '<p class="claim">new: Success' in text and '<p class="claim none">few: Success' in text
    assert "<b>user/new</b> (new), <b>user/few</b> (few) beside their base" in text
    assert "<th scope=col>base</th><th scope=col>few</th><th scope=col>new</th>" in text
    assert "All numbers of new</summary>" in text and "All numbers of few</summary>" in text
    alone = page(measured(), [], "eval")
    assert "All numbers</summary>" in alone and "<b>user/tuned</b> beside its base" in alone


def test_the_duration_is_there_where_it_is_known():
    assert "Seeds from 7 up.</p>" in page(measured(), [], "train")
    assert "Seeds from 7 up; 12 s.</p>" in page(measured(seconds=12.3), [], "eval")


@pytest.mark.parametrize("drawn", [True, False])
def test_a_picture_is_embedded_or_its_lack_explained(tmp_path, drawn):
    file = tmp_path / "some.png"
    if drawn:
        file.write_bytes(PNG)
    text = page(measured(), [Figure("Heading", file, "1 < 2")], "eval")
    assert "<h2>Heading</h2>" in text and "1 &lt; 2" in text
    # Half of its 900 pixels stay legible on a phone.
    assert ('style="--legible:450px" src="data:image/png;base64,iVBORw0KGgo' in text) is drawn
    assert ('<p class="missing">1 &lt; 2</p>' in text) is not drawn
