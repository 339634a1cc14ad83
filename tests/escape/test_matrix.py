"""The table of rules and the tests agree."""

import re

from tests.escape.matrix import DOCUMENT, document, rule_to_tests
from tests.escape.rules import RULES


def test_every_rule_is_held_by_a_test() -> None:
    held = rule_to_tests()
    assert [rule.id for rule in RULES if not held[rule.id]] == []


def test_every_mark_names_a_rule() -> None:
    assert set(rule_to_tests()) <= {rule.id for rule in RULES}


def test_rules_are_in_order_and_say_where_they_come_from() -> None:
    ids = [rule.id for rule in RULES]
    assert ids == sorted(set(ids))
    assert all(re.fullmatch(r"E\d\d", id) for id in ids)
    assert all(rule.origin and rule.rule for rule in RULES)


def test_the_document_is_the_table() -> None:
    assert DOCUMENT.read_text() == document()
