"""Mistakes in the rules, strategies and experiments of routes."""

import pytest
from catalog_texts import Load, Problems

ROUTED = """\
models:
  - {name: small, provider: extractive}
  - {name: large, provider: extractive}
  - {name: support, provider: people}
routes:
  default:
    rules:
      - when:
          days: [mon]
          escalated: true
        intent: a
        models: [small, large]
        strategy: cascade
        accept:
          json_schema: {minimum: 1}
      - when: {min_tokens: 5}
        intent: b
        models:
          - small
          - large
        strategy: ensemble
        combine:
          judge: small
    otherwise: [small]
    experiments:
      - name: try
        of: small
        to: large
        percent: 10
        rollback: {alpha: 0.1, min_score: 0.5}
  other:
    otherwise: [small]
    experiments:
      - name: else
        route: default
        percent: 10
        starts: 2026-11-23T09:00:00Z
"""


class TestAMistakeInWhatIsRouted:
    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            ("days: [mon]", "days: [mon, Tue]", "9: route 'default', rule 1, when: 'days', item 2: "
             "unknown 'Tue' (did you mean 'tue'?)"),
            ("escalated: true", "escalated: maybe", "10: route 'default', rule 1, when: "
             "'escalated' must be true or false (it is 'maybe')"),
            ("days: [mon]", "pattern: (a", "9: route 'default', rule 1, when, pattern: "
             "not a regular expression that RE2 knows: missing ): (a"),
            ("strategy: cascade", "strategy: cascad", "13: route 'default', rule 1: "
             "unknown strategy 'cascad' (did you mean 'cascade'?)"),
            ("minimum: 1", "maximum: .inf", "15: route 'default', rule 1, accept, json_schema, "
             "maximum: must be a finite number"),
            ("json_schema: {minimum: 1}", "judge: support", "15: route 'default', rule 1, accept: "
             "'support' is people, who can't be a judge"),
            ("judge: small", "judge: support", "23: route 'default', rule 2, combine: "
             "'support' is people, who can't be a judge"),
            ("- large\n        str", "- support\n        str", "20: route 'default', rule 2: "
             "'support' is people, who can't be one of an ensemble"),
            ("judge: small", "function: f", "16: route 'default', rule 2: "
             "function 'f' must be written as module:name"),
            ("to: large", "to: support\n        kind: shadow", "28: route 'default', experiment 1: "
             "'support' is people, who can't be a shadow"),
            ("to: large", "to: small", "26: route 'default', experiment 1: "
             "of and to are the same model: there is nothing to try"),
            (", min_score: 0.5", "", "30: route 'default', experiment 1, rollback: a rollback "
             "needs a bound: max_error_rate, max_latency_s, max_cost_usd or min_score"),
            ("alpha: 0.1", "alpha: 0.5", "30: route 'default', experiment 1, rollback: "
             "'alpha' must be less than 0.5 (it is '0.5')"),
            ("name: else", "name: try", "34: route 'other', experiment 1: route 'default' has an "
             "experiment 'try', too: its figures would be those of both"),
            ("route: default", "route: other", "35: route 'other', experiment 1: "
             "its route is the one that it is in: there is nothing to try"),
            ("2026-11-23T09:00:00Z", "tomorrow", "37: route 'other', experiment 1: 'starts' must "
             "be a moment, such as 2026-11-23T09:00:00Z (it is 'tomorrow')"),
        ],
    )  # fmt: skip
    def test_is_one_problem_with_its_line(
        self, problems: Problems, old: str, new: str, problem: str
    ) -> None:
        assert old in ROUTED
        assert problems(ROUTED.replace(old, new, 1)) == (f"catalog.yaml:{problem}",)

    def test_a_date_in_a_schema_is_a_text_as_json_has_none(self, load: Load) -> None:
        found = load(ROUTED.replace("minimum: 1", "const: 2026-01-01"))
        accept = found.route("default").rules[0].accept
        assert accept is not None
        assert accept.json_schema == {"const": "2026-01-01"}
