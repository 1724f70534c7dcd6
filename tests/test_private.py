"""Each private member of Lightning, jsonargparse, rich and torch that is used: whether it still does what is relied on.

A failing test here says that a library has changed; `perceiver_lightning/private.py` is the one file to look at.
"""

import ast
import csv
import os
import signal
import typing
from pathlib import Path
from threading import RLock
from types import SimpleNamespace

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from perceiver_lightning import private
from perceiver_lightning.cli.messages import without_hints
from perceiver_lightning.private import (
    OpenCheckpoint,
    OpenCLI,
    OpenCSVLogger,
    OpenProgressBar,
    OpenTensorBoard,
    OpenWandb,
    OpenWriter,
    whole_numbers_first,
)

HOME = Path(private.__file__).parent


class Line(LightningModule):
    """Learns one number."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((1,), start))

    def training_step(self, batch, batch_idx):
        self.log("train/mean", float(batch_idx), on_step=False, on_epoch=True, batch_size=1 + batch_idx)
        self.log("train/last", float(batch_idx), batch_size=1)
        return (self.weight - batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/score", 1.0, batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def loader(count: int) -> DataLoader:
    return DataLoader([torch.ones(1)] * count, batch_size=None)  # type: ignore[arg-type]


class Numbers(LightningDataModule):
    """Four of them."""

    def train_dataloader(self):
        return loader(4)

    def val_dataloader(self):
        return loader(1)


def fit(tmp_path, *callbacks, **options) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "logger": False}
    chosen = {"max_epochs": 1, "log_every_n_steps": 2} | quiet | options
    trainer = Trainer(default_root_dir=tmp_path, callbacks=list(callbacks), **chosen)
    trainer.fit(Line(), loader(4), loader(1))
    return trainer


class Look(Callback):
    """Keeps what a function says of the trainer after each batch."""

    def __init__(self, look) -> None:
        self.look, self.seen = look, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(self.look(trainer))


# ---- the command line


class Steps(OpenCLI):
    """Notes which of its steps are taken."""

    def __init__(self, *args, **options) -> None:
        self.steps: list[str] = []
        super().__init__(*args, **options)

    def add_subcommand_arguments(self, parser, subcommand):
        parser.add_argument(f"--only_{subcommand}", default=3)

    def set_seed(self):
        self.steps.append("seed")
        super().set_seed()

    def make_trainer(self, config, callbacks):
        self.steps.append("trainer")
        return super().make_trainer(config, callbacks)

    def run_subcommand(self, subcommand):
        self.steps.append(subcommand)
        super().run_subcommand(subcommand)


def test_the_command_line_takes_its_steps_under_public_names(tmp_path, monkeypatch):
    quiet = [
        "logger=false",
        "enable_progress_bar=false",
        "enable_model_summary=false",
        "accelerator=cpu",
        "max_epochs=1",
    ]
    hyper_parameters = {"hyper_parameters": {"start": 5.0}, "state_dict": {}}
    torch.save(hyper_parameters, tmp_path / "x.ckpt")
    monkeypatch.chdir(tmp_path)
    ran = []

    def fit(self, model, datamodule=None, ckpt_path=None):
        ran.append((type(model), type(datamodule), ckpt_path))

    monkeypatch.setattr(Trainer, "fit", fit)
    monkeypatch.setattr("sys.argv", ["x"])
    with without_hints():
        cli = Steps(
            Line, Numbers, args=["fit", "--ckpt_path=x.ckpt", *(f"--trainer.{flag}" for flag in quiet)],
            save_config_callback=None, seed_everything_default=7,
        )  # fmt: skip
    assert cli.steps == ["seed", "trainer", "fit"] and ran == [(Line, Numbers, "x.ckpt")]
    assert torch.initial_seed() == 7
    assert isinstance(cli.subcommand_parser("fit"), LightningArgumentParser)
    assert cli.config.fit.only_fit == 3 and "only_fit" not in cli.subcommand_parser("test").get_defaults()
    assert cli.model.weight.tolist() == [0]  # Lightning's own would take the checkpoint's 5


def test_arguments_of_a_parser_have_names_defaults_and_types():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--names", type=list[str] | None)
    found = {action.dest: (action.default, private.type_of(action)) for action in private.actions(parser)}
    assert found["count"] == (3, int) and found["names"] == (None, list[str] | None)


# ---- what is trained


def test_a_module_tells_its_trainer_or_none(tmp_path):
    assert private.attached_trainer(Line()) is None
    trainer = fit(tmp_path, enable_checkpointing=False)
    assert private.attached_trainer(trainer.lightning_module) is trainer


def test_steps_that_are_logged_and_batches_that_are_accumulated(tmp_path):
    look = Look(lambda trainer: (private.logs_now(trainer), private.accumulates(trainer)))
    fit(tmp_path, look, enable_checkpointing=False)
    assert [logs for logs, _ in look.seen] == [False, True, False, True]
    assert not any(accumulates for _, accumulates in look.seen)
    look = Look(private.accumulates)
    fit(tmp_path, look, enable_checkpointing=False, accumulate_grad_batches=2)
    assert look.seen == [True, False, True, False]


def test_means_over_an_epoch_before_its_end(tmp_path):
    look = Look(private.epoch_means)
    fit(tmp_path, look, enable_checkpointing=False, max_epochs=2)
    assert [set(means) for means in look.seen] == [{"train/mean"}] * 8
    expected = [0, 2 / 3, (2 + 6) / 6, (2 + 6 + 12) / 10]  # each batch weighs its size, and an epoch begins at nothing
    assert [means["train/mean"] for means in look.seen] == pytest.approx(expected * 2)


def test_what_comes_after_is_logged_at_the_last_step(tmp_path):
    logger = OpenCSVLogger(tmp_path, name="", version="run")
    trainer = fit(tmp_path, logger=logger, enable_checkpointing=False)
    state = trainer.fit_loop.state_dict()
    again = Trainer(logger=OpenCSVLogger(tmp_path, name="", version="again"), accelerator="cpu", **QUIET)
    again.fit_loop.load_state_dict(state)
    private.log_at_the_last_step(again)
    again.validate(Line(), loader(1), verbose=False)
    files = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("run", "again")]
    rows = [list(csv.DictReader(lines)) for lines in files]
    (during,), (after,) = ([int(row["step"]) for row in part if row.get("val/score")] for part in rows)
    assert during == after == 3


QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


def test_rates_of_a_schedule_can_be_set():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.5)
    schedule = LambdaLR(optimizer, lambda step: 1.0)
    assert schedule.get_last_lr() == [0.5]
    private.set_last_rates(schedule, [0.25])
    assert schedule.get_last_lr() == [0.25]


def test_started_processes_are_handed_over_and_sigterm_can_be_handled(tmp_path, monkeypatch):
    launchers = private.subprocess_script
    monkeypatch.setattr(launchers, "_launch_process_observer", None)
    seen = []
    private.observe_children_with(seen.append)
    launcher = launchers._SubprocessScriptLauncher(SimpleNamespace(creates_processes_externally=False), 2, 1)
    launcher.cluster_environment.validate_settings = lambda **_: None
    monkeypatch.setattr(launcher, "_call_children_scripts", lambda: launcher.procs.append("child"))
    monkeypatch.setattr(launchers, "_set_num_threads_if_needed", lambda **_: None)
    assert launcher.launch(lambda: 5) == 5 and seen == [["child"]]

    class Terminate(Callback):
        def setup(self, trainer, pl_module, stage):
            private.handle_sigterm(trainer, lambda *_: seen.append("handled") or private.notice_sigterm(trainer))

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SIGTERMException):
        fit(tmp_path, Terminate(), enable_checkpointing=False)
    assert seen[1:] == ["handled"]


def test_storages_have_keys_on_the_meta_device_too():
    one, other = (torch.empty(4, device="meta") for _ in range(2))
    key = private.storage_key(one.untyped_storage())
    assert key == private.storage_key(one[1:].untyped_storage()) != private.storage_key(other.untyped_storage())


# ---- callbacks and loggers


def test_a_checkpoint_callback_says_what_it_would_do_and_writes_last(tmp_path):
    class Decisions(OpenCheckpoint):
        seen: typing.ClassVar[list] = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1:
                self.seen.append((self.saves_after_training_epochs(trainer), self.saves_on_exception(trainer)))
                self.seen.append(self.has_nothing_to_save(trainer))
                self.take_as_saved(trainer.global_step)
                self.seen.append((self.has_nothing_to_save(trainer), self.saves_on_exception(trainer)))
                self.take_as_saved(0)
                self.save_last_checkpoint(trainer)
                assert Path(self.dirpath, "last.ckpt").is_file()

    options = {"save_last": True, "save_on_exception": True, "monitor": "val/score"}
    fit(tmp_path, Decisions(tmp_path / "a", save_on_train_epoch_end=True, **options))
    assert Decisions.seen == [(True, True), False, (True, False)]
    Decisions.seen.clear()
    fit(tmp_path, Decisions(tmp_path / "b", save_on_train_epoch_end=False, **options), num_sanity_val_steps=0)
    assert Decisions.seen[0][0] is False


def test_the_bar_can_be_described_and_ended(tmp_path, capsys):
    class Described(OpenProgressBar):
        stopped = 0
        locked = None

        def describe_training(self):
            return f"mine, not {super().describe_training()!r}"

        def before_stop(self):
            self.stopped += 1

    class Lock(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            bar.locked = bar.drawing

    bar = Described()
    assert bar.drawing is None
    fit(tmp_path, bar, Lock(), enable_progress_bar=True, enable_checkpointing=False)
    assert isinstance(bar.locked, type(RLock()))
    assert bar.stopped == 1
    assert "mine, not 'Epoch 0/0" in capsys.readouterr().out


def test_the_writer_keeps_the_file_of_a_folder_and_the_logger_takes_it(tmp_path):
    (tmp_path / "version_0").mkdir()
    kept = tmp_path / "version_0" / "metrics.csv"
    kept.write_text("a,step\n1,0\n")
    logger = OpenCSVLogger(tmp_path, name="", version=0)
    assert logger.writer is None
    logger.writer = writer = OpenWriter(logger.log_dir)
    assert logger.experiment is writer and kept.read_text() == "a,step\n1,0\n"
    logger.next_version()
    assert logger.log_dir == str(tmp_path / "version_1")


def test_tensorboard_writes_where_it_is_told_and_purges(tmp_path, monkeypatch):
    logger = OpenTensorBoard(".", name="", version="")
    assert logger.writer is None
    logger.write_into(tmp_path, purge_step=5)
    given = {}
    monkeypatch.setattr(
        "torch.utils.tensorboard.SummaryWriter", lambda log_dir, **options: given.update(options, log_dir=log_dir)
    )
    assert logger.experiment is logger.writer
    assert Path(given["log_dir"]) == tmp_path and given["purge_step"] == 5


def test_settings_of_wandb_reach_its_run(tmp_path, monkeypatch):
    logger = OpenWandb(save_dir=tmp_path)
    assert logger.begun is None and logger.setting("name") is None and logger.setting("id") is None
    assert logger.setting("dir") == str(tmp_path) and logger.setting("project") == "lightning_logs"
    assert "anonymous" in vars(logger)["_wandb_init"]  # with which every run begins with a warning
    for key, value in {
        "dir": "d",
        "name": "n",
        "id": "i",
        "project": "p",
        "mode": "offline",
        "anonymous": None,
    }.items():
        logger.change(key, value)
    given = {}
    run = SimpleNamespace(id="i")
    monkeypatch.setattr("wandb.init", lambda **options: given.update(options) or run)
    assert logger.experiment is logger.begun is run
    assert given == {"dir": "d", "name": "n", "id": "i", "project": "p", "mode": "offline", "resume": "allow"}
    assert (logger.save_dir, logger.name, logger.version) == ("d", "p", "i")
    logger.forget()
    assert logger.begun is None


# ---- nowhere else


def private_names(file: Path) -> list[str]:
    """What a file takes of others by a name with one underscore in front."""
    found = []
    tree = ast.parse(file.read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            where = ast.unparse(node)
            is_own = (
                node.attr in own or where.startswith("torch.ops.") or where == "os._exit" or node.attr == "_replace"
            )  # of a named tuple
            found += [] if is_own else [f"{file.relative_to(HOME)}: {where}"]
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("torch.utils._"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            found += [
                f"{file.relative_to(HOME)}: from {node.module}" for name in names if name[0] == "_" != name[:2][1:]
            ]
    return found


def test_private_members_are_used_in_one_file_alone():
    files = [file for file in HOME.rglob("*.py") if file.name != "private.py"]
    assert len(files) > 40
    assert [name for file in files for name in private_names(file)] == []
    assert len(private_names(HOME / "private.py")) > 15


def test_yaml_is_read_as_jsonargparse_reads_it():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--free", type=typing.Any)
    for text, found in {"1e-3": 0.001, "1_000": 1000, "2024-01-01": "2024-01-01", "[a, 1e3]": ["a", 1000.0]}.items():
        assert yaml.load(text, private.yaml_loader()) == private.yaml_value(text) == found
    assert parser.parse_args(["--free=[1e-3]"]).free == [0.001]
    with pytest.raises(yaml.YAMLError):
        private.yaml_value("[a")


@pytest.mark.parametrize("text, expected", [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("null", None)])
def test_a_whole_number_stays_one_where_a_float_would_do(text, expected):
    parser = ArgumentParser()
    parser.add_class_arguments(Trainer, "trainer")
    whole_numbers_first(parser)
    found = parser.parse_args([f"--trainer.limit_train_batches={text}"]).trainer.limit_train_batches
    assert found == expected and type(found) is type(expected)
    assert parser.parse_string(f"trainer: {{limit_train_batches: {text}}}").trainer.limit_train_batches == expected
