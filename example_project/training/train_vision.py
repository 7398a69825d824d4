"""Train digits-vit and write weights/digits_vit.pt.

Run as `python -m example_project.training.train_vision`; takes minutes on one core. `--validate` sets a sixth of the
training part aside, to compare settings without looking at the held-out part, and saves nothing.

We train with a group penalty so that structured pruning is cheap. The feed-forward layers are made wide, which trains
easily, and each hidden unit (its row of `linear1`, its bias and its column of `linear2`) pays for its L2 norm.
Units that the task does not need shrink to zero together, so that removing the smaller half afterwards changes next to
nothing and needs no fine-tuning (group lasso: Yuan & Lin, 2006; for networks: Wen et al., 2016).
"""

import argparse
import math
import time

import torch
from torch import Tensor, nn
from torch.nn import functional

from example_project.training.saving import accuracy, save_weights
from example_project.vision import WEIGHTS_PATH, DigitsViT, test_data, train_data

SEED = 7
EPOCHS = 60
BATCH_SIZE = 64
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.05
GROUP_PENALTY = 1.2

MAX_ROTATION_RADIANS = math.radians(10)
MAX_SCALING = 0.1
MAX_SHIFT_PIXELS = 0.5


def distort(images: Tensor) -> Tensor:
    """Slightly rotated, scaled and shifted copies of images [batch, 1, 8, 8]: 1,347 images are few."""
    count = len(images)
    angle = (2 * torch.rand(count) - 1) * MAX_ROTATION_RADIANS
    scale = 1 + (2 * torch.rand(count, 2) - 1) * MAX_SCALING
    # The grid runs from -1 to 1 over 8 pixels: one pixel is a quarter.
    shift = (2 * torch.rand(count, 2) - 1) * MAX_SHIFT_PIXELS / 4
    rows = (
        torch.stack([scale[:, 0] * angle.cos(), -angle.sin(), shift[:, 0]], dim=1),
        torch.stack([angle.sin(), scale[:, 1] * angle.cos(), shift[:, 1]], dim=1),
    )
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def unit_norms(layer: nn.TransformerEncoderLayer) -> Tensor:
    """The L2 norm of each hidden feed-forward unit [feedforward]: incoming weights, bias and outgoing weights."""
    squares = layer.linear1.weight.square().sum(1) + layer.linear1.bias.square() + layer.linear2.weight.square().sum(0)
    return squares.sqrt()


@torch.no_grad()
def shrink_units(model: DigitsViT, amount: float) -> None:
    """Take `amount` off the norm of every hidden unit, or zero it: the proximal step of the group lasso.

    A step of its own, because the penalty's gradient inside Adam would be rescaled weight by weight, which breaks up
    the groups.
    """
    for layer in model.encoder.layers:
        assert isinstance(layer, nn.TransformerEncoderLayer)
        keep = (1 - amount / unit_norms(layer).clamp_min(1e-12)).clamp_min(0)
        layer.linear1.weight.mul_(keep[:, None])
        layer.linear1.bias.mul_(keep)
        layer.linear2.weight.mul_(keep)


def train(images: Tensor, labels: Tensor) -> DigitsViT:
    """A model trained on images [n, 1, 8, 8] for a fixed number of epochs; no choice is made along the way."""
    torch.manual_seed(SEED)
    model = DigitsViT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps_per_epoch = math.ceil(len(labels) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LEARNING_RATE, total_steps=EPOCHS * steps_per_epoch, pct_start=0.1
    )
    for epoch in range(EPOCHS):
        model.train()
        total = 0.0
        for rows in torch.split(torch.randperm(len(labels)), BATCH_SIZE):
            loss = functional.cross_entropy(model(distort(images[rows])), labels[rows], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            shrink_units(model, GROUP_PENALTY * float(schedule.get_last_lr()[0]))
            schedule.step()
            total += loss.item() * len(rows)
        if (epoch + 1) % 5 == 0:
            print(
                f"epoch {epoch + 1}: loss {total / len(labels):.4f}, {zero_units(model)} hidden units at zero",
                flush=True,
            )
    return model.eval()


def zero_units(model: DigitsViT) -> str:
    """How many hidden units of each encoder layer the penalty has switched off, in words."""
    norms = [unit_norms(layer) for layer in model.encoder.layers if isinstance(layer, nn.TransformerEncoderLayer)]
    return " and ".join(f"{int((norm == 0).sum())} of {len(norm)}" for norm in norms)


def main() -> None:
    """Train, save and print the accuracy on images that were not trained on."""
    parser = argparse.ArgumentParser(description="Train digits-vit.")
    parser.add_argument("--validate", action="store_true", help="hold out a sixth of the training part; save nothing")
    validate = parser.parse_args().validate
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    images, labels = train_data()
    if validate:
        held_out = torch.arange(len(labels)) % 6 == 0
        model = train(images[~held_out], labels[~held_out])
        print(f"validation accuracy {accuracy(model, images[held_out], labels[held_out]):.4f}")
    else:
        model = train(images, labels)
        save_weights(model, WEIGHTS_PATH)
        print(f"test accuracy {accuracy(model, *test_data()):.4f}, saved {WEIGHTS_PATH}")
    print(f"{time.monotonic() - started:.0f} seconds")


if __name__ == "__main__":
    main()
