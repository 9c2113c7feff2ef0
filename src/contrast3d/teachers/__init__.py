"""Teachers: what networks trained on pictures and on text say of a shape, computed once or on the fly."""

from contrast3d.teachers.cached import Cached
from contrast3d.teachers.contract import ImageTeacher, Teacher, TextTeacher
from contrast3d.teachers.feature_files import FeatureFile
from contrast3d.teachers.online import Online

__all__ = ["Cached", "FeatureFile", "ImageTeacher", "Online", "Teacher", "TextTeacher"]
