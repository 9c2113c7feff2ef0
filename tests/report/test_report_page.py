"""The page: complete in itself, well-formed, safe with any name, whole whatever is missing, repeatable."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from contrast3d.errors import DataError
from contrast3d.report.gallery import Gallery
from contrast3d.report.page import views_figure, write_report
from contrast3d.report.shapes import ViewPair
from contrast3d.report.tables import ResultTable

EVIL = '<script>alert("x")</script>&\'_'
VOID = {"meta", "img", "br", "wbr", "hr", "link", "input"}


class Balanced(HTMLParser):
    """Fails on a tag that closes another one, and remembers what was opened."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def parsed(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def gallery(count=24, num_classes=4, seed=0, **fields) -> Gallery:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    features = rng.normal(size=(count, 8)).astype(np.float32) + 3 * np.eye(8, dtype=np.float32)[labels % 8]
    fields = {
        "labels": labels, "classes": tuple(f"class_{i}" for i in range(num_classes)),
        "names": tuple(f"part {i}" for i in range(count)),
        "predictions": (labels + (np.arange(count) % 5 == 0)) % num_classes, **fields,
    }
    return Gallery(rng.uniform(-1, 1, (count, 200, 3)).astype(np.float32), features, **fields)


def pair(name="shape") -> ViewPair:
    points = np.random.default_rng(1).normal(size=(100, 3)).astype(np.float32)
    return ViewPair(points, points[:50] + 0.1, points[40:], name, np.arange(50), np.arange(40, 100))


def metrics(epochs=3) -> list[dict]:
    """Lines as pretrain writes them: one of training per epoch, one of the probe after every third and the last."""
    lines = []
    for i in range(1, epochs + 1):
        place = {"step": 10 * i, "epoch": i}
        lines.append({"kind": "train", **place, "loss": 5 - 0.1 * i, "alignment": 0.2 + 0.1 / i, "pair_accuracy": 0.5,
                      "lr": 1e-3, "seconds": 2.0 * i})
        if i % 3 == 0 or i == epochs:
            lines.append({"kind": "epoch", **place, "knn_accuracy": 0.2 + 0.01 * i, "rankme": 10.0 + i,
                          "uniformity": -2.0 - i, "feature_std": 0.9, "seconds": 2.0 * i})
    return lines


TABLE = ResultTable(
    "accuracy", ("labels per class", "5", "all"),
    [("majority class", [(0.05, None), (0.05, None)]), ("SimCLR", [(0.31, 0.01), (0.52, 0.004)]),
     ("late", [None, None])],
    note="three draws", ours=("SimCLR",),
)


def whole(path, **changes) -> str:
    fields = {
        "title": "run", "summary": {"recipe": "simclr", "command": "contrast3d pretrain x"},
        "metrics": metrics(), "tables": [TABLE], "views": [pair()], "gallery": gallery(), **changes,
    }
    return write_report(path / "report.html", **fields).read_text("utf-8")


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)">', page)


def test_a_full_page_has_every_section_and_is_well_formed(tmp_path):
    page = whole(tmp_path)
    parsed(page)
    assert sections(page) == ["results", "run", "accuracy", "loss", "health", "views", "map", "neighbours",
                              "confusion", "reproduce"]
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]  # no temporary file stays behind


def test_nothing_is_loaded_from_anywhere(tmp_path):
    page = whole(tmp_path)
    assert "http://" not in page
    assert "https://" not in page
    for tag, attributes in parsed(page).seen:
        assert tag not in {"link", "iframe", "object", "embed"}
        assert not (tag == "script" and "src" in attributes)
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    assert all(url.startswith("data:image/webp") for url in re.findall(r"url\(([^)]{20})", page))


def test_names_from_files_cannot_become_markup(tmp_path):
    shapes = gallery(names=tuple(EVIL + str(i) for i in range(24)), classes=(EVIL, "b", "c", "d"), title=EVIL)
    table = ResultTable(EVIL, (EVIL, "1", "2"), [(EVIL, [(0.5, 0.1), (0.6, 0.1)])], note=EVIL, ours=(EVIL,))
    page = whole(
        tmp_path, title=EVIL, summary={EVIL: EVIL, "command": EVIL}, tables=[table], views=[pair(EVIL)],
        gallery=shapes,
        metrics=[*metrics(), {"kind": "epoch", "epoch": EVIL, EVIL + "_accuracy": 0.5, "rankme": EVIL}],
    )
    scripts = [attributes for tag, attributes in parsed(page).seen if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "shapes"}, {}]
    assert "<script>alert" not in page


def test_the_same_input_gives_the_same_bytes(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    assert whole(first) == whole(second)


def test_sections_without_data_are_left_out(tmp_path):
    nothing = {"summary": {}, "metrics": [], "tables": [], "views": None, "gallery": None}
    page = whole(tmp_path, **nothing)
    parsed(page)
    assert sections(page) == []
    assert sections(whole(tmp_path, **{**nothing, "metrics": metrics()})) == ["accuracy", "loss", "health"]
    assert sections(whole(tmp_path, **{**nothing, "metrics": [{"kind": "epoch", "epoch": 1}]})) == []


@pytest.mark.parametrize(("shapes", "expected"), [
    (gallery(labels=None, predictions=None, classes=()), ["map", "neighbours"]),
    (gallery(predictions=None), ["map", "neighbours"]),
    (gallery(num_classes=1), ["map", "neighbours", "confusion"]),
    (gallery(count=2), ["map", "neighbours", "confusion"]),
    (gallery(count=1), ["map", "confusion"]),
    (gallery(labels=np.full(24, -1)), ["map", "neighbours"]),
    (gallery(num_classes=20, count=40), ["map", "neighbours", "confusion"]),
], ids=["no labels", "no predictions", "one class", "two shapes", "one shape", "unknown", "many classes"])
def test_any_gallery_makes_a_page(tmp_path, shapes, expected):
    page = whole(tmp_path, summary={}, metrics=[], tables=[], views=[], gallery=shapes)
    parsed(page)
    assert sections(page) == expected


def test_equal_features_make_a_page(tmp_path):
    shapes = gallery()
    same = Gallery(shapes.points, np.ones((24, 8), np.float32), shapes.labels, shapes.classes)
    assert "map" in sections(whole(tmp_path, gallery=same))


def test_values_that_are_not_finite_are_counted_and_never_drawn(tmp_path):
    lines = metrics(9)
    train = [line for line in lines if line["kind"] == "train"]
    train[3]["loss"], train[4]["loss"], train[5]["loss"] = float("nan"), None, float("inf")
    lines[-1]["rankme"] = "NaN"
    page = whole(tmp_path, metrics=lines)
    assert "3 of 9 values are not finite" in page
    assert "1 of 3 values are not finite" in page
    assert not re.search(r'(?:d|cx|cy|x|y)="[^"]*(?:nan|inf)', page)


def test_a_run_that_is_nan_from_the_start(tmp_path):
    lines = [{"kind": "train", "step": i, "loss": float("nan"), "lr": 0.1} for i in range(5)]
    page = whole(tmp_path, metrics=lines)
    parsed(page)
    assert "Learning rate" in page
    assert "<h3>Loss</h3>" not in page


def test_a_single_epoch_is_a_dot(tmp_path):
    page = whole(tmp_path, metrics=metrics(1), tables=[], gallery=None, views=None)
    parsed(page)
    assert health(page).count("<circle") == health(page).count("<svg") == 4
    assert ">1</dd>" in page  # one epoch


def health(page: str) -> str:
    return page[page.index('id="health"'):page.index("</section>", page.index('id="health"'))]


def test_epochs_that_were_not_probed_are_no_values_that_went_wrong(tmp_path):
    lines = metrics(7)
    former = [{"kind": "epoch", "step": 10 * i, "epoch": i} for i in (1, 2, 4, 5)]  # older versions wrote empty lines
    page = whole(tmp_path, metrics=sorted([*lines, *former], key=lambda line: line["step"]))
    assert "not finite" not in page
    assert ">7</dd>" in page  # epochs, however many were probed
    figure = page[page.index("<h3>RankMe"):page.index("<h3>Alignment")]
    assert figure.count("<circle") == 3
    assert figure.split('class="line"')[1].split('"/>')[0].count("M") == 1  # one line through the probed epochs


def test_alignment_is_read_where_training_logs_it(tmp_path):
    page = health(whole(tmp_path, metrics=metrics(7)))
    assert "<h3>Alignment</h3>" in page
    assert page[page.index("<h3>Alignment"):page.index("<h3>Uniformity")].count("<circle") == 7
    measured = [{**line, "alignment": 0.4} if line["kind"] == "epoch" else line for line in metrics(7)]
    page = health(whole(tmp_path, metrics=measured))  # the probe's own number goes first
    assert page[page.index("<h3>Alignment"):page.index("<h3>Uniformity")].count("<circle") == 3


def test_the_confusions_say_whose_they_are(tmp_path):
    page = whole(tmp_path, gallery=gallery(predictor="the svm probe (all labels)"))
    assert "columns what the svm probe (all labels) said" in page
    assert "misclassified by the svm probe (all labels)." in page


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    whole(tmp_path)
    before = (tmp_path / "report.html").read_bytes()

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        whole(tmp_path, title="other")
    assert (tmp_path / "report.html").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_views_alone(tmp_path):
    page = views_figure(tmp_path / "views.html", [pair(), pair(EVIL)]).read_text("utf-8")
    assert sections(page) == ["views"]
    assert sum(tag == "img" for tag, _ in parsed(page).seen) == 6


def test_a_view_that_lost_all_its_points_stays_an_empty_picture(tmp_path):
    empty = np.zeros((0, 3), np.float32)
    page = views_figure(tmp_path / "views.html", [ViewPair(np.ones((4, 3)), empty, empty)]).read_text("utf-8")
    assert sum(tag == "img" for tag, _ in parsed(page).seen) == 3


def test_a_broken_gallery_is_one_clear_error():
    good = gallery()
    with pytest.raises(DataError, match="23 features for 24 shapes"):
        Gallery(good.points, good.features[:23])
    with pytest.raises(DataError, match="NaN"):
        Gallery(good.points, np.full((24, 8), np.nan, np.float32))
    with pytest.raises(DataError, match="labels up to 9"):
        Gallery(good.points, good.features, np.full(24, 9), ("a",))
    with pytest.raises(DataError, match="no shapes"):
        Gallery(good.points[:0], good.features[:0])
