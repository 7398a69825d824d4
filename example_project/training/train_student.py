"""Distil digits-vit into a small Transformer and write weights/digits_student.pt.

Run as `python -m example_project.training.train_student`; takes a minute or two on one core. The student learns from
what the trained model answers to distorted training images, beside their labels (Hinton et al., 2015). The held-out
part is only looked at to print its accuracy at the end.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from example_project.training.saving import accuracy, save_weights
from example_project.training.train_vision import distort
from example_project.vision import STUDENT_PATH, load_model, make_student, test_data, train_data

SEED = 11
EPOCHS = 100
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
TEMPERATURE = 2.0
SHARE_OF_LABELS = 0.3


def distilled(teacher: nn.Module, images: Tensor, labels: Tensor) -> nn.Module:
    """A student trained on images [n, 1, 8, 8] for a fixed number of epochs; no choice is made along the way."""
    torch.manual_seed(SEED)
    student = make_student()
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * math.ceil(len(labels) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=steps, pct_start=0.1)
    student.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels)).split(BATCH_SIZE):
            batch = distort(images[rows])
            with torch.no_grad():
                taught = functional.log_softmax(teacher(batch) / TEMPERATURE, dim=1)
            answers = student(batch)
            own = functional.log_softmax(answers / TEMPERATURE, dim=1)
            distance = functional.kl_div(own, taught, reduction="batchmean", log_target=True) * TEMPERATURE**2
            loss = SHARE_OF_LABELS * functional.cross_entropy(answers, labels[rows]) + (1 - SHARE_OF_LABELS) * distance
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return student.eval()


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    student = distilled(load_model(), *train_data())
    save_weights(student, STUDENT_PATH)
    print(f"accuracy on the held-out part: {accuracy(student, *test_data()):.4f}")


if __name__ == "__main__":
    main()
