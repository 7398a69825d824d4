"""Write data/digits.pt from scikit-learn's copy of the UCI handwritten digits, so that nothing else needs scikit-learn.

Run as `python -m example_project.training.make_digit_images`.
"""

import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

from example_project.training.saving import save_whole
from example_project.vision import DATA_PATH

SPLIT_SEED = 20240


def main() -> None:
    """Save images [1797, 8, 8] uint8 from 0 to 16, labels [1797] uint8 and the indices of both parts."""
    digits = load_digits()
    labels = torch.from_numpy(digits.target).to(torch.uint8)
    train, test = train_test_split(
        range(len(labels)), test_size=0.25, random_state=SPLIT_SEED, stratify=digits.target, shuffle=True
    )
    content = {
        "images": torch.from_numpy(digits.images).to(torch.uint8),
        "labels": labels,
        "train_indices": torch.tensor(sorted(train)),
        "test_indices": torch.tensor(sorted(test)),
    }
    save_whole(content, DATA_PATH)
    print(f"{DATA_PATH}: {len(train)} images to train on, {len(test)} held out")


if __name__ == "__main__":
    main()
