"""Distillation: a classifier that learns the logits of a trained one."""

import pytest
import torch
import torch.nn.functional as F

from datamodules.images.digits import Digits
from helpers import Synthetic, quiet_trainer
from zoo import load
from zoo.classification.resnet_mini import ResNetMini
from zoo.parts.losses import distillation

TEACHER = "digits/small"


def student(**options) -> ResNetMini:
    torch.manual_seed(0)
    return ResNetMini(widths=(16, 32), strides=(1, 2), stem_pool=False, **options)


def data() -> Digits:
    return Digits(batch_size=64, augment=[])


def test_the_loss_is_hintons():
    """Cross-entropy of the softened probabilities, less the teacher's entropy, times the square of the temperature."""
    ours, theirs = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    for temperature in (1.0, 4.0):
        target = (theirs / temperature).softmax(1)
        entropy = -(target * target.log()).sum(1).mean()
        expected = temperature**2 * (F.cross_entropy(ours / temperature, target) - entropy)
        torch.testing.assert_close(distillation(ours, theirs, temperature), expected)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_step_weighs_the_teacher_against_the_labels(share):
    model = student(teacher=TEACHER, temperature=2.0, teacher_share=share)
    digits = data()
    trainer = quiet_trainer(max_steps=0)
    trainer.fit(model, datamodule=digits)
    batch = digits.on_after_batch_transfer(digits.samples_of("val", range(8)), 0)
    model.train()
    torch.manual_seed(1)
    logits = model.net(batch.image)
    taught = load(TEACHER)(batch.image)
    kl = F.kl_div((logits / 2).log_softmax(1), (taught / 2).softmax(1), reduction="batchmean") * 4
    expected = (1 - share) * F.cross_entropy(logits, batch.label) + share * kl
    model.log_metric = lambda *_, **__: None
    torch.testing.assert_close(model.step(batch, "train")["loss"], expected)
    torch.testing.assert_close(model.step(batch, "val")["loss"], F.cross_entropy(model.net(batch.image), batch.label))


def test_a_student_is_saved_without_its_teacher(tmp_path):
    model, own = student(teacher=TEACHER), set(student().state_dict())
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, datamodule=data())
    assert set(model.state_dict()) == own
    trainer.save_checkpoint(tmp_path / "student.ckpt")
    saved = torch.load(tmp_path / "student.ckpt", weights_only=True)
    saved["hyper_parameters"]["teacher"] = "a model that is gone"
    torch.save(saved, tmp_path / "student.ckpt")
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(load(tmp_path / "student.ckpt")(x), model.eval()(x))


def test_a_teacher_helps_where_labels_are_wrong():
    """Labels that are drawn at random teach nothing; the teacher's logits of the same images do."""
    right = {}
    for share in (0.0, 1.0):
        model, digits = student(teacher=TEACHER, teacher_share=share), data()
        digits.setup("fit")
        labels = digits.datasets["train"].labels
        labels.copy_(labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))])
        trainer = quiet_trainer(max_epochs=5)
        trainer.fit(model, datamodule=digits)
        right[share] = float(trainer.callback_metrics["val/acc"])
    assert right[0.0] < 0.4 < 0.7 < right[1.0]


class Reversed(Digits):
    classes = tuple(str(9 - i) for i in range(10))


@pytest.mark.parametrize(
    ("options", "datamodule", "message"),
    [
        ({"teacher": TEACHER}, lambda: Digits(mean=(0.0,), std=(1.0,)), r"mean of the teacher digits/small"),
        ({"teacher": TEACHER}, Reversed, r"classes of the teacher"),
        ({"teacher": TEACHER, "num_classes": 3}, lambda: Synthetic(num_classes=3), r"num_classes .* \[10\], and"),
        ({"teacher": TEACHER, "in_channels": 3}, lambda: Synthetic(image_shape=(3, 8, 8)), r"mean of the teacher"),
        ({"teacher": "language/gpt-char-cpu"}, Digits, r"a GPT: expected a classifier"),
        ({"teacher": "digits/smal"}, Digits, r"nearest: digits/small"),
        ({"teacher": "nowhere/run.ckpt"}, Digits, r"nowhere/run.ckpt"),
    ],
)  # fmt: skip
def test_a_teacher_that_does_not_fit_is_told_before_training(options, datamodule, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        quiet_trainer(max_epochs=1).fit(student(**options), datamodule=datamodule())


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": float("nan")}, {"teacher_share": 1.1}])
def test_settings_out_of_range_are_told(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}.*expected"):
        student(**options)
