"""Whatever a recipe does to the model in place, the one that the test holds keeps every bit, class and setting."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plugin.small_project import run

Project = Callable[..., pytest.Pytester]


def test_no_recipe_touches_the_model_of_the_test(project: Project) -> None:
    result = run(
        project,
        """
class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.wide = nn.Linear(16, 512)
        self.head = nn.Linear(512, 4)

    def forward(self, x):
        return self.head(torch.relu(self.wide(torch.relu(self.norm(self.conv(x))).mean((2, 3)))))

def state(model):
    tensors = {name: (tensor.clone(), tensor.stride()) for name, tensor in model.state_dict().items()}
    kinds = [(name, type(m), m.training, len(m._forward_pre_hooks)) for name, m in model.named_modules()]
    return tensors, kinds, torch.get_num_threads(), torch.get_default_dtype()

@pytest.mark.parametrize("recipe", [
    "prune-unstructured", "prune-structured", "low-rank", "fold-batchnorm + channels-last", "int8-weight-only",
    "int8-static", "torchao-int8-weight-only", "onnxruntime",
])
def test_untouched(optimize, recipe):
    torch.manual_seed(0)
    model = Small().eval()
    tensors, *others = state(model)
    inputs = torch.randn(4, 3, 8, 8)
    changed = optimize(model, recipe, example_inputs=inputs, calibration=(inputs, torch.arange(4)))
    assert changed.coverage.changed_bytes > 0
    after, *others_after = state(model)
    assert others_after == others
    assert all(torch.equal(after[name][0], tensor) for name, (tensor, _) in tensors.items())
    assert all(after[name][1] == stride for name, (_, stride) in tensors.items())
""",
    )
    result.assert_outcomes(passed=8)
