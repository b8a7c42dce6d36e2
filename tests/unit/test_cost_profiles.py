import pytest

from edgellm import cost


@pytest.mark.parametrize("kind", ["device", "link", "model"])
def test_profiles_shipped_all_load(kind: str) -> None:
    names = cost.known_profiles(kind)
    assert names
    for name in names:
        profile = getattr(cost, f"load_{kind}")(name)
        assert profile.name == name


def test_model_smollm2_q4_1_bytes_equal_the_shipped_file() -> None:
    model = cost.load_model("smollm2-135m")
    # sums of n_bytes over the tensors of SmolLM2-135M-Instruct.Q4_1.gguf, by the gguf package
    assert model.weight_bytes("q4_1") == 96_576_768
    assert model.params == 134_515_008
