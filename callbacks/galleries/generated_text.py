"""The text that a language model generates while it learns."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from callbacks.figures.callback import FigureCallback, untouched
from callbacks.galleries.items import write_items
from datamodules.io import atomic_write


class GeneratedText(FigureCallback):
    """Has the model continue a prompt after validation, and writes all samples to `pictures/samples.md`, newest first.

    They also go to `items/samples.json`, for `zoo report`; W&B gets a table `samples`, TensorBoard the text. The random
    numbers are the same each time, so that samples differ only by what was learned. The module must have
    `generate(input_ids, num_tokens, temperature, top_k, generator=...)` as `zoo.language.gpt.GPT` does, and the
    datamodule a `tokenizer`.

    Args:
        prompt: what the text begins with.
        num_tokens: how many tokens follow.
        temperature, top_k: of the random choice; temperature 0 takes the likeliest token, top_k 0 draws from all.
        every_n_epochs: how often.
        seed: of the random choice.

    Attributes:
        samples: (epoch, counted from 1; optimizer steps; val/loss; text), saved in checkpoints.

    Raises:
        ValueError: if the module cannot generate text, or the prompt is empty or unknown to the tokenizer.
    """

    def __init__(
        self,
        prompt: str = "\n",
        num_tokens: int = 300,
        temperature: float = 0.8,
        top_k: int = 0,
        every_n_epochs: int = 1,
        seed: int = 0,
    ) -> None:
        self.prompt, self.num_tokens, self.temperature, self.top_k = prompt, num_tokens, temperature, top_k
        self.every_n_epochs, self.seed = every_n_epochs, seed
        self.samples: list[tuple[int, int, float, str]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        tokenizer = getattr(data, "tokenizer", None)
        if not hasattr(pl_module, "generate") or tokenizer is None:
            raise ValueError(
                f"GeneratedText needs a module with `generate` and data with a `tokenizer`: {type(pl_module).__name__} "
                f"and {type(data).__name__} do not have both; leave the callback out"
            )
        ids = tokenizer.encode(self.prompt, add_special_tokens=False).ids
        if not ids or tokenizer.decode(ids) != self.prompt:
            raise ValueError(
                f"the prompt {self.prompt!r} is not all known to the tokenizer: expected one or more characters of the "
                "text; set another prompt"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Later ones belong to another training.
        self.samples = [sample for sample in self.samples if sample[0] <= trainer.current_epoch]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        loss = float(trainer.callback_metrics.get("val/loss", torch.nan))  # a collective call: all ranks make it
        if trainer.is_global_zero:
            text = self.write(trainer, pl_module)
            self.samples.append((trainer.current_epoch + 1, trainer.global_step, loss, text))
            self._publish(trainer)

    def write(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """The prompt and the text that the model generates after it."""
        tokenizer, device = trainer.datamodule.tokenizer, pl_module.device  # type: ignore[attr-defined]
        ids = tokenizer.encode(self.prompt, add_special_tokens=False).ids
        generator = torch.Generator(device).manual_seed(self.seed)
        start = torch.tensor([ids], device=device)
        with untouched(pl_module), torch.inference_mode(), trainer.precision_plugin.forward_context():
            pl_module.eval()
            tokens = pl_module.generate(  # type: ignore[operator]
                start, self.num_tokens, temperature=self.temperature, top_k=self.top_k, generator=generator
            )
            return tokenizer.decode(ids + [token.item() for token in tokens])

    def _publish(self, trainer: Trainer) -> None:
        parts = [
            f"## Epoch {epoch}, step {step}, val/loss {loss:.3f}\n\n```text\n{text.strip(chr(10))}\n```\n"
            for epoch, step, loss, text in reversed(self.samples)
        ]
        with atomic_write(self.folder / "samples.md") as temporary:
            temporary.write_text("\n".join(["# Samples, the newest first\n", *parts]), encoding="utf-8")
        names = ("epoch", "step", "loss", "text")
        items = [dict(zip(names, sample, strict=True)) for sample in self.samples]
        write_items(self.folder.parent, "samples", "texts", items, prompt=self.prompt)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_table("samples", ["epoch", "step", "val/loss", "text"], [list(s) for s in self.samples])
            elif add_text := getattr(getattr(logger, "experiment", None), "add_text", None):
                add_text("samples", self.samples[-1][-1], trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        return {"samples": self.samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.samples = [tuple(sample) for sample in state["samples"]]
