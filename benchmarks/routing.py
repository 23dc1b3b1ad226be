"""How well the router's learned parts decide, on public data, beside their baselines.

The data is read from a folder and is not part of this repository: CLINC150 and Banking77 (intents
of short requests), prompts labelled by hand with the built-in classifier's intents, MMLU and GSM8K
with the scores of two models, and a mixed set with those of nine.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from router_worker.learned import evaluate_intents, evaluate_quality
from router_worker.learned.commands import timed
from router_worker.learned.evaluate_quality import Judged, cross_validated, judged
from router_worker.learned.intents import IntentClassifier
from router_worker.learned.rows import IntentRow, PairRow, ScoresRow, read_rows
from router_worker.learned.train_intents import train_intents
from router_worker.learned.train_quality import train_quality
from router_worker.oracles.shelf import BUILTIN_FOLDER

FILES: Final = (
    "intent_clinc150_train.jsonl",
    "intent_clinc150_val.jsonl",
    "intent_banking77_train.jsonl",
    "labels_selfinstruct_seed175.jsonl",
    "prompts_selfinstruct_seed175_unlabelled.jsonl",
    "routing_mmlu.jsonl",
    "routing_gsm8k.jsonl",
    "routing_llmrouter_9models.jsonl",
)
BANKING_FOLDS: Final = 10

PRICES: Final[Mapping[str, float]] = {
    "codegemma-7b": 0.20,
    "gemma-2-9b-it": 0.20,
    "llama-3.1-8b-instruct": 0.20,
    "llama3-chatqa-1.5-8b": 0.20,
    "mistral-7b-instruct-v0.3": 0.20,
    "qwen2.5-7b-instruct": 0.20,
    "llama-3.1-nemotron-51b-instruct": 0.90,
    "llama-3.3-nemotron-super-49b-v1": 0.90,
    "llama3-chatqa-1.5-70b": 0.90,
}
"""An assumption: US dollars per million tokens that hosts of open models ask by size. The data has
no costs, so each call is taken to be as long as any other."""


def run(folder: Path, seed: int = 0) -> dict[str, Any]:
    """Return all measures. Takes about half an hour on one core."""
    return {
        "clinc150": clinc(folder, seed),
        "banking77": banking(folder, seed),
        "labelled prompts": labelled(folder, seed),
        **pairs(folder, seed),
        "nine models": nine(folder, seed),
    }


def intent_rows(path: Path) -> list[IntentRow]:
    """Return the rows of a file about intents."""
    return [row for row in read_rows(path) if isinstance(row, IntentRow)]


def pair_rows(path: Path) -> list[PairRow]:
    """Return the rows of a file about two models."""
    return [row for row in read_rows(path) if isinstance(row, PairRow)]


def clinc(folder: Path, seed: int) -> dict[str, Any]:
    """Train on one part, judge on the other; the gate is chosen on the training rows alone."""
    rows = intent_rows(folder / "intent_clinc150_train.jsonl")
    trained = train_intents([(row.text, row.intent) for row in rows], seed=seed)
    held = intent_rows(folder / "intent_clinc150_val.jsonl")
    return intents(held, trained.classifier.classify, seed)


def banking(folder: Path, seed: int) -> dict[str, Any]:
    """Cross-validate."""
    rows = intent_rows(folder / "intent_banking77_train.jsonl")
    guesses, classify = evaluate_intents.cross_validated(rows, folds=BANKING_FOLDS, seed=seed)
    return intents(rows, classify, seed, guesses)


def labelled(folder: Path, seed: int) -> dict[str, Any]:
    """Judge the built-in classifier, which has seen no prompts of this source."""
    return intents(joined(folder), IntentClassifier.load(BUILTIN_FOLDER).classify, seed)


def joined(folder: Path) -> list[IntentRow]:
    """Return the prompts with their labels, which are in another file in the same order."""
    names = "prompts_selfinstruct_seed175_unlabelled.jsonl", "labels_selfinstruct_seed175.jsonl"
    prompts, labels = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()] for name in names
    )
    return [
        IntentRow(
            prompt["text"] + (f"\n{prompt['input']}" if prompt["input"] else ""),
            label["intent"],
            label["second"],
        )
        for prompt, label in zip(prompts, labels, strict=True)
    ]


def intents(
    rows: Sequence[IntentRow],
    classify: Callable[[str], evaluate_intents.Guess],
    seed: int,
    guesses: Sequence[evaluate_intents.Guess] | None = None,
) -> dict[str, Any]:
    """Return the measures of a classifier, without the long ones."""
    guesses = guesses or [classify(row.text) for row in rows]
    found = evaluate_intents.report(rows, guesses, np.random.default_rng(seed))
    for long in ("classes", "confusion", "reliability"):
        del found[long]
    return found | {"decision_ms": timed(classify, [row.text for row in rows])}


def pairs(folder: Path, seed: int) -> dict[str, Any]:
    """Judge predictors on what they were trained on, on other subjects, on another benchmark."""
    mmlu = pair_rows(folder / "routing_mmlu.jsonl")
    gsm8k = pair_rows(folder / "routing_gsm8k.jsonl")
    on_mmlu = train_quality(mmlu, seed=seed).predict
    return {
        "mmlu, in domain": quality(cross_validated(mmlu, seed=seed), seed),
        "mmlu, other subjects": quality(cross_validated(mmlu, seed=seed, apart=True), seed),
        "gsm8k, in domain": quality(cross_validated(gsm8k, seed=seed), seed),
        "gsm8k, trained on mmlu": quality(judged(gsm8k, on_mmlu), seed),
    }


def nine(folder: Path, seed: int) -> dict[str, Any]:
    """Judge all nine models together, and the pair of the most used small one and the best."""
    path = folder / "routing_llmrouter_9models.jsonl"
    rows = [row for row in read_rows(path) if isinstance(row, ScoresRow)]
    found = cross_validated(rows, seed=seed)
    pair = ("mistral-7b-instruct-v0.3", "llama-3.1-nemotron-51b-instruct")
    return quality(found, seed, pair=pair, prices=PRICES)


def quality(
    found: Judged,
    seed: int,
    *,
    pair: tuple[str, str] | None = None,
    prices: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return the measures of a predictor, without the curve."""
    rng = np.random.default_rng(seed)
    report = evaluate_quality.report(found, rng, pair=pair, prices=prices)
    del report["curve"]
    return report | {"decision_ms": timed(found.predict, found.prompts)}


def table(measured: Mapping[str, Any]) -> str:
    """Return the measures for people."""
    lines = ["| intents | right | kept and right | out of scope found | p50 / p99 ms | beside |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name in ("clinc150", "banking77", "labelled prompts"):
        each = measured[name]
        ms = each["decision_ms"]
        beside = ", ".join(
            f"{words.replace('_', ' ')} {baseline['accuracy']:.1%}"
            for words, baseline in each["baselines"].items()
        )
        cells = " | ".join(
            part(each, key, "{:.1%}") for key in ("accuracy", "in_scope_kept_right", "oos_recall")
        )
        lines.append(f"| {name} | {cells} | {ms['p50']:.3f} / {ms['p99']:.3f} | {beside} |")
    lines += ["", "| weak and strong | APGR | CPT(50 %) | CPT(80 %) | length | over length |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, each in measured.items():
        if "apgr" not in each:
            continue
        low, high = each["over_length"]["interval"]
        cells = " | ".join(part(each, key, "{:.3f}") for key in ("apgr", "cpt50", "cpt80"))
        length = part(each["baselines"]["length"], "apgr", "{:.3f}")
        more = f"{each['over_length']['apgr']:+.3f} ({low:+.3f} to {high:+.3f})"
        lines.append(f"| {name} | {cells} | {length} | {more} |")
    models = measured["nine models"]["models"]
    saved, gained = models["saved_at_equal_quality"], models["gained_at_equal_cost"]
    lines += [
        "",
        f"Nine models, beside always {models['best_single']}: at equal quality "
        f"{whole(saved, '{:.1%}')} cheaper, at equal cost {whole(gained, '{:+.3f}')} better.",
    ]
    return "\n".join(lines)


def part(found: Mapping[str, Any], key: str, form: str) -> str:
    """Return a measure with its interval, in a format."""
    if found[key] is None:
        return "-"
    return whole({"value": found[key], "interval": found["intervals"][key]}, form)


def whole(measure: Mapping[str, Any], form: str) -> str:
    """Return `VALUE (LOW to HIGH)`."""
    low, high = measure["interval"]
    return f"{form.format(measure['value'])} ({form.format(low)} to {form.format(high)})"
