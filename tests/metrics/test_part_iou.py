import pytest
import torch

from contrast3d.errors import DataError
from contrast3d.metrics.part_iou import instance_and_class_iou, part_ious, pooled_part_iou, restricted_argmax

OF_CLASS = torch.tensor([[True, True, False, False, False], [False, False, True, True, True]])


def random_case(shapes=12, points=30):
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(shapes) % 2
    labels = torch.where(classes[:, None] == 0, torch.randint(0, 2, (shapes, points), generator=generator),
                         torch.randint(2, 4, (shapes, points), generator=generator))
    predicted = restricted_argmax(torch.randn(shapes, points, 5, generator=generator), classes, OF_CLASS)
    return predicted, labels, classes


def naive(predicted, labels, classes):
    """Per shape: the mean over the parts of its class, 1 for one that is neither there nor predicted."""
    shapes = []
    for p, t, c in zip(predicted.tolist(), labels.tolist(), classes.tolist()):
        ious = []
        for part in OF_CLASS[c].nonzero().flatten().tolist():
            inter = sum(a == part and b == part for a, b in zip(p, t))
            union = sum(a == part or b == part for a, b in zip(p, t))
            ious.append(1.0 if union == 0 else inter / union)
        shapes.append(sum(ious) / len(ious))
    of = lambda c: [s for s, k in zip(shapes, classes.tolist()) if k == c]  # noqa: E731
    per_class = [sum(of(c)) / len(of(c)) for c in (0, 1)]
    return sum(shapes) / len(shapes), sum(per_class) / 2


def test_as_the_naive_definition():
    predicted, labels, classes = random_case()
    ious = part_ious(predicted, labels, classes, OF_CLASS)
    assert instance_and_class_iou(ious, classes) == pytest.approx(naive(predicted, labels, classes))
    assert bool(ious[classes == 0][:, 2:].isnan().all())


def test_instances_weigh_alike_and_classes_weigh_alike():
    predicted, labels, classes = random_case()
    rows = torch.tensor([0, 2, 4, 6, 1])  # four of one class, one of the other
    picked = [v[rows] for v in (predicted, labels, classes)]
    found = instance_and_class_iou(part_ious(*picked, OF_CLASS), picked[2])
    assert found == pytest.approx(naive(*picked))
    assert found[0] != pytest.approx(found[1])


def test_absent_and_unpredicted_counts_one_but_a_false_alarm_counts_zero():
    labels = torch.full((1, 4), 2)
    classes = torch.tensor([1])
    assert part_ious(labels, labels, classes, OF_CLASS)[0, 2:].tolist() == [1, 1, 1]
    alarmed = torch.tensor([[2, 2, 2, 3]])
    assert part_ious(alarmed, labels, classes, OF_CLASS)[0, 2:].tolist() == [0.75, 0, 1]


def test_prediction_is_restricted_to_the_class():
    logits = torch.zeros(2, 3, 5)
    logits[..., 0] = 9.0
    logits[..., 4] = 1.0
    assert restricted_argmax(logits, torch.tensor([0, 1]), OF_CLASS).tolist() == [[0] * 3, [4] * 3]


def test_shapes_without_a_part_that_counts_are_left_out():
    predicted, labels, classes = random_case()
    scored = torch.tensor([False, False, True, True, True])
    ious = part_ious(predicted, labels, classes, OF_CLASS & scored)
    only = instance_and_class_iou(ious[classes == 1], classes[classes == 1])
    assert instance_and_class_iou(ious, classes) == pytest.approx(only)
    with pytest.raises(DataError, match="no shape with a part that counts"):
        instance_and_class_iou(torch.full((2, 3), torch.nan, dtype=torch.float64), torch.tensor([0, 1]))


def test_points_without_a_label_count_nowhere():
    labels = torch.tensor([[2, 2, 255, 255], [255] * 4])
    ious = part_ious(torch.tensor([[2, 2, 3, 3], [2, 2, 3, 3]]), labels, torch.tensor([1, 1]), OF_CLASS)
    assert ious[0, 2:].tolist() == [1, 1, 1]
    assert bool(ious[1].isnan().all())
    _, each = pooled_part_iou(torch.tensor([[2, 0, 3, 3]]), labels[:1], 5, (0, 1, 2, 3, 4))
    assert each[2] == 0.5
    assert each[3].isnan()


def test_pooled_over_points():
    labels, predicted = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 1]])
    mean, each = pooled_part_iou(predicted, labels, 4, (0, 1, 2))
    assert each[:2].tolist() == pytest.approx([1 / 2, 2 / 3])
    assert mean == pytest.approx((1 / 2 + 2 / 3) / 2)  # part 2 is nowhere, part 3 is not scored
