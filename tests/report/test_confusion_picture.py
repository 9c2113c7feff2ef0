import xml.etree.ElementTree as ElementTree

import numpy as np

from contrast3d.report.confusion import HIT, MISS, confusion_picture


def test_a_square_for_each_pair_that_occurs():
    table = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    root = ElementTree.fromstring(confusion_picture(table, ("cup & saucer", "box", "nothing"), "Things < 5"))
    squares = [e for e in root.iter() if e.tag.endswith("rect") and e.get("fill-opacity")]
    assert [s.get("fill") for s in squares] == [HIT, MISS, HIT]
    assert [float(s.get("fill-opacity")) for s in squares] == [0.78, 0.34, 1.0]
    texts = [e.text for e in root.iter() if e.tag.endswith("text")]
    assert texts.count("cup & saucer") == 2
    assert "nothing" not in texts
    assert "Things < 5" in texts
    assert {"75", "25", "100"} <= set(texts)


def test_many_classes_fit():
    names = [f"class{i}" for i in range(40)]
    root = ElementTree.fromstring(confusion_picture(np.eye(40, dtype=np.int64), names, "All"))
    assert int(root.get("width")) < 800
