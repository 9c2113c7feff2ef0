"""The doctor: what it says on this machine, and that it survives what it is there to find."""

from __future__ import annotations

import pytest

from contrast3d.recipes import doctor
from contrast3d.recipes.doctor import Check, diagnose


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    return {check.name: check for check in diagnose()}


def test_tells_what_matters(checks):
    wanted = {"python", "cores", "torch", "threads", "kernel cache", "torchvision", "data LDraw40", "numba"}
    assert wanted <= set(checks)
    assert checks["data LDraw40"].value == "2537 shapes x 1024 points"
    assert checks["torchvision"].status == "ok"


def test_this_machine_lacks_nothing_that_is_required(checks):
    missing = [check for check in checks.values() if check.status == "missing"]
    assert all(check.name.startswith("extra ") for check in missing), missing
    assert all("pip install 'contrast3d[" in check.advice for check in missing)


def test_every_warning_says_what_to_do(checks):
    assert all(check.advice for check in checks.values() if check.status != "ok")


def test_measures_speed(checks):
    assert float(checks["knn 8 x 1024 points, k 20"].value.removesuffix(" ms")) > 0
    assert float(checks["matmul float32"].value.removesuffix(" GFLOP/s")) > 0


def test_requirements_by_extra():
    declared = doctor._requirements()
    assert ("torch", "torch>=2.6") in declared[""]
    assert ("tensorboard", "tensorboard>=2.15") in declared["log"]
    assert "pytest" not in dict(declared[""])


def test_absent_packages_are_lines_with_a_remedy(monkeypatch):
    present = doctor._installed
    absent = ("h5py", "pytest")
    monkeypatch.setattr(doctor, "_installed", lambda name: None if name in absent else present(name))
    dependency = next(c for c in doctor._dependencies() if c.name == "h5py")
    extra = next(c for c in doctor._extras() if c.name == "extra dev")
    assert (dependency.status, dependency.advice) == ("missing", "pip install 'h5py>=3.10'")
    assert (extra.status, extra.advice) == ("missing", "pip install 'contrast3d[dev]'")
    assert "pytest" in extra.value


def test_torchvision_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda name: "0.99")
    (check,) = doctor._torchvision()
    assert check.status == "warn"


def test_a_failing_check_is_a_line():
    def _broken_part():
        yield Check("first", "fine")
        raise OSError("no such disk")

    first, last = doctor._guarded(_broken_part)
    assert first == Check("first", "fine")
    assert (last.name, last.value, last.status) == ("broken part", "OSError: no such disk", "missing")


def test_writable(tmp_path):
    assert doctor._writable(tmp_path / "not" / "yet" / "there")
    (tmp_path / "file").touch()
    assert not doctor._writable(tmp_path / "file")


def test_a_network_is_weighed_without_the_weights_of_its_teachers(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    told = doctor.weigh("recon-shapenet55-published").value
    assert "parameters" in told
    assert "without its projections to teachers (weights/vit-base-patch16-224-in21k: no such folder)" in told
