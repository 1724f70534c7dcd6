"""Arguments that belong together, in dataclasses."""

import inspect
from dataclasses import fields

import pytest
from grouped import arguments_of, groups_of

import datamodules
from datamodules.audio_visual.base import PictureOptions, SoundOptions

NAMES = [name for name in datamodules.__all__ if name != "DataModule"]


@pytest.mark.parametrize("name", NAMES)
def test_a_field_has_one_place_in_a_class(name):
    """Old configs say fields without their group: each must lead to one."""
    kind = getattr(datamodules, name)
    names = [field.name for group in groups_of(kind).values() for field in fields(group)]
    assert len(names) == len(set(names))
    assert not set(names) & arguments_of(kind).keys()


@pytest.mark.parametrize("options", [PictureOptions, SoundOptions])
def test_a_field_has_one_place_in_a_part_of_a_clip(options):
    groups = [kind for kind in inspect.get_annotations(options).values() if hasattr(kind, "__dataclass_fields__")]
    names = [field.name for group in groups for field in fields(group)]
    assert len(groups) == 2 and len(names) == len(set(names))
    assert not set(names) & inspect.get_annotations(options).keys()


@pytest.mark.parametrize("name", NAMES)
def test_groups_are_frozen_and_documented(name):
    for group in groups_of(getattr(datamodules, name)).values():
        assert type(group).__dataclass_params__.frozen  # as they are defaults
        documented = inspect.getdoc(type(group)).split("Args:")[1]
        assert [f"\n    {field.name}: " in documented for field in fields(group)] == [True] * len(fields(group))


@pytest.mark.parametrize("name", NAMES)
def test_no_constructor_has_more_than_a_dozen_arguments_of_its_own(name):
    for kind in getattr(datamodules, name).__mro__:
        if kind.__module__.startswith("datamodules") and "__init__" in vars(kind):
            own = inspect.signature(kind.__init__).parameters
            assert len([one for one in own if one not in ("self", "options")]) <= 12
