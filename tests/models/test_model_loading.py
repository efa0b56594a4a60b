"""Weight files of every kind, good and bad."""

import hashlib
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from progip.errors import ProgipError
from progip.models.digits import DigitsResNet
from progip.models.loading import load_network, weights_fingerprint
from progip.models.resnet_cifar import CifarResNet


def digits(**options: Any) -> DigitsResNet:
    return DigitsResNet(name="digits_resnet", **options)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return digits().network().state_dict()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves tmp_path/www; gives its URL."""
    (tmp_path / "www").mkdir()

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    handler = partial(Silent, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_the_packaged_demo_network_is_ready_for_campaigns() -> None:
    network = load_network(
        digits(weights="package:digits_resnet.safetensors"), image_shape=(1, 16, 16)
    )
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert network(torch.zeros(3, 1, 16, 16)).shape == (3, 8)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 100},
        lambda s: {"net": s, "acc": 95.0},
        lambda s: {"model": {"state_dict": {f"module.{k}": v for k, v in s.items()}}},
        lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()},
        lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
        lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "epoch": 3},
        lambda s: {"state_dict": {f"model.module._orig_mod.{k}": v for k, v in s.items()}},
    ],
    ids=[
        "plain",
        "state_dict",
        "net",
        "nested",
        "float64",
        "before-0.4.1",
        "compiled",
        "lightning",
        "lightning-parallel-compiled",
    ],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_published_styles_of_torch_save(
    tmp_path: Path, state: dict[str, torch.Tensor], wrap: Any, legacy: bool
) -> None:
    torch.save(wrap(state), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    loaded = load_network(digits(weights=str(tmp_path / "w.pth"))).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_safetensors_and_file_urls(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "with space.safetensors"
    save_file(state, path)
    loaded = load_network(digits(weights=path.as_uri())).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_random_weights_depend_on_the_name_alone_and_leave_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first = load_network(digits(weights="random"))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(123)
    assert weights_fingerprint(load_network(digits(weights="random"))) == weights_fingerprint(first)
    other = load_network(DigitsResNet(name="other", weights="random"))
    assert weights_fingerprint(other) != weights_fingerprint(first)


def test_fingerprint_sees_names_dtypes_shapes_and_bits() -> None:
    layer = nn.Linear(2, 3)
    prints = {weights_fingerprint(layer), weights_fingerprint(nn.Sequential(layer))}
    prints.add(weights_fingerprint(nn.Linear(2, 3).double()))
    layer.weight.data.view(torch.int32)[0, 0] ^= 1
    prints.add(weights_fingerprint(layer))
    assert len(prints) == 4


def test_no_weights_says_how_to_get_some() -> None:
    with pytest.raises(ProgipError, match=r"model\.weights=PATH.*progip train model=digits_resnet"):
        load_network(digits())


@pytest.mark.parametrize("weights", ["nowhere.pth", "package:nothing.safetensors", "file:///no/x"])
def test_missing_file(weights: str) -> None:
    with pytest.raises(ProgipError, match=r"does not exist: .*(nowhere|nothing|no/x)"):
        load_network(digits(weights=weights))


def test_folder_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(ProgipError, match="is a folder"):
        load_network(digits(weights=str(tmp_path)))


def test_local_file_with_another_checksum(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ProgipError, match="its sha256 is"):
        load_network(digits(weights=str(tmp_path / "w.safetensors"), sha256="0" * 64))


def test_published_where_there_are_none() -> None:
    with pytest.raises(ProgipError, match="no weights called 'published'"):
        load_network(digits(weights="published"))


@pytest.mark.parametrize("kept", [0, 100, 20_000, 200_000])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_file(
    tmp_path: Path, state: dict[str, torch.Tensor], kind: str, kept: int
) -> None:
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ProgipError, match=f"{path.name} is damaged"):
        load_network(digits(weights=str(path)))


class Evil:
    """Unpickling it would leave a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("plain", [False, True], ids=["torch.save", "pickle"])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, plain: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "w.pth"
    if plain:
        path.write_bytes(pickle.dumps({"w": Evil(trace)}))
    else:
        torch.save({"w": Evil(trace)}, path)
    with pytest.raises(ProgipError, match=r"could run code|is damaged"):
        load_network(digits(weights=str(path)))
    assert not trace.exists()


def test_a_whole_saved_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(ProgipError, match=r"save model\.state_dict\(\)"):
        load_network(digits(weights=str(tmp_path / "w.pth")))


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {}, torch.zeros(3)])
def test_a_file_without_a_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ProgipError, match="holds no state dict but"):
        load_network(digits(weights=str(tmp_path / "w.pth")))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_weight(tmp_path: Path, state: dict[str, torch.Tensor], value: float) -> None:
    state["layer2.0.conv1.weight"].view(-1)[7] = value
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(
        ProgipError, match=r"w\.safetensors: 1 of 4608 .*'layer2\.0\.conv1\.weight'"
    ):
        load_network(digits(weights=str(tmp_path / "w.safetensors")))


def test_another_architecture(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file(state, tmp_path / "w.safetensors")
    spec = CifarResNet(name="resnet20", depth=20, weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(ProgipError) as caught:
        load_network(spec)
    message = str(caught.value)
    assert "60 missing: layer1.1.conv1.weight" in message
    assert "unexpected" not in message
    assert "conv1.weight (16, 1, 3, 3) instead of (16, 3, 3, 3)" in message
    assert "linear.weight (8, 64) instead of (10, 64)" in message
    assert "another architecture" in message
    spec = CifarResNet(name="r", depth=8, classes=8, channels=1, weights=spec.weights)
    assert load_network(spec) is not None


def test_unexpected_keys(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file(state | {"head.bias": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ProgipError, match=r"1 unexpected: head\.bias"):
        load_network(digits(weights=str(tmp_path / "w.safetensors")))


def test_device_that_is_not_there() -> None:
    for device in ("abacus", "cuda:99"):
        with pytest.raises(ProgipError, match=device):
            load_network(digits(weights="random"), device)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 64, 64)])
def test_images_that_do_not_fit(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ProgipError, match=f"cannot take images of {shape[0]} x"):
        load_network(digits(weights="random"), image_shape=shape)


def test_download(
    tmp_path: Path, state: dict[str, torch.Tensor], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGIP_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "www" / "w.safetensors"
    save_file(state, path)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    url = f"{server}/w.safetensors"
    with pytest.raises(ProgipError, match=r"give model\.sha256"):
        load_network(digits(weights=url))
    with pytest.raises(ProgipError, match=r"cannot fetch .*Check model\.weights"):
        load_network(digits(weights=url, sha256="0" * 64))
    with pytest.raises(ProgipError, match=r"cannot fetch .*404"):
        load_network(digits(weights=f"{server}/none.safetensors", sha256=right))
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    loaded = load_network(digits(weights=url, sha256=right.upper()))
    path.unlink()  # the second time it comes from the cache
    again = load_network(digits(weights=url, sha256=right))
    assert weights_fingerprint(loaded) == weights_fingerprint(again)


def test_download_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROGIP_CACHE", str(tmp_path))
    with pytest.raises(ProgipError, match=r"http://127\.0\.0\.1:9/.*give its path"):
        load_network(digits(weights="http://127.0.0.1:9/w.pth", sha256="0" * 64))
