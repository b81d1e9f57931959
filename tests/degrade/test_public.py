import rasr.degrade


def test_all_is_sorted_and_importable() -> None:
    names = rasr.degrade.__all__
    assert list(names) == sorted(names)
    for name in names:
        assert getattr(rasr.degrade, name) is not None
