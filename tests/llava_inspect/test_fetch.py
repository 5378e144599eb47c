"""`llava-inspect fetch`: which files of a model it takes, and that the folder then needs no Hub."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from PIL import Image

from llava.common.errors import InputError
from llava.inference.engine import Engine, Request
from llava.model.builder import load_model
from llava.model.hub import list_files
from llava_inspect.fetch import main
from tests.support.hub_server import HubServer, hub_server
from tests.support.tiny_models import save_base

NAME = "someone/small-llava"
COPIES = (
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "flax_model.msgpack",
    "onnx/config.json",
    "README.md",
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of repositories: one small model with the copies of its weights that the Hub's have."""
    root = tmp_path_factory.mktemp("hub")
    model = save_base(root / NAME)
    for copy in COPIES:
        (model / copy).parent.mkdir(exist_ok=True)
        (model / copy).write_bytes(b"{}")
    return root


@pytest.fixture
def hub(published: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server(published, monkeypatch) as server:
        yield server


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_the_list_has_what_is_loaded_with_sizes_and_no_copies(
    hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([NAME, "--list"]) == 0
    *lines, total, following = capsys.readouterr().out.splitlines()
    names = [line.split()[-1] for line in lines]
    assert {"config.json", "tokenizer.json", "processor_config.json", "model.safetensors"} <= set(names)
    assert not set(names) & set(COPIES)
    megabytes = [float(line.split()[0].replace(",", "")) for line in lines]
    assert float(total.split()[0]) == pytest.approx(sum(megabytes), abs=0.05 * len(lines))
    assert f"fetch {NAME} --output" in following
    assert not hub.downloaded


def test_a_fetched_folder_answers_without_the_hub(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    folder = tmp_path / "brought"
    assert main([NAME, "--output", str(folder)]) == 0
    assert "complete: llava" in capsys.readouterr().out
    assert not [copy for copy in COPIES if (folder / copy).exists()]
    hub.downloaded.clear()
    assert main([NAME, "--output", str(folder)]) == 0
    assert not hub.downloaded  # what is there is not fetched again

    offline(monkeypatch)
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    loaded = load_model(moved, device="cpu")
    pixels = loaded.processor.pixels(Image.new("RGB", (30, 50)))
    (result,) = Engine(loaded).answer([Request("a", "<image>\nWhat?", [pixels])], max_new_tokens=2)
    assert result.error is None


def test_a_damaged_download_is_noticed(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "someone" / "cut"
    shutil.copytree(published / NAME, broken)
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with hub_server(tmp_path, monkeypatch), pytest.raises(InputError, match=r"model\.safetensors"):
        main(["someone/cut", "--output", str(tmp_path / "out")])


def test_an_unknown_name_is_one_line(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model of that name") as caught:
        main(["someone/nothing", "--output", str(tmp_path / "out")])
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_without_a_network_the_list_is_a_command_for_another_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], published: Path, tmp_path: Path
) -> None:
    """huggingface_hub's own command takes it, and brings the files that `fetch` would."""
    with monkeypatch.context() as patch:
        offline(patch)
        assert main(["llava-hf/llava-1.5-7b-hf", "--list"]) == 0
        known = capsys.readouterr().out
        assert "the weights, 14 GB" in known and "model_name_or_path=/path/to/llava-1.5-7b-hf" in known
        assert main([NAME, "--list"]) == 0
        said = capsys.readouterr().out
        with pytest.raises(InputError, match=f"fetch {NAME} --list"):
            main([NAME, "--output", str(tmp_path / "out")])
    (line,) = [line for line in said.splitlines() if line.strip().startswith("hf download")]
    options = shlex.split(line)[3:]
    patterns = {flag: [v for f, v in zip(options[::2], options[1::2], strict=True) if f == flag]
                for flag in ("--include", "--exclude")}  # fmt: skip
    with hub_server(published, monkeypatch):
        brought = snapshot_download(
            NAME, allow_patterns=patterns["--include"], ignore_patterns=patterns["--exclude"],
            local_dir=tmp_path / "by_hand",
        )  # fmt: skip
        wanted = set(list_files(NAME))
    names = {path.name for path in Path(brought).iterdir() if path.is_file()}
    assert wanted == names - {"pytorch_model.bin.index.json"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([NAME], "give --output DIR"),
        ([NAME, "--list", "--output", "x"], "give --output DIR"),
        (["small-llava", "--list"], "expected a name on the Hub"),
    ],
)
def test_what_cannot_be_meant_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        main(arguments)
