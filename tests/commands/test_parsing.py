"""Words of a command in any order."""

import pytest

from progip.cli import parsed


def test_overrides_stand_on_both_sides_of_options() -> None:
    words = ["train", "model=resnet20", "--output", "w.safetensors", "dataset=cifar10", "seed=1"]
    found = parsed(words)
    assert found.overrides == ["model=resnet20", "dataset=cifar10", "seed=1"]
    assert found.output == "w.safetensors"


@pytest.mark.parametrize(
    "words",
    [["train", "model=resnet20", "--no-such"], ["report", "outputs/demo", "model=resnet20"]],
)
def test_what_no_command_knows_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(words)
    assert f"unrecognized arguments: {words[-1]}" in capsys.readouterr().err
