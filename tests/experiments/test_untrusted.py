"""Opening untrusted files runs no code, reads no environment variables, and allocates no more than the file holds."""

import io
import json
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.progress import Progress

from domains.data_warnings import DataWarning
from domains.protein.sources import read_alignments
from domains.rl.environments import make
from domains.rl.policies import read_network
from domains.rl.trajectories import read
from domains.vision.figures import draw_confusion
from experiments.compose import compose, with_init_overrides, with_resume_overrides
from experiments.report.explorer import write_demo
from experiments.runs import load_run
from experiments.train import train
from experiments.untrusted import load_domain

SMALL = ["model.dim=16", "model.depth=1", "model.num_heads=2", "trainer=cpu", "trainer.max_steps=1"]


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("honest") / "run"
    settings = ["domain=vision", *SMALL, "logger.csv=false", "logger.tensorboard=false"]
    train(compose("config", settings), folder, Progress(disable=True), settings)
    return folder


@pytest.fixture
def run(honest, tmp_path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "run"))


@pytest.fixture
def planted(tmp_path, monkeypatch) -> Path:
    """A module `evil` that Python finds, and that makes this file when it is imported."""
    path = tmp_path / "planted"
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "__init__.py").write_text(f"import pathlib; pathlib.Path({str(path)!r}).touch()")
    for name in ("config", "adapter", "data"):
        (tmp_path / "evil" / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    return path


def changed(run: Path, old: str, new: str, name: str = "config.yaml") -> None:
    text = (run / name).read_text()
    assert old in text
    (run / name).write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("package: domains.vision", "package: evil", "'evil' is no domain"),
        ("package: domains.vision", "package: domains.vision/../../evil", "is no domain"),
        ("package: domains.vision", "package: domains.nowhere", "there is no domain package"),
        ("package: domains.vision", "package: [os]", "is no domain"),
        ("seed: 0", "seed: !!python/object/apply:os.system ['touch planted']", "cannot be read"),
        ("seed: 0", "seed: ${oc.env:HOME}", "stands for a value"),
        ("seed: 0", "seed: &a [1, 2]\nmore: [*a, *a]", "stands for a value"),
        ("seed: 0", "seed: " + "[" * 5000, "nested more than 20 deep"),
        ("seed: 0", "seed: 0\nmore: " + "x" * 2**18, "longer than 262,144 bytes"),
        ("\nseed: 0\n", "\n", "it must say domain, data, model, position, seed"),
        ("model:\n", "model:\n  _target_: os.system\n", "_target_"),
        ("  dim: 16", "  dim: 4000000", "larger model than weights.safetensors holds"),
        ("  dim: 16\n  depth: 1", "  dim: 1024\n  depth: 4000000000", "larger model than weights.safetensors holds"),
        ("  dim: 16", "  dim: 32", "do not fit"),
        ("  dim: 16", "  dim: abc", "do not fit"),
    ],
)
def test_a_configuration_that_means_ill(old, new, part, run, planted):
    changed(run, old, new)
    with pytest.raises(ValueError, match=r".") as error:
        load_run(run)
    assert part in str(error.value)
    assert not planted.exists()
    assert not Path("planted").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"classes": 3}', '{"size": [1e9, 1e9]}', "\0"])
def test_a_spec_that_means_ill(text, run):
    (run / "spec.json").write_text(text)
    with pytest.raises(ValueError, match=r"spec\.json"):
        load_run(run)


def test_sizes_in_a_spec_are_compared_with_the_weights(run):
    spec = json.loads((run / "spec.json").read_text())
    (run / "spec.json").write_text(json.dumps(spec | {"size": [8 << 20, 8 << 20]}))
    with pytest.raises(ValueError, match=r"larger model than weights\.safetensors holds"):
        load_run(run)


def test_weights_that_are_none(run, planted, payload):
    torch.save(payload(planted), run / "other")
    good = (run / "weights.safetensors").read_bytes()
    for data in (b"", good[:-5], good[:20], (2**62).to_bytes(8, "little") + b"{}", (run / "other").read_bytes()):
        (run / "weights.safetensors").write_bytes(data)
        with pytest.raises(ValueError, match=r"weights\.safetensors is damaged"):
            load_run(run)
    assert not planted.exists()


def test_what_a_run_is_resumed_with_names_no_code(run):
    path = run / ".hydra" / "overrides.yaml"
    honest = with_resume_overrides([f"run={run}"])
    assert "model.dim=16" in honest
    path.write_text(path.read_text() + "- hydra.callbacks.x._target_=os.system\n- hydra/launcher=evil\n")
    assert with_resume_overrides([f"run={run}"]) == honest
    for line in ("+hydra.callbacks.x._target_=os.system", "--config-dir=/", "~model", "data.path=${oc.env:HOME}"):
        path.write_text(f"- {line}\n")
        with pytest.raises(ValueError, match=r"overrides\.yaml"):
            with_resume_overrides([f"run={run}"])
    changed(run, "  dim: 16", "  dim: ${oc.env:HOME}")
    with pytest.raises(ValueError, match="stands for a value"):
        with_init_overrides([f"init={run}"])


def test_an_environment_of_a_file_imports_no_module(tmp_path, planted, monkeypatch):
    with pytest.raises(ValueError, match=r"evil:Env-v0 imports the module evil; .* set ATTEND_MODULES=evil"):
        make("evil:Env-v0")
    assert not planted.exists()
    monkeypatch.setenv("ATTEND_MODULES", "other,evil")
    with pytest.raises(ValueError, match="Gymnasium knows no environment"):
        make("evil:Env-v0")
    assert planted.exists()


def test_pickles_in_arrays_and_zips_stay_closed(tmp_path, planted, payload):
    objects = np.array([payload(planted)], object)
    np.savez(tmp_path / "a.npz", allow_pickle=True, observations=objects, env_id=objects)
    torch.save({"action_net.weight": payload(planted)}, tmp_path / "policy.pth")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.write(tmp_path / "policy.pth", "policy.pth")
        file.writestr("data", "{}")
    from domains.rl.baselines3 import read_baselines3

    for call in (
        lambda: read(tmp_path / "a.npz"),
        lambda: read_network(tmp_path / "a.npz"),
        lambda: read_baselines3(tmp_path / "a.zip", discrete=True),
    ):
        with pytest.raises(ValueError, match=r"a\.(npz|zip)"):
            call()
    assert not planted.exists()


def test_an_archive_writes_nothing_outside(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "in"))
    with tarfile.open(tmp_path / "in" / "a.tar.xz", "w:xz") as archive:
        for name in ("../escaped.a3m", f"{tmp_path}/absolute.a3m"):
            member, data = tarfile.TarInfo(name), b">a\nACDEF\n"
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link.a3m")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    with pytest.warns(DataWarning, match=r"left out: 1 \(link.a3m\)"):
        assert [name for name, _ in read_alignments(tmp_path / "in" / "a.tar.xz")] == ["escaped", "absolute"]
    assert sorted(tmp_path.rglob("*")) == before


def test_names_are_only_names(tmp_path):
    """In pages and in pictures."""
    evil = "<script>alert(1)</script>"
    results = {"versions": {evil: "1"}, "total_seconds": 1, "seed": 0, "date": evil, "machine": evil, "device": evil}
    runs, picture = [{"domain": evil, "run": evil, "examples": [evil]}], tmp_path / evil.replace("/", "")
    picture.touch()
    write_demo(tmp_path / "index.html", results | {"commit": evil}, [[evil], [evil]], runs, [[picture]])
    assert "<script>alert" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    draw_confusion(np.eye(3, dtype=np.int64), [evil, r"$\frac{$", "a$b$c"], tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 1000


def test_an_honest_run_opens(run):
    config, adapter = load_run(run)
    assert config.model.dim == adapter.state_dict()["transformer.norm.weight"].numel() == 16


def test_a_package_without_a_record_has_its_parts_in_the_usual_modules(tmp_path, monkeypatch):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "__init__.py").touch()
    (tmp_path / "plain" / "predict.py").write_text("def predict(adapter, source, folder): return [folder / source]")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ATTEND_MODULES", "plain")
    domain = load_domain("plain")
    assert domain.predict(None, "a", tmp_path) == [tmp_path / "a"]
    assert domain.export is domain.explain is domain.init_from is domain.training_plots is None
    assert domain.evaluate_options == ()
    with pytest.raises(ValueError, match="the domain package 'plain' has no module 'adapter'"):
        _ = domain.adapter
