"""What a test lacks skips it, but fails it where everything has to be there."""

import pytest

from arb_pipeline_tests.conftest import absent, required


@pytest.mark.parametrize(("all_there", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_what_is_absent_skips_a_test_and_fails_it_under_ci(
    all_there: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARB_REQUIRE_SHARED", all_there)
    with pytest.raises(outcome, match="no such thing"):
        absent("no such thing")
    with pytest.raises(outcome, match="arb_pipeline_that_is_not"):
        required("arb_pipeline_that_is_not")


def test_a_module_that_is_there_is_given() -> None:
    assert required("json.decoder").JSONDecoder
