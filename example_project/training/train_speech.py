"""Train spoken-digits and write weights/spoken_digits.pt.

Run as `python -m example_project.training.train_speech`; takes minutes on one core. The epoch that is kept is the one
with the best accuracy on the validation voices; the test voices are looked at once, at the end.
"""

import copy
import math
import time

import torch
from torch import Tensor, nn
from torch.nn import functional

from example_project.speech import FRAMES, MEL_BANDS, WEIGHTS_PATH, SpokenDigits, test_data, train_data, validation_data
from example_project.training.saving import accuracy, save_weights

SEED = 5
EPOCHS = 30
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.1

MAX_STRETCH = 0.15  # of the time axis: slower and faster speakers
MAX_WARP = 0.10  # of the mel axis: longer and shorter vocal tracts
MAX_SHIFT_FRAMES = 4.0
MAX_SHIFT_BANDS = 1.5
MAX_GAIN = 1.0  # nepers of power
MASKED_BANDS, MASKED_FRAMES = 4, 6


def between(low: float, high: float, count: int) -> Tensor:
    """Uniform random numbers [count] between `low` and `high`."""
    return low + (high - low) * torch.rand(count)


def distort(spectrograms: Tensor) -> Tensor:
    """Other speakers made of spectrograms [batch, 32, 48]: stretched, warped, shifted, louder, partly masked.

    The masks hide one band and one stretch of time each (SpecAugment; Park et al., 2019).
    """
    count = len(spectrograms)
    zero = torch.zeros(count)
    time_row = torch.stack(
        [between(1 - MAX_STRETCH, 1 + MAX_STRETCH, count), zero, between(-1, 1, count) * 2 * MAX_SHIFT_FRAMES / FRAMES],
        dim=1,
    )
    mel_row = torch.stack(
        [zero, between(1 - MAX_WARP, 1 + MAX_WARP, count), between(-1, 1, count) * 2 * MAX_SHIFT_BANDS / MEL_BANDS],
        dim=1,
    )
    images = spectrograms.unsqueeze(1)
    grid = functional.affine_grid(torch.stack([time_row, mel_row], dim=1), list(images.shape), align_corners=False)
    warped = functional.grid_sample(images, grid, padding_mode="border", align_corners=False).squeeze(1)
    warped = warped + between(-MAX_GAIN, MAX_GAIN, count)[:, None, None]
    mean = warped.mean(dim=(1, 2), keepdim=True)
    hidden = hide(count, MEL_BANDS, MASKED_BANDS)[:, :, None] | hide(count, FRAMES, MASKED_FRAMES)[:, None, :]
    return torch.where(hidden, mean, warped)


def hide(count: int, length: int, longest: int) -> Tensor:
    """True over one random stretch of at most `longest` places per row, bool [count, length]."""
    width = (torch.rand(count) * (longest + 1)).floor()
    start = (torch.rand(count) * (length - width)).floor()
    place = torch.arange(length)
    return (place >= start[:, None]) & (place < (start + width)[:, None])


def train() -> SpokenDigits:
    """A model trained on the training voices, as it was at its best epoch on the validation voices."""
    torch.manual_seed(SEED)
    features, labels = train_data()
    held_out = validation_data()
    model = SpokenDigits()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LEARNING_RATE, total_steps=EPOCHS * math.ceil(len(labels) / BATCH_SIZE), pct_start=0.15
    )
    best, best_state = -1.0, model.state_dict()
    for epoch in range(EPOCHS):
        model.train()
        total = 0.0
        for rows in torch.split(torch.randperm(len(labels)), BATCH_SIZE):
            logits = model(distort(features[rows]))
            loss = functional.cross_entropy(logits, labels[rows], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        reached = accuracy(model, *held_out)
        # Of equals the later one, which was trained with a smaller learning rate.
        if reached >= best:
            best, best_state = reached, copy.deepcopy(model.state_dict())
        print(f"epoch {epoch + 1}: loss {total / len(labels):.4f}, validation accuracy {reached:.4f}", flush=True)
    model.load_state_dict(best_state)
    return model.eval()


def main() -> None:
    """Train, save and print the accuracy on the test voices."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    model = train()
    save_weights(model, WEIGHTS_PATH)
    print(f"test accuracy {accuracy(model, *test_data()):.4f}, saved {WEIGHTS_PATH}")
    print(f"{time.monotonic() - started:.0f} seconds")


if __name__ == "__main__":
    main()
