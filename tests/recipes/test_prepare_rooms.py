"""`contrast3d data prepare rooms`: recordings that `data prepare pairs` reads, kept, interrupted and made again."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from contrast3d import cli
from contrast3d.data import room_camera
from contrast3d.data.room_camera import film
from contrast3d.data.rooms import make_room
from contrast3d.data.scene_views import load_views

SMALL = ["--frames", "3", "--width", "40", "--height", "30", "--quiet"]
CUBE = "".join(f"v {x} {y} {z}\n" for x in (0, 1) for y in (0, 1) for z in (0, 1)) + "f 1 2 4\nf 5 6 8\n"


def command(out, *more):
    return ["data", "prepare", "rooms", "-o", str(out), *SMALL, *map(str, more)]


def times(out):
    """When each file of each room was written."""
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def test_rooms_become_recordings_and_these_pairs(tmp_path, capsys):
    out, pairs = tmp_path / "my recordings", tmp_path / "pairs"
    assert cli.main(["data", "prepare", "rooms", "-o", str(out), "--count", "2", "--frames", "8", "--split", "val",
                     "--width", "64", "--height", "48"]) == 0
    said = capsys.readouterr().out
    assert f"2 rooms of 8 frames, 64 x 48, in {out}" in said
    assert f"next: contrast3d data prepare pairs '{out}' -o pairs" in said
    room = make_room("val", 1)
    assert sorted(path.name for path in out.iterdir()) == sorted([make_room("val", 0).name, room.name])
    depth = np.array(Image.open(out / room.name / "depth" / "25.png"))
    assert np.array_equal(depth, film(room, 8, width=64, height=48).depth_mm[1])
    assert cli.main(["data", "prepare", "pairs", str(out), "-o", str(pairs)]) == 0
    assert "2 scenes of 16 views" in capsys.readouterr().out
    scene = load_views(pairs / f"{room.name}.npz")
    assert len(scene) == 8
    assert len(scene.pairs) > 0


def test_rooms_that_are_there_are_kept(tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(command(out, "--count", 1)) == 0
    before = times(out)
    assert len(before) == 3 * 3 + 4 + 1
    assert cli.main(command(out, "--count", 2)) == 0
    assert "2 rooms of 3 frames, 40 x 30" in (said := capsys.readouterr().out)
    assert "1 were there already" in said
    assert before.items() <= times(out).items()
    assert cli.main(command(out, "--count", 2, "--restart")) == 0
    assert not before.items() & times(out).items()
    assert times(out).keys() >= before.keys()


def test_other_options_make_rooms_again(tmp_path, capsys):
    out, name = tmp_path / "out", make_room("train", 0).name
    assert cli.main(command(out, "--count", 1)) == 0
    assert cli.main([*command(out, "--count", 1), "--frames", "2"]) == 0
    assert "0 were there already" in capsys.readouterr().out.splitlines()[-2]
    assert sorted(path.name for path in (out / name / "depth").iterdir()) == ["0.png", "25.png"]
    assert [path.name for path in out.iterdir()] == [name]


@pytest.mark.parametrize("restart", [(), ("--restart",)])
def test_ctrl_c_leaves_nothing_half_written(tmp_path, monkeypatch, capsys, restart):
    """Neither under the name of a room nor beside it; what was there stays until the new one is whole."""
    out, write, calls = tmp_path / "out", room_camera._write_matrix, []
    names = [make_room("train", index).name for index in range(3)]
    if restart:
        assert cli.main(command(out, "--count", 3)) == 0
    before = times(out)

    def interrupted(path, matrix):
        calls.append(path)
        if len(calls) == 7 + 5:  # in the midst of the second room
            raise KeyboardInterrupt
        write(path, matrix)

    monkeypatch.setattr(room_camera, "_write_matrix", interrupted)
    assert cli.main(command(out, "--count", 3, *restart)) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == (names if restart else names[:1])
    assert {path for path, time in times(out).items() if before.get(path) == time} == {
        path for path in before if names[0] not in str(path)}
    assert cli.main(command(out, "--count", 3)) == 0
    assert f"{len(names) if restart else 1} were there already" in capsys.readouterr().out
    assert all(len(list((out / name / "pose").iterdir())) == 3 for name in names)


def test_what_a_kill_left_goes(tmp_path):
    out, name = tmp_path / "out", make_room("train", 0).name
    left = [f".{name}.new", f"..{name}.new.abc.part", f".{name}.old"]
    for folder in left:
        (out / folder / "depth").mkdir(parents=True)
    assert cli.main(command(out, "--count", 1)) == 0
    assert [path.name for path in out.iterdir()] == [name]


@pytest.mark.parametrize("as_file", [False, True])
def test_furniture_of_the_users_own(tmp_path, as_file):
    """From a folder, or from one library of Sweet Home 3D; other furniture, other depth, and no room is kept."""
    library = tmp_path / "meshes" / "mine.SH3F"
    library.parent.mkdir()
    with zipfile.ZipFile(library, "w") as archive:
        kinds = ("Chair", "Table", "Bed", "Desk", "Shelf", "Cabinet", "Sofa")
        lines = "".join(f"name#{n}={kind}\nmodel#{n}=/a.obj\n" for n, kind in enumerate(kinds))
        archive.writestr("PluginFurnitureCatalog.properties", lines)
        archive.writestr("a.obj", CUBE)
    out, name = tmp_path / "out", make_room("train", 0).name
    assert cli.main(command(out, "--count", 1)) == 0
    plain = [path.read_bytes() for path in sorted((out / name / "depth").iterdir())]
    meshes = library if as_file else library.parent
    assert cli.main(command(out, "--count", 1, "--meshes", meshes)) == 0
    assert [path.read_bytes() for path in sorted((out / name / "depth").iterdir())] != plain
    assert json.loads((out / name / "about.json").read_text())["meshes"] == str(meshes)


def test_folders_of_others_are_left_alone(tmp_path, fails):
    out, name = tmp_path / "out", make_room("train", 0).name
    for number, text in enumerate((None, "{}", "[1]", "no json")):
        (out / name / "depth").mkdir(parents=True, exist_ok=True)
        if text:
            (out / name / "about.json").write_text(text)
        told = fails(2, *command(out, "--count", 1, *(["--restart"] if number % 2 else [])))
        assert f"{out / name} is there, without an about.json of a generated room" in told
        assert "Try: another folder with -o" in told
    assert [path.name for path in out.iterdir()] == [name]


def test_bad_arguments_are_one_line_each(tmp_path, fails):
    begin, out = ("data", "prepare", "rooms"), ("-o", tmp_path / "out")
    assert "-o FOLDER is missing; see contrast3d data prepare rooms --help" in fails(2, *begin)
    assert "did you mean --count?" in fails(2, *begin, *out, "--cuont", "3")
    assert "--count 0; expected 1 to 10,000" in fails(2, *begin, *out, "--count", "0")
    assert "--frames -1" in fails(2, *begin, *out, "--frames", "-1")
    assert "--width 1" in fails(2, *begin, *out, "--width", "1")
    assert "--height 5000" in fails(2, *begin, *out, "--height", "5000")
    assert "are 7,680,000,000 pixels; expected 200,000,000 at most" in fails(
        2, *begin, *out, "--frames", "10000", "--width", "1024", "--height", "750")
    assert "--split" in fails(2, *begin, *out, "--split", "dev")
    assert "did you mean rooms?" in fails(2, "data", "prepare", "room", *out)
    assert "no such folder; expected a folder of" in fails(1, *begin, *out, "--meshes", tmp_path / "none")
    (tmp_path / "file").write_text("")
    assert "a file; expected a folder of" in fails(1, *begin, *out, "--meshes", tmp_path / "file")
    (tmp_path / "broken.sh3f").write_bytes(b"PK")
    assert "no mesh of a known class" in fails(1, *begin, *out, "--meshes", tmp_path / "broken.sh3f")
    assert not (tmp_path / "out").exists()
    assert "is a file; expected a folder" in fails(2, *begin, "-o", tmp_path / "file")


def test_help_names_it(capsys):
    assert cli.main(["data", "--help"]) == 0
    assert "data prepare rooms -o FOLDER" in capsys.readouterr().out
    assert cli.main(["data", "prepare", "--help"]) == 0
    assert "rooms -o FOLDER" in capsys.readouterr().out
    assert cli.main(["data", "prepare", "rooms", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--restart" in said
    assert "/usr/share/sweethome3d/furniture" in said  # where Debian's package keeps its libraries
