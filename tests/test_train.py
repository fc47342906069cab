"""Training: recipes, resuming, several processes, and what a run leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from datagen import Store
from tests.conftest import small_recipe
from zoo import config, data, registry
from zoo.checkpoint import check, read_tensors, read_weights
from zoo.errors import Interrupted, ZooError
from zoo.models.base import Fitted, Network
from zoo.nn.dense import Codebooks
from zoo.registry import read_config
from zoo.speed import training_speed
from zoo.train import Trainer, build, first_stage, learning_rate, train

TINY: dict[str, Any] = {
    "codec.width": 4, "codec.multipliers": (1, 2), "codec.kernel": 3, "codec.norm": "channel", "training.steps": 4, "training.batch": 8,
    "training.warmup_steps": 0, "training.validation_samples": 8,
}  # fmt: skip
DENSE: dict[str, Any] = {
    "codec.width": 16, "codec.hidden": 16, "codec.encoder_blocks": 1, "codec.decoder_blocks": 1, "training.steps": 4, "training.batch": 8,
    "training.warmup_steps": 0, "training.validation_samples": 8,
}  # fmt: skip
JSCC: dict[str, Any] = {
    "codec.symbols": (2, 4), "codec.encoder": ((2, 3), (4, 3), (2, 3)), "codec.decoder": ((4, 3), (2, 3)), "codec.blocks": 1,
    "training.steps": 4, "training.batch": 8, "training.warmup_steps": 0, "training.validation_samples": 8,
}  # fmt: skip
REFINED: dict[str, Any] = {
    **TINY, **JSCC, "first.steps": 3, "first.batch": 8, "first.warmup_steps": 0, "first.validation_samples": 8,
}  # fmt: skip
DENSE_JSCC: dict[str, Any] = {
    **{name: value for name, value in DENSE.items() if name != "codec.decoder_blocks"}, "codec.denoiser_blocks": 1, "codec.symbols": (2, 4),
}  # fmt: skip
SMALL: dict[str, Any] = {"training.steps": 4, "training.batch": 8, "training.validation_samples": 8}


@pytest.fixture
def source(small_store: Store) -> data.Cached:
    return data.Cached(data.Store(small_store.path), "cpu", None, seed=0)


def weights(run: Path) -> dict[str, Tensor]:
    return read_tensors(max((run / "checkpoints").glob("step-*")) / "weights.safetensors")


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", config.names())
def test_every_recipe_builds_and_every_lite_one_is_small(name: str, source: data.Cached) -> None:
    recipe = config.load(
        name, {"codec.side_information": False, "codec.target": "x"} if name == "gd-csi-profile" else {}
    )
    assert recipe.family == ("gd-csi" if name in ("gd-csi-multirate", "gd-csi-profile", "gd-csi-law") else name)
    if name == "gd-csi-law":  # tests/test_gdcsi_law.py builds it
        with pytest.raises(ZooError, match="does not say what law"):
            build(recipe, source)
        return
    if issubclass(registry.architecture(recipe.architecture), Fitted):
        return
    codec = build(recipe, source)
    assert isinstance(codec, Network)
    if name.endswith("-lite") or name in ("csinet", "crnet"):
        assert sum(parameter.numel() for parameter in codec.parameters()) <= 1_000_000


def test_what_rd_jscc_is_compared_with_comes_in_its_layers_too() -> None:
    kinds = {name: config.load(name).architecture for name in config.names()}
    published = ("adjscc", "csinetplus-jscc", "unet-jscc", "gd-jscc")
    assert {kinds[f"{name}-dense"] for name in published} == {kinds["rd-jscc"]} == {"dense-jscc"}
    assert {kinds[name] for name in (*published, "rd-jscc-paper")} == {"adjscc", "unet-jscc", "rd-jscc"}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gd-csi", {**DENSE, "codec.rate": 64}),
        ("gd-csi", {**DENSE, "training.samples": 64}),
        ("gd-csi-multirate", {**DENSE, "codec.rates": (64, 128)}),
        ("gd-csi-paper", {**TINY, "codec.rate": 64}),
        ("gd-csi-paper-multirate", {**TINY, "codec.rates": (64, 128), "codec.objective": "sampler"}),
        ("csinet", SMALL),
        ("adjscc", {**JSCC, "codec.cnr_db": (0.0, 20.0), "codec.bits": 4}),
        ("rd-jscc", {**DENSE_JSCC, "codec.cnr_db": (0.0, 20.0), "codec.bits": 4}),
        ("rd-jscc-paper", REFINED),  # stopped in the first stage
        ("rd-jscc-paper", {**REFINED, "first.steps": 1}),  # stopped in the second
    ],
)
def test_stopped_and_resumed_is_the_same_as_not_stopped(
    name: str, changes: dict[str, Any], source: data.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("zoo.train.STEADY", 1)
    monkeypatch.setattr("zoo.train.AVERAGE_STEPS", 3)  # across the stop
    monkeypatch.setattr("zoo.train.TEND_STEPS", 2)  # words are revived at the step of the stop
    recipe = config.load(name, changes)
    if recipe.training.samples is not None:
        source = data.Kept(None, "cpu", recipe.training.samples, seed=0)
    train(recipe, source, tmp_path / "whole", progress=False)
    update = Trainer.update

    def stop_after_two(self: Any, *arguments: Any) -> Any:
        result = update(self, *arguments)
        if self.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stop_after_two)
        with pytest.raises(Interrupted, match="step 2"):
            train(recipe, source, tmp_path / "halves", progress=False)
    assert not (tmp_path / "halves/models").exists()
    models = train(recipe, source, tmp_path / "halves", progress=False, resume=True)
    assert same(weights(tmp_path / "halves"), weights(tmp_path / "whole"))
    for model in models:
        assert same(read_weights(model), read_weights(tmp_path / "whole/models" / model.name))
    if name.endswith("multirate"):  # what the rates share is stored once
        assert len({part for model in models for part in registry.parts(model)}) == 1


def test_a_run_that_is_killed_loses_what_it_did_since_its_last_checkpoint(
    source: data.Cached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Trainer) -> float:
        if self.step == 3:
            raise KeyboardInterrupt
        return done(self)

    done = Trainer._done
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_done", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config.load("csinet", SMALL), source, tmp_path / "run", progress=False, save_seconds=0)
    assert [path.name for path in sorted((tmp_path / "run/checkpoints").iterdir())] == [
        f"step-0000000{n}" for n in (1, 2)
    ]
    train(config.load("csinet", SMALL), source, tmp_path / "run", progress=False, resume=True)
    assert same(weights(tmp_path / "run"), weights_of_a_whole_run(source, tmp_path))


def weights_of_a_whole_run(source: data.Cached, directory: Path) -> dict[str, Tensor]:
    train(config.load("csinet", SMALL), source, directory / "whole", progress=False)
    return weights(directory / "whole")


@pytest.mark.parametrize(
    ("name", "changes"),
    [("gd-csi", DENSE), ("gd-csi-paper", {**TINY, "codec.rate": 64}), ("rd-jscc-paper", REFINED)],
)
def test_speed_is_measured_beside_a_plain_loop(name: str, changes: dict[str, Any], source: data.Cached) -> None:
    found = training_speed(config.load(name, changes), source, "cpu", 0)
    assert set(found["steps_per_second"]) == {"trained", "plain", "plain_exact"}
    assert found["times_plain"] == found["steps_per_second"]["trained"] / found["steps_per_second"]["plain"]
    assert found["flops_per_step"] > 1e6
    assert found["share_of_peak"] is None  # nobody says what a CPU could do
    assert found["compile_error"] is None


def test_where_nothing_compiles_training_goes_without(source: data.Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: object) -> object:
        raise RuntimeError("no C compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", broken)
    found = training_speed(config.load("csinet", {**SMALL, "training.compile": True}), source, "cpu", 0)
    assert found["compile_error"] == "RuntimeError: no C compiler"
    assert found["steps_per_second"]["trained"] > 0


def test_the_speed_of_a_fitted_codec_is_not_measured(source: data.Cached) -> None:
    with pytest.raises(ZooError, match="fitted in closed form, not trained"):
        training_speed(config.load("klt", {"training.samples": 300}), source, "cpu", 0)


def test_what_a_run_leaves(source: data.Cached, tmp_path: Path) -> None:
    changes = {**DENSE, "codec.rates": (64, 128), "codec.rate": 64}
    models = train(config.load("gd-csi-multirate", changes), source, tmp_path / "run", progress=False)
    assert [model.name for model in models] == ["gd-csi-cdl-64b", "gd-csi-cdl-128b"]
    for model in models:
        codec = zoo.load(model)
        assert codec.bits == int(model.name.rsplit("-", 1)[1][:-1])
        assert check(model, codec) < 1e-6
        record = read_config(model)
        assert record["dataset"]["recipe_digest"] == small_recipe().digest
        assert record["side_information_snr_db"] == 30.0
        assert record["steps"] == 4
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert {"loss", "learning_rate", "steps_per_second", "seconds_left"} <= set(lines[0])
    assert [line["step"] for line in lines if "val_nmse_db" in line] == [1, 2, 3, 4]
    with pytest.raises(zoo.ZooError, match="give --resume"):
        train(config.load("gd-csi-multirate", changes), source, tmp_path / "run", progress=False)
    with pytest.raises(zoo.ZooError, match="another recipe or data set"):
        train(
            config.load("gd-csi-multirate", {**changes, "training.seed": 1}),
            source,
            tmp_path / "run",
            progress=False,
            resume=True,
        )


def test_training_learns(source: data.Cached, tmp_path: Path) -> None:
    changes = {**SMALL, "training.steps": 60, "training.batch": 64, "training.ema": 0.9}
    train(config.load("csinet", {**changes, "training.warmup_steps": 5}), source, tmp_path / "run", progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["val_nmse_db"] for line in lines if "val_nmse_db" in line][-1] < -0.1


def test_fine_tuning_starts_from_a_model_or_a_run(source: data.Cached, tmp_path: Path) -> None:
    (model,) = train(config.load("gd-csi-paper", TINY), source, tmp_path / "first", progress=False)
    for init in (model, tmp_path / "first"):
        recipe = config.load("gd-csi-paper-onestep", {**TINY, "training.init": str(init)})
        codec = build(recipe, source)
        assert same(codec.state_dict(), read_tensors(model / "model.safetensors"))
    with pytest.raises(zoo.ZooError, match=r"other weights than this recipe: .*size mismatch for"):
        build(config.load("gd-csi-paper-onestep", {**TINY, "codec.width": 8, "training.init": str(model)}), source)


def test_two_stages(source: data.Cached, tmp_path: Path) -> None:
    (model,) = train(config.load("rd-jscc-paper", REFINED), source, tmp_path / "run", progress=False)
    assert model.name == "rd-jscc-paper-cdl-k4"
    first = tmp_path / "run/first/models/rd-jscc-paper-ae-cdl-k4"
    autoencoder, whole = read_tensors(first / "model.safetensors"), read_tensors(model / "model.safetensors")
    assert {name for name in autoencoder if name.startswith("autoencoder.")}
    for name, value in autoencoder.items():  # frozen: weights and normalisation, of the averaged model too
        assert torch.equal(whole[name], value), name
    assert whole["unet.out.weight"].any()  # which started from zero
    loaded = zoo.load(model)
    assert max(check(model, loaded), check(first, zoo.load(first))) < 1e-6
    x = data.Store(source.store.path).read("val").x
    assert torch.equal(
        loaded.decode(loaded.encode(x, 5), 5, 0), zoo.load(first).decode(zoo.load(first).encode(x, 5), 5)
    )
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert {"loss", "error", "coarse_error"} <= set(lines[0])
    assert read_config(model)["recipe"]["first"]["steps"] == 3
    onward = config.load("rd-jscc-paper", {**REFINED, "training.init": str(first)})
    (further,) = train(onward, source, tmp_path / "further", progress=False)
    assert read_config(further)["recipe"]["training"]["init"] == first.name  # not where it lay
    for init in (tmp_path / "run/first", first, model):  # a stage may be given
        recipe = config.load("gd-jscc", {**REFINED, "training.init": str(init)})
        assert torch.equal(build(recipe, source).state_dict()["scale"], whole["scale"])
        assert first_stage(recipe) is None
    changed = {**REFINED, "codec.blocks": 2, "training.init": str(first)}
    with pytest.raises(zoo.ZooError, match="other weights than this recipe"):
        build(config.load("rd-jscc-paper", changed), source)


def test_a_time_budget_is_shared_by_the_stages(source: data.Cached, tmp_path: Path) -> None:
    changes = {**REFINED, "first.steps": 10**6, "training.steps": 10**6}
    train(config.load("rd-jscc-paper", changes), source, tmp_path / "run", progress=False, max_minutes=4 / 60)
    for run in (tmp_path / "run", tmp_path / "run/first"):
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert 0 < max(line["step"] for line in lines) < 10**6


def test_fitted_families_go_through_the_same_door(source: data.Cached, tmp_path: Path) -> None:
    (klt,) = train(config.load("klt", {"codec.rate": 13}), source, tmp_path / "klt", progress=False)
    assert zoo.load(klt).payload_bytes == 2
    changes = {"codec.rate": 24, "codec.steps": 0}
    (grid,) = train(config.load("klt-grid", changes), data.Simulated(None, "cpu"), tmp_path / "grid", progress=False)
    assert check(grid, zoo.load(grid)) < 1e-3
    without = config.load("klt", {"codec.rate": 64, "codec.side_information": False})
    (alone,) = train(without, source, tmp_path / "alone", progress=False)
    assert not zoo.load(alone).config.side_information


@pytest.mark.parametrize(
    ("name", "changes"), [("csinet", SMALL), ("crnet", SMALL), ("gd-csi", DENSE), ("gd-csi-paper", TINY)]
)
def test_codecs_may_leave_the_side_information_of_a_data_set(
    name: str, changes: dict[str, Any], source: data.Cached, tmp_path: Path
) -> None:
    recipe = config.load(name, {**changes, "codec.side_information": False})
    (path,) = train(recipe, source, tmp_path / "run", progress=False)
    assert not zoo.load(path).config.side_information
    assert training_speed(recipe, source, "cpu", seconds=0.1)["steps_per_second"]["plain"] > 0


def test_a_time_budget_bends_the_learning_rate_and_ends_the_run(source: data.Cached, tmp_path: Path) -> None:
    recipe = config.load("csinet", {**SMALL, "training.steps": 10**6})
    train(recipe, source, tmp_path / "run", progress=False, max_minutes=2 / 60)
    steps = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert 0 < max(line["step"] for line in steps) < 10**6
    training = recipe.training
    assert learning_rate(training, 0, 0.0) < learning_rate(training, 10**5, 0.0) == training.learning_rate
    assert learning_rate(training, 10**5, 1.0) == pytest.approx(training.final_learning_rate)


def _zoo(*arguments: str | Path, processes: int = 1, cwd: Path) -> subprocess.Popen[str]:
    script = str(Path(sys.executable).with_name("zoo"))
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={processes}",
        "--standalone",
        "--no-python",
    ]
    command = [*(launcher if processes > 1 else []), script, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def _settings(changes: dict[str, Any]) -> list[str]:
    return [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value)}")]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gd-csi", {**DENSE, "training.precision": "float32"}),
        ("gd-csi-paper", TINY),
    ],  # half precision rounds halves of a batch otherwise
)
def test_two_processes_train_the_weights_of_one(
    name: str, changes: dict[str, Any], small_store: Store, tmp_path: Path
) -> None:
    arguments = ["train", name, "--data", small_store.path, *_settings(changes), "--quiet"]
    runs = {n: _zoo(*arguments, "--out", f"run{n}", processes=n, cwd=tmp_path) for n in (1, 2)}
    for process in runs.values():
        _, talk = process.communicate(timeout=240)
        assert process.returncode == 0, talk
    one, two = weights(tmp_path / "run1"), weights(tmp_path / "run2")
    assert one.keys() == two.keys()
    for weight in (weight for weight in one if not weight.endswith("codebooks.usage")):  # each counts its own samples
        torch.testing.assert_close(two[weight], one[weight], rtol=1e-3, atol=1e-4)
    assert read_config(tmp_path / f"run2/models/{name}-cdl-128b")["trained_with"]["processes"] == 2


def test_two_processes_train_two_stages(small_store: Store, tmp_path: Path) -> None:
    arguments = ["train", "rd-jscc-paper", "--data", small_store.path, *_settings(REFINED), "--quiet", "--out", "run"]
    process = _zoo(*arguments, processes=2, cwd=tmp_path)
    _, talk = process.communicate(timeout=240)
    assert process.returncode == 0, talk
    model = tmp_path / "run/models/rd-jscc-paper-cdl-k4"
    assert check(model, zoo.load(model)) < 1e-6  # written by another process, with threads of its own
    first = read_tensors(tmp_path / "run/first/models/rd-jscc-paper-ae-cdl-k4/model.safetensors")
    whole = read_tensors(model / "model.safetensors")
    assert all(torch.equal(whole[name], value) for name, value in first.items())


def test_ctrl_c_saves_and_resume_goes_on(small_store: Store, tmp_path: Path) -> None:
    changes = {**SMALL, "training.steps": 400}
    arguments = ["train", "csinet", "--data", small_store.path, "--out", "run", *_settings(changes)]
    process = _zoo(*arguments, cwd=tmp_path)
    log = tmp_path / "run/log.jsonl"
    for _ in range(1200):
        if log.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=120)
    assert process.returncode == 130, talk
    assert "--resume goes on" in talk.splitlines()[-1]
    resumed = _zoo(*arguments, "--resume", cwd=tmp_path)
    _, talk = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, talk
    whole = _zoo(*arguments[: -len(_settings(changes))], *_settings(changes), "--out", "whole", cwd=tmp_path)
    _, talk = whole.communicate(timeout=240)
    assert whole.returncode == 0, talk
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


@pytest.mark.parametrize("tended", [1, 2, 3])
def test_words_are_revived_wherever_a_run_is_stopped(
    tended: int, source: data.Cached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.train.TEND_STEPS", tended)
    monkeypatch.setattr("zoo.nn.dense.RARE", 100.0)  # all of them
    recipe, update, revived = config.load("gd-csi", {**DENSE, "training.steps": 5}), Trainer.update, 0
    revive = Codebooks.revive

    def counted(*given: Any) -> None:
        nonlocal revived
        revived += 1
        revive(*given)

    monkeypatch.setattr(Codebooks, "revive", counted)
    train(recipe, source, tmp_path / "whole", progress=False)
    assert revived == 4 // tended  # in the first part of the run only

    def stopped(self: Any, *arguments: Any) -> Any:
        result = update(self, *arguments)
        if self.step < 5:
            signal.raise_signal(signal.SIGTERM)
        return result

    monkeypatch.setattr(Trainer, "update", stopped)
    for step in range(1, 6):
        with pytest.raises(Interrupted) if step < 5 else contextlib.nullcontext():
            train(recipe, source, tmp_path / "steps", progress=False, resume=True)
    assert same(weights(tmp_path / "steps"), weights(tmp_path / "whole"))


def test_samples_of_the_indoor_hall_are_in_the_models_name(tmp_path: Path) -> None:
    indoor = data.Kept({"scenario": "cost2100", "environment": "indoor"}, "cpu", 16, seed=0)
    models = train(
        config.load("GD_CSI_Multirate", {**DENSE, "codec.rates": (64, 128)}), indoor, tmp_path, progress=False
    )
    assert [model.name for model in models] == ["gd-csi-cost2100indoor-64b", "gd-csi-cost2100indoor-128b"]
    assert zoo.load(models[0]).config.target == "x"
    assert read_config(models[0])["dataset"] == {**indoor.record(), "train_samples": 16}


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("gd-csy", {}, "unknown recipe 'gd-csy'; nearest: gd-csi"),
        ("gd-csi", {"training.step": 3}, "unknown key 'training.step'; did you mean 'steps'"),
        ("gd-csi-lite", {}, "unknown recipe 'gd-csi-lite'; nearest: gd-csi"),
        ("gd-csi", {"codec.rate": 7}, "rate 7 must be at least 8"),
        ("gd-csi", {"codec.effort": 1}, "effort 1 must be 0: the UE cannot foresee"),
        ("gd-csi-profile", {}, 'encoder = "profile" estimates X by the payload alone'),
        ("gd-csi-paper", {"codec.rate": 100}, "rate 100 must be a multiple of 64"),
        ("gd-csi", {"codec.widht": 3}, "unknown key 'widht'; did you mean 'width'"),
        ("csinet", {"codec.rate": 128}, "nearest: 126, 132"),
        ("csinet", {"training.batch": 1000}, "does not fit 600 training samples"),
        ("csinet", {"training.steps": 0}, "training.steps = 0"),
        ("csinet", {"training.init": "csinet-cdl-1b"}, "unknown model"),
        ("csinet", {"architecture": "csinett"}, "did you mean 'csinet'"),
        ("no/such.toml", {}, "unknown recipe"),
        ("klt", {"codec.rate": "many"}, "rate = 'many': it should be a number of bits"),
        ("klt", {"codec.side_information_snr_db": 3.0}, "unknown key 'side_information_snr_db'; did you mean"),
        ("klt", {"training.side_information_snr_db": None}, "give training.side_information_snr_db"),
        ("rd-jscc-paper", {"first.batch": 1000}, "does not fit 600 training samples"),
        ("rd-jscc-paper", {"first.step": 3}, "unknown key 'first.step'; did you mean 'steps'"),
        ("adjscc", {"first.steps": 3}, "adjscc is trained in one stage"),
        ("adjscc", {"codec.side_information": False}, "unknown key 'side_information'"),
        ("klt-grid", {}, "does not say what law"),
        ("klt-grid", {"codec.side_information": False}, "use klt without"),
    ],
)
def test_bad_recipes(name: str, changes: dict[str, Any], words: str, source: data.Cached, tmp_path: Path) -> None:
    with pytest.raises(zoo.ZooError) as raised:
        train(config.load(name, changes), source, tmp_path / "run", progress=False)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_recipe_files(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "GD_CSI"\n[training]\nside_information_snr_db = "none"\n')
    recipe = config.load(tmp_path / "mine.toml")
    assert (recipe.family, recipe.architecture, recipe.codec["width"]) == ("mine", "gd-csi", 512)
    assert recipe.training.side_information_snr_db is None
    (tmp_path / "loop.toml").write_text(f'extends = "{tmp_path}/loop.toml"\n')
    with pytest.raises(zoo.ZooError, match="extends itself"):
        config.load(tmp_path / "loop.toml")
    (tmp_path / "bad.toml").write_text("a = \n")
    with pytest.raises(zoo.ZooError, match="is not TOML"):
        config.load(tmp_path / "bad.toml")
