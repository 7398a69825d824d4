"""A user's project, which a test of metrics copies: a detector for images of different sizes, its data and metric."""

from __future__ import annotations

import torch
from torch import nn

CELL = 8
Found = dict[str, torch.Tensor]


class Detector(nn.Module):
    """Takes a list of images (1, height, width), and gives for each the boxes (found, 4) of its bright patches. One
    cell of the image holds one box at most."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(CELL * CELL, 32)
        self.head = nn.Linear(32, 5)

    def answers(self, image: torch.Tensor) -> torch.Tensor:
        """(cells, 5): whether there is a patch, and its corners as shares of the cell."""
        cells = nn.functional.unfold(image[None], CELL, stride=CELL)[0].T
        found: torch.Tensor = self.head(torch.relu(self.body(cells)))
        return found

    def forward(self, images: list[torch.Tensor]) -> list[Found]:
        return [self.boxes(self.answers(image), image.shape[2] // CELL) for image in images]

    @staticmethod
    def boxes(answers: torch.Tensor, columns: int) -> Found:
        (cells,) = torch.where(answers[:, 0] > 0)
        corners = torch.stack([cells % columns, cells // columns], 1).repeat(1, 2) * CELL
        scores = answers[cells, 0].sigmoid()
        return {
            "boxes": corners + CELL * answers[cells, 1:],
            "scores": scores,
            "labels": torch.zeros(len(cells), dtype=torch.long),
        }


def drawn(seed: int, count: int) -> tuple[list[torch.Tensor], list[Found]]:
    """Images of two to four cells on each side; every third cell has a patch."""
    generator = torch.Generator().manual_seed(seed)
    images, targets = [], []
    for index in range(count):
        rows, columns = 2 + index % 3, 2 + index % 2
        image = 0.25 * torch.randn(1, rows * CELL, columns * CELL, generator=generator)
        boxes = []
        for cell in range(index % 3, rows * columns, 3):
            left, top = torch.randint(4, (2,), generator=generator).tolist()
            wide, high = torch.randint(3, 5, (2,), generator=generator).tolist()
            x, y = cell % columns * CELL + left, cell // columns * CELL + top
            image[0, y : y + high, x : x + wide] += 1
            boxes.append([x, y, x + wide, y + high])
        images.append(image)
        targets.append({"boxes": torch.tensor(boxes).float(), "labels": torch.zeros(len(boxes), dtype=torch.long)})
    return images, targets


def images() -> tuple[list[torch.Tensor], list[Found]]:
    return drawn(1, 40)


def detector() -> nn.Module:
    """Trained in a moment."""
    torch.manual_seed(0)
    model = Detector()
    taught, targets = drawn(7, 90)
    cells, wanted = [], []
    for image, target in zip(taught, targets, strict=True):
        columns = image.shape[2] // CELL
        cells.append(nn.functional.unfold(image[None], CELL, stride=CELL)[0].T)
        answers = torch.zeros(len(cells[-1]), 5)
        for box in target["boxes"]:
            column, row = (box[:2] // CELL).long().tolist()
            answers[row * columns + column] = torch.cat([torch.ones(1), box / CELL - torch.tensor([column, row] * 2)])
        wanted.append(answers)
    given, right = torch.cat(cells), torch.cat(wanted)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        answers = model.head(torch.relu(model.body(given)))
        has_patch = nn.functional.binary_cross_entropy_with_logits(answers[:, 0], right[:, 0])
        (has_patch + 10 * (right[:, :1] * (answers[:, 1:] - right[:, 1:]).square()).mean()).backward()
        optimizer.step()
    optimizer.zero_grad()  # gradients would stand in memory beside the weights
    return model.eval()


def overlap(one: torch.Tensor, other: torch.Tensor) -> float:
    """Intersection over union of two boxes."""
    sides = torch.minimum(one[2:], other[2:]) - torch.maximum(one[:2], other[:2])
    common = float(sides.clamp(min=0).prod())
    return common / (float((one[2:] - one[:2]).prod()) + float((other[2:] - other[:2]).prod()) - common)


def average_precision(outputs: list[Found], targets: list[Found]) -> float:
    """Of boxes that overlap a patch by half at least, as COCO has it: the mean of the best precision at 101 recalls."""
    found = [
        (float(score), box, image)
        for image, of_image in enumerate(outputs)
        for score, box in zip(of_image["scores"], of_image["boxes"], strict=True)
    ]
    ranked = sorted(found, key=lambda each: -each[0])
    left = [list(target["boxes"]) for target in targets]
    patches = sum(map(len, left))
    hits, curve = 0, []
    for rank, (_, box, image) in enumerate(ranked, start=1):
        overlaps = [overlap(box, patch) for patch in left[image]]
        if max(overlaps, default=0) >= 0.5:
            left[image].pop(overlaps.index(max(overlaps)))
            hits += 1
        curve.append((hits / patches, hits / rank))
    at_recalls = [
        max((precision for recall, precision in curve if recall >= step / 100), default=0.0) for step in range(101)
    ]
    return sum(at_recalls) / 101


average_precision.higher_is_better = True  # type: ignore[attr-defined]
