"""docs/shim.md has the checks of critest that do not pass, as the test of the shim has them."""

import tomllib

from tests.paths import ROOT


def test_the_table_of_the_page_is_that_of_the_test() -> None:
    table = tomllib.loads((ROOT / "tests/shim/critest.toml").read_text())
    rows = [f"| {name} | {why} |" for name, why in table["not_in_a_vm"].items()]
    page = (ROOT / "docs/shim.md").read_text().partition("## What Kubernetes' own tests say")[2].partition("\n## ")[0]
    assert [line for line in page.splitlines() if line.startswith("| ")][1:] == rows
