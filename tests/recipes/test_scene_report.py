"""Tables of the report of a run on scenes."""

from __future__ import annotations

from contrast3d.recipes.scene_report import tables


def segmented(condition: str, step: int, protocol: str = "semantic segmentation (steps 400)") -> dict:
    return {"recipe": "ours", "dataset": "Rooms", "protocol": protocol, "metric": "mean_iou", "condition": condition,
            "mean": 0.5, "std": 0.1, "values": [0.4, 0.6], "baselines": {"from scratch": {"mean": 0.3, "std": 0.1}},
            "data_hash": "a", "step": step}


def with_classes(result: dict, metric: str) -> dict:
    baselines = {"from scratch": {"mean": 0.3, "std": 0.1, "classes": {"floor": 0.6, "unicorn": None}}}
    return {**result, "metric": metric, "baselines": baselines, "classes": {"floor": 0.9, "unicorn": 0.1},
            "chosen": [{"step": 3, "on": "validation", "scenes": [8, 2]}]}


def registered(metric: str, step: int) -> dict:
    return {"recipe": "ours", "dataset": "Rooms", "protocol": "registration", "metric": metric, "pairs": 7,
            "mean": 0.5, "std": None, "values": [0.5], "baselines": {}, "data_hash": "a", "step": step}


def test_results_of_former_weights_are_marked():
    results = {"a": registered("feature_match_recall", 10), "b": segmented("1% (2 scenes)", 20),
               "c": segmented("10% (20 scenes)", 10)}
    registration, segmentation = tables(results, 20)
    assert "Stale: 'FMR' is of step 10. The run has gone on to step 20" in registration.note
    assert "Stale: '10% (20 scenes)' is of step 10." in segmentation.note
    assert "'1% (2 scenes)'" not in segmentation.note
    assert all("Stale" not in table.note for table in tables(results, None))


def test_trainings_of_another_length_are_another_table():
    results = {"b": segmented("10% (20 scenes)", 1), "a": segmented("1% (2 scenes)", 1),
               "c": segmented("100% (200 scenes)", 1, "semantic segmentation (steps 5)")}
    both, other = tables(results, 1)
    assert both.columns[1:] == ("1% (2 scenes)", "10% (20 scenes)")
    assert other.columns[1:] == ("100% (200 scenes)",)
    assert other.title == "Rooms: semantic segmentation (steps 5)"


def test_best_weights_and_classes_have_tables_of_their_own():
    few, many = segmented("1% (2 scenes)", 1), segmented("10% (20 scenes)", 1)
    results = {"a": few, "b": with_classes(many, "mean_iou"), "c": with_classes(many, "mean_iou_best")}
    last, classes, best = tables(results, 1)
    assert "after the last step" in last.note
    assert "of the weights that were best on validation" in best.note
    assert best.columns[1:] == ("10% (20 scenes)",)
    assert (classes.columns, classes.best(0)) == (("", "from scratch", "ours"), None)
    assert classes.rows == [("floor", [(0.6, None), (0.9, None)]), ("unicorn", [None, (0.1, None)])]
    assert "10% (20 scenes)" in classes.note
